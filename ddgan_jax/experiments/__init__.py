"""Run experiments that are more than one training run: `ddgan experiment NAME`."""
