"""Restores the checkpoint 12 of each folder that is named after the data folder, and tells what came of it."""

import sys

from etils import epath

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import build as experiments
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.workdir.checkpoint import Checkpoints
from tests.configs import tiny

experiment = experiments.build(read_settings(tiny.get_config()), sys.argv[1], say=print)
for folder in sys.argv[2:]:
    checkpoints = Checkpoints(epath.Path(folder), read_only=True)
    try:
        checkpoints.restore(12, experiment.steps.target)
        print("restored")
    except UsageError:
        print("refused")
    checkpoints.close()
