"""Score generated images against real ones, and say what every number depends on.

features.py         the feature networks: Inception, a classifier, or the pixels themselves
gather.py           from a stream of images to what metrics read of them
reference.py        the statistics of a data set's features
scorer.py           the object that scores images, for the command and during a run
images_to_score.py  samples of a model, or images that somebody gives
evaluate.py         `ddgan evaluate`: a result that says what each number depends on
"""
