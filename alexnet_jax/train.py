"""A run of training: its parts are built once, its state is restored or initialised, and the loop makes its updates."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from alexnet_jax import paths
from alexnet_jax.data import preprocessing as preprocessings
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import build
from alexnet_jax.experiment.build import Experiment
from alexnet_jax.experiment.data import small_crops
from alexnet_jax.experiment.feed import open_feed
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.experiment.init_from import init_from
from alexnet_jax.experiment.schedules import past_is_kept
from alexnet_jax.experiment.settings import FOLLOWING, FOLLOWING_EPOCHS, read_settings, settings_of
from alexnet_jax.learning.step import TrainState
from alexnet_jax.loop import Loop, errors_of
from alexnet_jax.model_card import card, run_card
from alexnet_jax.network import sharding
from alexnet_jax.network.native import build as native
from alexnet_jax.runtime import output, processes, variables
from alexnet_jax.runtime.interruption import Interruption
from alexnet_jax.workdir import data_identity
from alexnet_jax.workdir import record as workdirs
from alexnet_jax.workdir.checkpoint import Checkpoints, restore_newest
from alexnet_jax.workdir.errors import SaveError
from alexnet_jax.workdir.progress import Progress

# Keys that change where and when things happen, and no number of the training but by rounding: another mesh adds sums
# in another order, and devices that cut rotated or scaled crops round their pixels otherwise, by one level of 255.
MAY_CHANGE = (
    "name",
    "dataset.train_images",  # which a dry run alone reads
    "dataset.on_device",
    "dataset.workers",
    "mesh.data",
    "mesh.tower",
    "evaluate_every",
    "save_every",
    "on_failed_save",
)


def train_and_evaluate(
    config: ConfigDict, workdir: str | os.PathLike, data_dir: str | os.PathLike | None = None
) -> TrainState:
    """Trains by the config, evaluates, and leaves checkpoints and metrics in the workdir.

    A second call resumes from the last checkpoint, and ends, on a CPU, with the same bits as a run without the break.

    Args:
      config: as in `configs/default.py`.
      workdir: a folder, or a `gs://` address.
      data_dir: of prepared data sets; None: that of TFDS.

    Returns:
      The state after the last update.

    Raises:
      UsageError: a mistake that the user can mend.
      Interrupted: a signal came; the state is saved.
    """
    variables.check_precision()
    settings = read_settings(config)
    workdir = paths.absolute(os.fspath(workdir))
    data_dir = None if data_dir is None else os.fspath(data_dir)
    folder = epath.Path(workdir)
    values, name = dataclasses.asdict(settings), settings.dataset.name
    processes.agree(workdirs.facts(values) | {"the workdir": workdir})
    may: dict[str, Any] = {
        "may_change": _may_change(settings),
        "may_grow": ["num_epochs"] if past_is_kept(settings) else [],
        "may_follow": [*(f"dataset.{field}" for field in FOLLOWING), *FOLLOWING_EPOCHS],
        "complete": _complete,
    }
    workdirs.check(folder, values, **may)
    with workdirs.lock(folder), Interruption() as interruption:
        processes.enter("opening the data set", slow=True)
        settings = settings.on_data_set(data_identity.form_of(folder, settings.dataset.name))
        experiment = build.build(settings, data_dir, say=processes.log)
        settings = experiment.settings.on_data_set(name)  # the card has the config's name after a resumption, too
        experiment = dataclasses.replace(experiment, settings=settings)
        interruption.share(experiment.mesh)
        values = dataclasses.asdict(settings)
        workdirs.check(folder, values, **may)
        data_identity.check(folder, experiment.data.identity())
        with _closing(Checkpoints(folder / workdirs.CHECKPOINTS)) as checkpoints:
            result = workdirs.read_result(folder)
            if result is not None and result["step"] != experiment.num_steps:
                result = None  # of a shorter run, which goes on
            content = {"steps": list(checkpoints.steps()), "finished": result is not None}
            processes.agree(experiment.facts() | {"the content of the workdir, which must be shared": content})

            state = _first_state(experiment, checkpoints)
            start_step = int(state.step)
            if start_step == experiment.num_steps and result is not None:
                processes.log(
                    f"finished: all {start_step:,} updates of the run in {workdir} are done; {errors_of(result)}"
                )
                if processes.index() == 0 and not (folder / card.FILE_NAME).exists():
                    run_card.write(folder, experiment, result, say=processes.log, trained_here=False)
                return state

            if processes.index() == 0:
                if result is None:  # a run that repeats its last updates keeps its result: it will be the same
                    workdirs.remove_result(folder)
                    card.remove(folder)
                _record(folder, values, experiment)
            has_config = workdirs.wait_for_config(folder)
            processes.agree({"whether the workdir, which must be shared, has config.json": has_config})
            state, result = _train(experiment, checkpoints, interruption, state, workdir)
        if processes.index() == 0:
            workdirs.write_json(folder, workdirs.RESULT_FILE, result)
            run_card.write(folder, experiment, result, say=processes.log, trained_here=True)
    return state


def _first_state(experiment: Experiment, checkpoints: Checkpoints) -> TrainState:
    """The state to start from: the workdir's last sound checkpoint, else another run's parameters, else fresh ones.

    Raises:
      UsageError: there are checkpoints and none can be read, or they are another network's.
    """
    processes.enter("restoring or initialising the state", slow=True)
    state = restore_newest(checkpoints, experiment.steps.target)
    if state is None and checkpoints.steps():
        raise UsageError("no checkpoint of this workdir can be read; name another workdir")
    if state is None and experiment.settings.init_from is not None:
        state = init_from(experiment)
    return experiment.steps.init(experiment.key) if state is None else state


def _train(
    experiment: Experiment, checkpoints: Checkpoints, interruption: Interruption, state: TrainState, workdir: str
) -> tuple[TrainState, dict[str, Any]]:
    """Makes the updates that are left, and evaluates the last state."""
    start_step = int(state.step)
    progress = Progress(
        epath.Path(workdir),
        num_steps=experiment.num_steps,
        steps_per_epoch=experiment.steps_per_epoch,
        start_step=start_step,
        stop=interruption.request,
    )
    for line in _start_lines(experiment, workdir, start_step):
        progress.say(line)
    with contextlib.closing(progress):
        processes.enter("decoding the images", slow=True)
        with jax.transfer_guard("disallow"), contextlib.closing(open_feed(experiment, say=progress.say)) as feed:
            loop = Loop(experiment, feed, checkpoints, progress, interruption)
            state = loop.run(state, start_step)
            return state, loop.final_evaluation(state)


def _complete(values: dict[str, Any]) -> dict[str, Any]:
    """A recorded config in today's form; one that this version cannot read as it is."""
    try:
        return dataclasses.asdict(settings_of(values))
    except UsageError:
        return values


def _record(folder: epath.Path, values: dict[str, Any], experiment: Experiment) -> None:
    """Writes what later starts compare with, and what the network is loaded with where its data set is not."""
    workdirs.record(folder, values, complete=_complete)
    identity, licence = experiment.data.identity(), experiment.data.provenance.license
    workdirs.write_json(folder, data_identity.DATA_FILE, identity | {data_identity.LICENCE: licence})
    preprocessing = build.preprocessing_of(experiment.settings, experiment.data)
    workdirs.write_bytes(folder, preprocessings.FILE_NAME, preprocessings.to_bytes(preprocessing))


def _start_lines(experiment: Experiment, workdir: str, start_step: int) -> Iterator[str]:
    settings, mesh = experiment.settings, experiment.mesh
    yield (
        f"{settings.name}: {experiment.num_steps:,} updates of {settings.batch_size} images of {settings.dataset.name},"
        f" {sharding.count_params(experiment.steps.target.params):,} parameters,"
        f" mesh data={mesh.shape[sharding.DATA]} tower={mesh.shape[sharding.TOWER]}, workdir {workdir}"
    )
    if line := native.load_once().line:
        yield line
    if warning := small_crops(experiment.data, settings.dataset.name, experiment.crop_size):
        yield warning
    if start_step:
        yield f"resuming after update {start_step:,}"


@contextlib.contextmanager
def _closing(checkpoints: Checkpoints) -> Iterator[Checkpoints]:
    """Closes the checkpoints after the block. After an error of the block, a save that fails is a warning alone.

    Raises:
      SaveError: the block has ended, and the last checkpoint could not be written.
    """
    try:
        yield checkpoints
    except BaseException:
        try:
            checkpoints.close()
        except SaveError as error:
            if processes.index() == 0:
                output.warn(f"warning: {error}")
        raise
    checkpoints.close()


def _may_change(settings: Settings) -> list[str]:
    """Keys that may differ from those of the run in the workdir. A plateau schedule learns from evaluations."""
    return [key for key in MAY_CHANGE if not (key == "evaluate_every" and settings.schedule == "plateau")]
