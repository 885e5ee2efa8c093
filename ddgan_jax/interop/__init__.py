"""Import the weights and checkpoints of other programs, without running anything in their files."""
