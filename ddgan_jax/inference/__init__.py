"""Drawing images from trained generators, their files, and the export of a model."""
