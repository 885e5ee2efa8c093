"""Stands in for the program in tests of local_pod.py; see __main__.py."""
