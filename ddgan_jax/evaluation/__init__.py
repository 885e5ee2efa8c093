"""Numbers of images: what they are compared by, with which real ones, what the numbers are called.

features.py     a feature network: Inception, a classifier, or the pixels themselves
reference.py    statistics of a data set's features
scoring.py      the metrics that can be asked for, by name
evaluate.py     `ddgan evaluate`: samples -> features -> numbers with all that they depend on
"""
