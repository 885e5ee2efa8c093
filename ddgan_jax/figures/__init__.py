"""Figures: what a trained model does in each of its steps, and how good and how fast it is."""
