"""Train: the loop, its reports and checkpoints, and the processes of a job that share it."""
