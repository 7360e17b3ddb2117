"""Experiments of many runs: the paper's claims, tested with seeds. `python -m alexnet_jax.experiments --list`."""
