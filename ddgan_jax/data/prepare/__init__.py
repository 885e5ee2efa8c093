"""Prepare data sets: archives, folders and arrays become records that training reads."""
