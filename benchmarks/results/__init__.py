"""Write docs/results.md and its plots from the result files of the experiments."""
