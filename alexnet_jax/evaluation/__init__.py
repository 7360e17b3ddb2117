"""Errors and predictions over every example of a split: of training, of a network, and of an ensemble."""
