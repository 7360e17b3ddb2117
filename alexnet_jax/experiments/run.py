"""One run of an experiment: a config with a few changes and a seed, and the row that it leaves."""

import dataclasses
import datetime
import importlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from alexnet_jax.configs.variants import change
from alexnet_jax.errors import UsageError
from alexnet_jax.experiments.ensemble import measure_ensemble
from alexnet_jax.experiments.measures import MEASURES, rounded
from alexnet_jax.model_card.run_card import processor
from alexnet_jax.train import train_and_evaluate
from alexnet_jax.workdir.errors import OtherConfigError
from alexnet_jax.workdir.record import RESULT_FILE, has_checkpoints, versions

ENSEMBLE = ", ensemble"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, as data.

    Attributes:
      experiment: name of the experiment, which is the file of its rows.
      name: of the variant, such as `relu`; runs with other seeds have the same name.
      config: file in configs/ and variant, such as `cifar10:relu`.
      overrides: other values by field, such as `{"num_epochs": 60.0}`.
      seed: of the run.
      measure: names of `measures.MEASURES`: what the row has beside the errors.
      trained_by: another experiment that has the same run, by name, config and seed, and whose workdir is used.
      ensemble: seeds of runs whose probabilities are averaged; a member that is not finished is trained first. The name
        ends with `ENSEMBLE`, and the members have the name before it.
    """

    experiment: str
    name: str
    config: str
    overrides: Mapping[str, Any]
    seed: int
    measure: Sequence[str] = ()
    trained_by: str = ""
    ensemble: Sequence[int] = ()

    @property
    def members(self) -> list["Run"]:
        """The runs of an ensemble."""
        name = self.name.removesuffix(ENSEMBLE)
        return [dataclasses.replace(self, name=name, seed=seed, ensemble=()) for seed in self.ensemble]

    @property
    def key(self) -> str:
        """The run among all runs of its experiment. Rows of other overrides have another key."""
        return json.dumps([self.name, self.config, self.overrides, self.seed], sort_keys=True)

    @property
    def folder(self) -> str:
        """The workdir, below that of all experiments."""
        name = re.sub(r"[^A-Za-z0-9_.=-]+", "_", f"{self.name}-seed{self.seed}")
        return f"{self.trained_by or self.experiment}/{name}"


def key_of(row: Mapping[str, Any]) -> str:
    """The key of the run that left the row."""
    return Run("", row["run"], row["config"], row["overrides"], row["seed"]).key


def config_of(run: Run) -> ConfigDict:
    """The config of the run.

    Raises:
      UsageError: there is no such config, variant or field.
    """
    module, _, variant = run.config.partition(":")
    try:
        get_config = importlib.import_module(f"alexnet_jax.configs.{module}").get_config
    except ModuleNotFoundError as error:
        raise UsageError(f"there is no config {module!r} for the run {run.name!r}") from error
    config = get_config(variant) if variant else get_config()
    config.unlock()
    config.name, config.seed = run.folder, run.seed
    try:
        change(config, run.overrides)
    except (KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"a field of {', '.join(run.overrides)} is not in {run.config}: {error}") from error
    return config.lock()


def perform(run: Run, *, runs_dir: Path, data_dir: str | None) -> dict[str, Any]:
    """Trains, or goes on where the run was interrupted, or evaluates an ensemble, and returns the row.

    Raises:
      UsageError: the config or the data set is wrong, or the loss is no longer finite.
    """
    begun = time.monotonic()
    if run.ensemble:
        # A finished member returns at once.
        folders = [_train(member, runs_dir, data_dir) for member in run.members]
        return row_of(run, measure_ensemble(folders, data_dir), seconds=time.monotonic() - begun)
    resumed = has_checkpoints(epath.Path(runs_dir / run.folder))
    workdir = _train(run, runs_dir, data_dir)
    result = json.loads((workdir / RESULT_FILE).read_text())
    measured = {name: MEASURES[name](workdir, data_dir) for name in run.measure}
    return row_of(run, result, seconds=None if resumed else time.monotonic() - begun) | measured


def _train(run: Run, runs_dir: Path, data_dir: str | None) -> Path:
    """Trains, or goes on where the run was interrupted, and returns the workdir."""
    workdir = runs_dir / run.folder
    try:
        train_and_evaluate(config_of(run), str(workdir), data_dir)
    except OtherConfigError as error:
        raise UsageError(f"{error}; remove this folder, or name another one for all workdirs in --runs") from error
    return workdir


def row_of(run: Run, result: Mapping[str, Any] | None, *, seconds: float | None, error: str = "") -> dict[str, Any]:
    """The row of a finished run; without a result that of a failed one.

    Args:
      run: which ended.
      result: errors in [0, 1] and losses in nats by name, the number of images and the updates.
      seconds: from the start of the run to its end, compilation included; None: it failed, or was resumed.
      error: why it failed.
    """
    device = jax.devices()[0]
    return {
        "experiment": run.experiment,
        "run": run.name,
        "config": run.config,
        "overrides": dict(run.overrides),
        "seed": run.seed,
        **({"ensemble": list(run.ensemble)} if run.ensemble else {}),
        **({"failed": error} if result is None else {"result": {k: rounded(v) for k, v in result.items()}}),
        "seconds": None if seconds is None else round(seconds, 1),
        "device": device.device_kind if device.platform != "cpu" else f"CPU, {processor()}",
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }
