"""Training: the loop, what it reports, keeps and evaluates, and the hosts that share it."""
