"""Fidelity: every method against retraining, on tasks with their own truth (`poa run experiment=fidelity`)."""
