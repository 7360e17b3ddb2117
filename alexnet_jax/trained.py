"""A trained network, ready for pictures: `predict`, `top`, `features`. No data set is opened."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from alexnet_jax.data import geometry
from alexnet_jax.data.imagenet_names import readable
from alexnet_jax.data.picture_batches import picture_batches
from alexnet_jax.data.pictures import Picture, read_picture
from alexnet_jax.data.preprocessing import Preprocessing
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.learning.step import predict_log_probs
from alexnet_jax.network import sharding
from alexnet_jax.network.forward import BatchStats, Params, compile_options, make_features, make_forward
from alexnet_jax.network.tower import Tower

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

    @property
    def last_hidden_layer(self) -> str:
        """The layer whose features stand for a picture: fc7, else the one before the classifier, else the last."""
        return "fc7" if "fc7" in self.layers else self.layers[-2 if self.classes else -1]

    def __repr__(self) -> str:
        classes = f"{len(self.classes):,} classes" if self.classes else "no classifier"
        width = "" if self.settings.network.width == 1 else f" of width {self.settings.network.width:g}"
        return (
            f"<Trained {self.name}: recipe {self.settings.network.recipe}{width}, {classes}, crops of"
            f" {self.preprocessing.crop_size} pixels, {sharding.count_params(self.params):,} parameters,"
            f" {self.step:,} updates>"
        )

    def apply(self, params: Params, inputs: Float[Array, "B h w 3"]) -> Float[Array, "B classes"]:
        """Logits of inputs as `inputs` makes them. Pure: it can be compiled, differentiated backward, and mapped.

        Raises:
          UsageError: the network has no classifier.
        """
        self.need_classifier()
        missing = -len(inputs) % self.mesh.shape[sharding.DATA]  # devices take equal shares
        padded = jax.numpy.pad(inputs, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else inputs
        return make_forward(self.tower, self.mesh)(params, self.batch_stats, padded, None)[0][: len(inputs)]

    def inputs(self, pictures: "Picture | Iterable[Picture]") -> Float[Array, "B h w 3"]:
        """The network's input for pictures, all at once: centre crops, minus the mean, scaled.

        Raises:
          UsageError: one of them is no picture.
        """
        squares = np.concatenate(list(self._squares(pictures, 1)))
        crops = jax.device_put(geometry.center_crop(squares, self.preprocessing.crop_size))
        return jax.jit(self.preprocessing.inputs)(crops)

    def square(self, picture: Picture) -> UInt8[np.ndarray, "size size 3"]:
        """A picture as the data set of the run would store it.

        Args:
          picture: a file's name or bytes, an open file, a PIL image, or an array `[h, w, 3]` or `[h, w]` of `uint8`.

        Raises:
          UsageError: it is no picture.
        """
        return read_picture(picture, self.preprocessing.image_size)

    def predict(self, pictures: "Picture | Iterable[Picture]", *, views: int = 1) -> Float[np.ndarray, "B classes"]:
        """Probabilities of the classes: `network.classes[network.predict("cat.jpg")[0].argmax()]`.

        Thousands of pictures take no more memory than two batches of them, beside the result. Several processes must
        call `predict`, `top` or `features` together: each passes its own pictures, and all pass the same number.

        Args:
          pictures: one or several, as in `square`; a generator, too.
          views: one of `geometry.VIEWS`: 1, the centre crop; 9; or the paper's 10. Averaged.

        Raises:
          UsageError: one of them is no picture, the network has no classifier, or `views` is another number.
        """
        self.need_classifier()
        if views not in geometry.VIEWS:
            raise UsageError(f"views is {views!r}; give 1 (the centre crop), 9 or 10")
        return np.exp(self._over_batches(functools.partial(self.log_probs, views=views), pictures, views))

    def top(
        self, pictures: "Picture | Iterable[Picture]", k: int = 5, *, views: int = 1
    ) -> list[list[tuple[str, float]]]:
        """The likeliest classes of each picture, with their probabilities: `network.top("cat.jpg")[0]`.

        Args:
          pictures: one or several, as in `square`.
          k: how many classes; all, where there are fewer.
          views: as in `predict`.

        Returns:
          For each picture pairs of a class and a probability, the likeliest first. ImageNet's classes are in English:
          `tabby (n02123045)`.

        Raises:
          UsageError: as in `predict`, a probability is not finite, or `k` is no such number.
        """
        if k < 1:
            raise UsageError(f"k is {k}; give the number of classes, at least 1")
        names = [readable(name) for name in self.classes]
        probabilities = self.predict(pictures, views=views)
        if not np.isfinite(probabilities).all():
            row = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
            raise UsageError(f"picture {row} has probabilities that are not finite: {self.name} overflows")
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        return [
            [(names[label], float(row[label])) for label in labels]
            for row, labels in zip(probabilities, order, strict=True)
        ]

    def features(self, pictures: "Picture | Iterable[Picture]", layer: str | None = None) -> Float[np.ndarray, "B ..."]:
        """A layer's output for the centre crops, after the operations that follow the layer.

        Args:
          pictures: one or several, as in `square`; a generator, too.
          layer: its name, such as `conv5` or `fc7`; None: the last hidden layer.

        Raises:
          UsageError: one of them is no picture, or the network has no such layer.
        """
        layer = self.last_hidden_layer if layer is None else layer
        self.features_step(layer)
        return self._over_batches(functools.partial(self.features_of, layer=layer), pictures, 1)

    def log_probs(
        self, squares: UInt8[np.ndarray, "b size size 3"], *, views: int = 1
    ) -> Float[np.ndarray, "b classes"]:
        """Log of the probabilities of squares of `image_size`. Compiled for each number of squares: pad the last ones.

        Raises:
          UsageError: the network has no classifier.
        """
        crops = geometry.views_of(squares, self.preprocessing.crop_size, views)
        return self._run(self.log_probs_step, crops)

    def features_of(self, squares: Squares, layer: str) -> Float[np.ndarray, "b ..."]:
        """`features` of squares of `image_size`. Compiled for each number of squares: pad the last ones.

        Raises:
          UsageError: the network has no such layer.
        """
        crops = geometry.center_crop(squares, self.preprocessing.crop_size)
        return self._run(self.features_step(layer), crops)

    @functools.cached_property
    def log_probs_step(self) -> Step:
        """`(params, batch_stats, crops) -> log of the probabilities`, averaged over views, compiled for the mesh.

        The result is whole on every device.

        Raises:
          UsageError: the network has no classifier.
        """
        self.need_classifier()
        forward = make_forward(self.tower, self.mesh)

        def step(params, batch_stats, crops):
            return predict_log_probs(params, batch_stats, crops, forward=forward, inputs=self.preprocessing.inputs)

        return self._compiled(step)

    @functools.cached_property
    def features_step(self) -> Callable[[str], Step]:
        """`features_step(layer)(params, batch_stats, crops)`: the layer's output, whole on every device.

        Each is compiled for the mesh, once. A layer that the network does not have is a `UsageError`.
        """

        @functools.cache
        def step(layer: str) -> Step:
            features = make_features(self.tower, self.mesh, layer)
            return self._compiled(
                lambda params, batch_stats, crops: features(params, batch_stats, self.preprocessing.inputs(crops))
            )

        return step

    def _compiled(self, step: Step) -> Step:
        return jax.jit(step, out_shardings=sharding.replicated(self.mesh), compiler_options=compile_options(self.mesh))

    def _run(self, step: Step, crops: UInt8[np.ndarray, "b ..."]) -> np.ndarray:
        """The step's result for the crops. Each process has its own crops, and all have the same number."""
        place, places = sharding.place_on_data_axis(self.mesh)
        if places != jax.process_count():
            raise UsageError(
                f"the two towers of {self.name} lie in two processes, which then see the same pictures; give each"
                " process two devices, as JAX_NUM_CPU_DEVICES=2 does, or use one process"
            )
        padded = pad(crops, len(crops) + -len(crops) % self.mesh.shape[sharding.DATA])
        outputs = step(self.params, self.batch_stats, sharding.put_batch(padded, self.mesh))
        own = place * len(padded)
        return np.asarray(jax.device_get(outputs))[own : own + len(crops)]

    def _squares(self, pictures: "Picture | Iterable[Picture]", views: int) -> Iterator[Squares]:
        """Pictures in batches, as squares."""
        size = max(1, BATCH // views)
        return picture_batches(pictures, image_size=self.preprocessing.image_size, batch_size=size)

    def _over_batches(
        self, run: Callable[[Squares], np.ndarray], pictures: "Picture | Iterable[Picture]", views: int
    ) -> np.ndarray:
        """The results of all pictures. Few programs are compiled: a batch is whole, or as long as a power of two."""
        results: list[np.ndarray] = []
        for squares in self._squares(pictures, views):
            length = max(1, BATCH // views) if results else choose_batch_size(len(squares), views)
            results.append(run(pad(squares, length))[: len(squares)])
        return np.concatenate(results)

    def need_classifier(self) -> None:
        """Checks that the network tells classes apart.

        Raises:
          UsageError: the last layer is another one.
        """
        if not self.classes:
            raise UsageError(
                f"{self.name} has no classifier: its last layer is {self.layers[-1]}; it serves `figures` and,"
                f" for the output of {self.layers[-1]}, `features`",
                option=f"layer={self.layers[-1]}",
            )


def choose_batch_size(pictures: int, views: int) -> int:
    """A power of two that holds all pictures, or as many as are computed at once: few sizes mean few programs."""
    return min(max(1, BATCH // views), 1 << (pictures - 1).bit_length())


def pad(images: UInt8[np.ndarray, "b ..."], length: int) -> UInt8[np.ndarray, "{length} ..."]:
    """The images, and black ones after them up to a length."""
    missing = length - len(images)
    return np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)]) if missing else images
