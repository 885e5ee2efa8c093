"""Readers of other programs' weights. Each works on plain numpy arrays by name."""
