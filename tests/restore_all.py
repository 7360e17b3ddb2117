"""Restores the checkpoint 12 of each folder that is named after the data folder, and tells what came of it."""

import sys

from etils import epath

from alexnet_jax import experiment as experiments
from alexnet_jax.errors import UsageError
from alexnet_jax.learning.checkpoint import Checkpoints
from alexnet_jax.settings import read_settings
from tests.configs import tiny

experiment = experiments.build(read_settings(tiny.get_config()), sys.argv[1], say=print)
for folder in sys.argv[2:]:
    checkpoints = Checkpoints(epath.Path(folder), read_only=True)
    try:
        checkpoints.restore(12, experiment.target)
        print("restored")
    except UsageError:
        print("refused")
    checkpoints.close()
