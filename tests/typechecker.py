"""Checks types, shapes and dtypes of annotations at run time; tests/conftest.py says where."""

from beartype import BeartypeConf, beartype

# As the language defines it, and as type checkers see it: an int may be given for a float.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
