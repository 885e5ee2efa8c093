"""Open trained models, draw images from them, and export them."""
