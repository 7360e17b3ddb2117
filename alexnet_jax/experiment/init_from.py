"""Starting from another run's parameters, with some layers anew: how the paper's "1 CNN*" was made."""

import dataclasses
from collections.abc import Sequence

from etils import epath
from jaxtyping import PyTree

from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.build import Experiment
from alexnet_jax.learning.step import TrainState
from alexnet_jax.workdir import record as workdirs
from alexnet_jax.workdir.checkpoint import Checkpoints


def init_from(experiment: Experiment) -> TrainState:
    """A fresh state whose layers, but for those of `config.fresh`, come from the last checkpoint of `config.init_from`.

    Velocities, rates and the step number begin anew. Layers that the other network alone has are left behind.

    Raises:
      UsageError: there is no such run, `fresh` names no layer, or a layer that should be copied does not fit.
    """
    settings, target = experiment.settings, experiment.steps.target
    unknown = sorted(set(settings.fresh) - set(target.params))
    if unknown:
        raise UsageError(f"config.fresh names {unknown[0]!r}; the layers are {', '.join(target.params)}")
    folder = epath.Path(str(settings.init_from)).expanduser() / workdirs.CHECKPOINTS
    if not folder.exists():
        raise UsageError(
            f"config.init_from is {settings.init_from!r}, and there are no checkpoints; name the workdir of a run"
        )
    checkpoints = Checkpoints(folder.resolve(), read_only=True)
    try:
        steps = checkpoints.steps()
        if not steps:
            raise UsageError(f"config.init_from is {settings.init_from!r}, and that run has saved nothing yet")
        fields = {name: _kept(getattr(target, name), settings.fresh) for name in ("params", "batch_stats")}
        copied = checkpoints.restore(steps[-1], fields)
    finally:
        checkpoints.close()
    state = experiment.steps.init(experiment.key)
    return dataclasses.replace(
        state, params=state.params | copied["params"], batch_stats=state.batch_stats | copied["batch_stats"]
    )


def _kept(layers: PyTree, fresh: Sequence[str]) -> PyTree:
    """The layers that come from the other run."""
    return {name: leaves for name, leaves in layers.items() if name.removesuffix("_norm") not in fresh}
