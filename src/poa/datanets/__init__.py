"""Datanets: how data gets in, who owns which cluster of copies, and what is frozen for training."""
