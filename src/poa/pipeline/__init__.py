"""The route as one job: select, snapshot, train, attribute, check against retraining, credit, pay, log, report."""
