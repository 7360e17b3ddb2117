"""Sources of images, one file a kind: what they hold and how to read it. None of them needs TensorFlow."""
