"""Name, read, write and lock files and folders, without knowing any model.

`paths` checks the paths that people write. `foreign` reads bytes that this process did not write,
and every such file is read through it; `arrays` and `pickle_machine` do so for NumPy's files and
for pickles. `atomic` writes files and folders whole or not at all. `locks` keeps a second process
from writing to the same path. `run_folder` knows the files of a run.
"""
