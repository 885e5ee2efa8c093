"""Measure speed with programs that run from the repository root; see README.md."""
