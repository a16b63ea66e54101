"""Answers with their provenance: generation, tracing, receipts, and the same over HTTP."""
