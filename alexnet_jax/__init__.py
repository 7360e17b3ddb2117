"""AlexNet as it was built and trained in 2012, as a functional JAX/Flax program."""

__version__ = "0.1.0"
