"""Trained networks from workdirs and from files: `alexnet_jax.load`."""

import contextlib
import os

import jax
from etils import epath
from jax.sharding import Mesh
from jaxtyping import PyTree

from alexnet_jax import paths
from alexnet_jax.data import preprocessing as preprocessings
from alexnet_jax.data.errors import DatasetError
from alexnet_jax.data.preprocessing import Preprocessing
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import build, follow
from alexnet_jax.experiment.data import open_data
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.experiment.settings import settings_of
from alexnet_jax.formats import imported
from alexnet_jax.network import sharding
from alexnet_jax.network.forward import init_variables
from alexnet_jax.network.tower import Tower
from alexnet_jax.paths import is_file
from alexnet_jax.runtime import processes, variables
from alexnet_jax.trained import Trained
from alexnet_jax.workdir import data_identity, record
from alexnet_jax.workdir.checkpoint import Checkpoints, choose_step
from alexnet_jax.workdir.errors import MismatchError

FILES = (".safetensors", ".caffemodel", ".pth", ".pt", ".ckpt")  # a name with such an ending is no workdir


def load(
    name: str | os.PathLike, *, checkpoint: str | int = "last", data_dir: str | os.PathLike | None = None
) -> Trained:
    """A trained network: `load("runs/elpv").predict("cell.png")`.

    Args:
      name: of a run's workdir, or of a file: `.safetensors`, `.caffemodel` or `.pth`, as `convert` writes and reads.
      checkpoint: of a workdir: `last`, `best` (smallest error in an evaluation), or the number of a step.
      data_dir: of prepared data sets, for workdirs of earlier versions, which lack `preprocessing.npz`.

    Raises:
      UsageError: there is no such run or file, it has no checkpoint yet, or a file is damaged.
    """
    variables.check_precision()
    text = os.fspath(name)
    if not text.strip():
        raise UsageError("the name of the network is empty; name a workdir or a file")
    paths.check_address(text)
    path = epath.Path(paths.absolute(text))
    if is_file(path) or (path.suffix.lower() in FILES and not path.is_dir()):
        if str(checkpoint) != "last":
            raise UsageError(f"{text} is a file, which holds one network; leave out the checkpoint {checkpoint!r}")
        return open_file(path)
    return open_workdir(path, str(checkpoint), data_dir=None if data_dir is None else os.fspath(data_dir))


def open_file(file: epath.Path) -> Trained:
    """The network of a file, on the devices that there are.

    Args:
      file: as in `load`.

    Raises:
      UsageError: the file cannot be read, is damaged, or holds another network.
    """
    network = imported.read(file)
    settings = network.settings.on_any_mesh()
    mesh, tower, target = _empty(settings, network.preprocessing)
    fields = {"params": network.params, "batch_stats": network.batch_stats}
    placed = jax.tree.map(lambda leaf, like: jax.device_put(leaf, like.sharding), fields, target)
    return Trained(
        name=str(file), step=network.step, settings=settings, tower=tower, mesh=mesh,
        params=placed["params"], batch_stats=placed["batch_stats"], preprocessing=network.preprocessing,
    )  # fmt: skip


def open_workdir(folder: epath.Path, checkpoint: str = "last", *, data_dir: str | None = None) -> Trained:
    """The network of a run, on the devices that there are, whatever mesh trained it.

    Args:
      folder: the workdir, absolute.
      checkpoint: as in `load`.
      data_dir: as in `load`.

    Raises:
      UsageError: as in `load`.
    """
    record.read_config(folder)  # a folder without a run is named before its checkpoints are missed
    with contextlib.closing(open_checkpoints(folder)) as checkpoints:
        return restore(folder, checkpoints, choose_step(checkpoints, checkpoint), data_dir=data_dir)


def open_checkpoints(folder: epath.Path) -> Checkpoints:
    """The checkpoints of a workdir, to be read and closed.

    Raises:
      UsageError: their folder cannot be read.
    """
    return Checkpoints(folder / record.CHECKPOINTS, read_only=True)


def restore(folder: epath.Path, checkpoints: Checkpoints, step: int, *, data_dir: str | None = None) -> Trained:
    """The network of a run after an update, on the devices that there are.

    Args:
      folder: the workdir, absolute.
      checkpoints: its checkpoints.
      step: of a checkpoint.
      data_dir: as in `load`.

    Raises:
      UsageError: as in `load`.
    """
    settings = settings_of(record.read_config(folder)).on_any_mesh()
    settings = settings.on_data_set(data_identity.form_of(folder, settings.dataset.name))
    preprocessing = preprocessing_of(folder, settings, data_dir)
    mesh, tower, target = _empty(settings, preprocessing)
    try:
        fields = checkpoints.restore(step, target)
    except MismatchError as error:
        raise UsageError(
            f"{error}; {record.CONFIG_FILE} or {preprocessings.FILE_NAME} of {folder} is of another run: restore it, or"
            " remove the latter, and the run's data set is read in its place"
        ) from error
    return Trained(
        name=str(folder),
        step=step,
        settings=settings,
        tower=tower,
        mesh=mesh,
        params=fields["params"],
        batch_stats=fields["batch_stats"],
        preprocessing=preprocessing,
    )


def _empty(settings: Settings, preprocessing: Preprocessing) -> tuple[Mesh, Tower, dict[str, PyTree]]:
    """A mesh for the network of the settings, the network, and shapes and shardings of its parameters there."""
    mesh = build.build_mesh(settings, trains=False)
    tower = build.build_tower(settings, len(preprocessing.class_names))
    params, batch_stats = jax.eval_shape(lambda: init_variables(tower, jax.random.key(0), preprocessing.crop_size))
    return mesh, tower, sharding.placed({"params": params, "batch_stats": batch_stats}, mesh)


def preprocessing_of(folder: epath.Path, settings: Settings, data_dir: str | None) -> Preprocessing:
    """The preprocessing of a workdir; where an earlier version wrote it, that of the run's data set.

    Raises:
      UsageError: the file is damaged, or there is neither the file nor the data set.
    """
    file = folder / preprocessings.FILE_NAME
    if is_file(file):
        return preprocessings.load(file)
    if file.exists():
        raise DatasetError(f"{file} is not a file; remove it, and the run's data set is read in its place")
    data = processes.first_then_rest(lambda: open_data(settings.dataset.name, data_dir, say=lambda line: None))
    return build.preprocessing_of(follow.follow(settings, follow.facts_of(data)), data)
