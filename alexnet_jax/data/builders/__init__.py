"""TFDS builders, one file a data set. They write ArrayRecord and never need TensorFlow."""
