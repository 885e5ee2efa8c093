"""Explain a config, for `ddgan show`, and look for mistakes in a run, for `ddgan check`."""
