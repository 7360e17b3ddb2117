"""Measurements, one module a sub-command of `python -m alexnet_jax.benchmark`."""
