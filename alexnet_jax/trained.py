"""A trained network, ready for pictures: `load`, `predict`, `features`. No data set is opened."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree, UInt8

from alexnet_jax.data import geometry
from alexnet_jax.data import preprocessing as preprocessings
from alexnet_jax.data.errors import DatasetError
from alexnet_jax.data.pictures import Picture, read_picture
from alexnet_jax.data.preprocessing import Preprocessing
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment import build as experiments
from alexnet_jax.experiment import follow
from alexnet_jax.experiment.data import open_data
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.learning.step import predict_log_probs
from alexnet_jax.network import sharding
from alexnet_jax.network.forward import (
    BatchStats,
    Params,
    compile_options,
    init_variables,
    make_features,
    make_forward,
)
from alexnet_jax.network.tower import Tower
from alexnet_jax.runtime import processes
from alexnet_jax.workdir import data_identity, record
from alexnet_jax.workdir.atomic import is_file
from alexnet_jax.workdir.checkpoint import Checkpoints, choose_step

BATCH = 128  # crops

Squares: TypeAlias = UInt8[np.ndarray, "b size size 3"]  # of `image_size` pixels, as a data set stores them
Step: TypeAlias = Callable[[Params, BatchStats, UInt8[Array, "B *views h w 3"]], Float[Array, "B ..."]]


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A network with its parameters, and the way from a picture to its input.

    Attributes:
      name: of the workdir or file, for people.
      step: updates done.
      settings: of its run.
      tower: the network.
      mesh: of the devices.
      params, batch_stats: laid out on the mesh.
      preprocessing: classes, sizes, mean and scale of the pixels.
    """

    name: str
    step: int
    settings: Settings
    tower: Tower
    mesh: Mesh
    params: Params
    batch_stats: BatchStats
    preprocessing: Preprocessing

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels; empty: the network has no classifier."""
        return self.preprocessing.class_names

    @property
    def layers(self) -> list[str]:
        """The names of the layers, in order."""
        return [layer.name for layer in self.tower.layers]

    def apply(self, params: Params, inputs: Float[Array, "B h w 3"]) -> Float[Array, "B classes"]:
        """Logits of inputs as `inputs` makes them. Pure: it can be compiled, differentiated and mapped.

        Raises:
          UsageError: the network has no classifier.
        """
        self.need_classifier()
        return make_forward(self.tower, self.mesh)(params, self.batch_stats, inputs, None)[0]

    def inputs(self, pictures: "Picture | Iterable[Picture]") -> Float[Array, "B h w 3"]:
        """The network's input for pictures: centre crops, minus the mean, scaled.

        Raises:
          UsageError: one of them is no picture.
        """
        squares = np.stack([self.square(picture) for picture in as_sequence(pictures)])
        return self.preprocessing.inputs(jax.numpy.asarray(crops_of(squares, self.preprocessing.crop_size, 1)[:, 0]))

    def square(self, picture: Picture) -> UInt8[np.ndarray, "size size 3"]:
        """A picture as the data set of the run would store it.

        Args:
          picture: a file's name or bytes, a PIL image, or an array `[h, w, 3]` or `[h, w]` of `uint8`.

        Raises:
          UsageError: it is no picture.
        """
        return read_picture(picture, self.preprocessing.image_size)

    def predict(self, pictures: "Picture | Iterable[Picture]", *, views: int = 1) -> Float[np.ndarray, "B classes"]:
        """Probabilities of the classes: `net.classes[net.predict("cat.jpg")[0].argmax()]`.

        Args:
          pictures: one or several, as in `square`.
          views: 1, the centre crop, or the paper's 10, averaged.

        Raises:
          UsageError: one of them is no picture, or the network has no classifier.
        """
        return np.concatenate(
            [np.exp(self.log_probs(squares, views=views)) for squares in self._squares(pictures, views)]
        )

    def features(self, pictures: "Picture | Iterable[Picture]", layer: str = "fc7") -> Float[np.ndarray, "B ..."]:
        """A layer's output for the centre crops, after the operations that follow the layer.

        Args:
          pictures: one or several, as in `square`.
          layer: its name, such as `conv5` or `fc7`, the last hidden layer.

        Raises:
          UsageError: one of them is no picture, or the network has no such layer.
        """
        return np.concatenate([self.features_of(squares, layer) for squares in self._squares(pictures, 1)])

    def log_probs(
        self, squares: UInt8[np.ndarray, "b size size 3"], *, views: int = 1
    ) -> Float[np.ndarray, "b classes"]:
        """Log of the probabilities of squares of `image_size`. Compiled for each number of squares: pad the last ones.

        Raises:
          UsageError: the network has no classifier.
        """
        crops = crops_of(squares, self.preprocessing.crop_size, views)
        return self._run(self.log_probs_step, crops)

    def features_of(self, squares: Squares, layer: str) -> Float[np.ndarray, "b ..."]:
        """`features` of squares of `image_size`.

        Raises:
          UsageError: the network has no such layer.
        """
        crops = crops_of(squares, self.preprocessing.crop_size, 1)[:, 0]
        return self._run(self.features_step(layer), crops)

    @functools.cached_property
    def log_probs_step(
        self,
    ) -> Step:
        """`(params, batch_stats, crops) -> log of the probabilities`, averaged over views, compiled for the mesh.

        The result is whole on every device.

        Raises:
          UsageError: the network has no classifier.
        """
        self.need_classifier()
        forward = make_forward(self.tower, self.mesh)

        def step(params, batch_stats, crops):
            return predict_log_probs(
                params, batch_stats, crops, forward=forward, photometry=lambda x, *_: self.preprocessing.inputs(x)
            )

        return self._compiled(step)

    def features_step(self, layer: str) -> Step:
        """`(params, batch_stats, crops) -> the layer's output`, compiled for the mesh, whole on every device.

        Raises:
          UsageError: the network has no such layer.
        """
        compiled = self._features_steps.get(layer)
        if compiled is None:
            features = make_features(self.tower, self.mesh, layer)
            compiled = self._compiled(
                lambda params, batch_stats, crops: features(params, batch_stats, self.preprocessing.inputs(crops))
            )
            self._features_steps[layer] = compiled
        return compiled

    @functools.cached_property
    def _features_steps(self) -> dict[str, Step]:
        return {}

    def _compiled(self, step: Step) -> Step:
        return jax.jit(step, out_shardings=sharding.replicated(self.mesh), compiler_options=compile_options(self.mesh))

    def _run(self, step: Step, crops: UInt8[np.ndarray, "b ..."]) -> np.ndarray:
        """The step's result for crops of this process alone, as many as there are."""
        pairs = self.mesh.shape[sharding.DATA]
        missing = -len(crops) % pairs
        padded = np.concatenate([crops, np.zeros((missing, *crops.shape[1:]), np.uint8)]) if missing else crops
        batch = sharding.put_batch(padded, self.mesh)
        return np.asarray(jax.device_get(step(self.params, self.batch_stats, batch)))[: len(crops)]

    def _squares(self, pictures: "Picture | Iterable[Picture]", views: int) -> Iterable[Squares]:
        """Pictures in batches, as squares."""
        pictures = as_sequence(pictures)
        size = max(1, BATCH // views)
        if not pictures:
            raise UsageError("there is no picture; give at least one")
        for first in range(0, len(pictures), size):
            yield np.stack([self.square(picture) for picture in pictures[first : first + size]])

    def need_classifier(self) -> None:
        """Checks that the network tells classes apart.

        Raises:
          UsageError: the last layer is another one.
        """
        if not self.classes:
            raise UsageError(
                f"{self.name} has no classifier: its last layer is {self.layers[-1]}; it serves `figures` and"
                f" `features --layer={self.layers[-1]}`"
            )


def as_sequence(pictures: "Picture | Iterable[Picture]") -> Sequence[Picture]:
    """The pictures as a sequence: one picture alone is a sequence of one."""
    if isinstance(pictures, np.ndarray):
        return list(pictures) if pictures.ndim == 4 else [pictures]
    if isinstance(pictures, (list, tuple)):
        return pictures
    if isinstance(pictures, (str, bytes, os.PathLike)) or not isinstance(pictures, Iterable):
        return [pictures]
    return list(pictures)


def crops_of(squares: Squares, crop_size: int, views: int) -> UInt8[np.ndarray, "b views crop crop 3"]:
    """The centre crop of each square, or the paper's ten views."""
    return np.stack([geometry.views_of(square, crop_size, views) for square in squares])


def load(name: str | os.PathLike, *, checkpoint: str = "last", data_dir: str | None = None) -> Trained:
    """A trained network: `load("runs/elpv").predict("cell.png")`.

    Args:
      name: of a run's workdir.
      checkpoint: `last`, `best` (by validation error), or the number of a step.
      data_dir: of prepared data sets, for workdirs of earlier versions, which lack `preprocessing.npz`.

    Raises:
      UsageError: there is no such run, it has no checkpoint yet, or a file is damaged.
    """
    text = os.fspath(name)
    folder = epath.Path(text if "://" in text else os.path.abspath(os.path.expanduser(text)))
    return open_workdir(folder, checkpoint, data_dir=data_dir)


def open_workdir(folder: epath.Path, checkpoint: str = "last", *, data_dir: str | None = None) -> Trained:
    """The network of a run, on the devices that there are, whatever mesh trained it.

    Args:
      folder: the workdir, absolute.
      checkpoint: as in `load`.
      data_dir: as in `load`.

    Raises:
      UsageError: as in `load`.
    """
    settings = read_settings(record.read_config(folder)).on_any_mesh()
    settings = settings.on_data_set(data_identity.form_of(folder, settings.dataset.name))
    checkpoints = Checkpoints(folder / record.CHECKPOINTS, read_only=True)
    try:
        step = choose_step(checkpoints, checkpoint)
        found = preprocessing_of(folder, settings, data_dir)
        mesh = experiments.build_mesh(settings)
        tower = experiments.build_tower(settings, len(found.class_names))
        target = target_of(tower, mesh, found.crop_size)
        fields = checkpoints.restore(step, target)
    finally:
        checkpoints.close()
    return Trained(
        name=str(folder),
        step=step,
        settings=settings,
        tower=tower,
        mesh=mesh,
        params=fields["params"],
        batch_stats=fields["batch_stats"],
        preprocessing=found,
    )


def target_of(tower: Tower, mesh: Mesh, crop_size: int) -> dict[str, PyTree]:
    """Shapes and shardings of `params` and `batch_stats` on a mesh."""
    init = functools.partial(init_variables, tower, image_size=crop_size)
    params, batch_stats = jax.eval_shape(lambda: init(key=jax.random.key(0)))
    abstract = {"params": params, "batch_stats": batch_stats}
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        abstract,
        sharding.state_shardings(abstract, mesh),
    )


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
    return experiments.preprocessing_of(follow.follow(settings, follow.facts_of(data)), data)
