"""Measurements: a module for each sub-command of `python -m alexnet_jax.benchmark`."""
