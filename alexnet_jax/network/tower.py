"""A tower, one GPU's half of the network, written once and applied to a tuple: an entry for each tower of a device.

One device holds both towers, or two devices hold one each; the code is the same. Towers meet in `exchange` alone.
`forward.py` decides where towers run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from alexnet_jax.errors import UsageError
from alexnet_jax.network import blocks
from alexnet_jax.network import layers as operations
from alexnet_jax.network.convolution import convolution, local_convolution
from alexnet_jax.network.native import ops
from alexnet_jax.network.parameters import BatchNormLeaves, Weights, split_towers
from alexnet_jax.network.recipes import RECIPES, Layer, layers_of

DATA, TOWER = "data", "tower"  # axes of a mesh

Maps: TypeAlias = tuple[Array, ...]  # of each tower on this device
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {"relu": operations.relu, "tanh": jnp.tanh}


def exchange(xs: Sequence[Float[Array, "*b c"]], towers: int) -> Maps:
    """The channels of all `towers` side by side, for each tower here: the paper's GPUs communicate (section 3.5).

    Towers on this device are joined in memory; those of other devices are gathered over the mesh axis `tower`.
    """
    joined = jnp.concatenate(xs, axis=-1)
    if len(xs) < towers:
        # The gathered axis comes first. Gathered along the last axis, a CPU would transpose all channels and back.
        parts = lax.all_gather(joined, TOWER)
        joined = jnp.concatenate([parts[i] for i in range(parts.shape[0])], axis=-1)
    return (joined,) * len(xs)


def _products_apart(xs: Maps, kernels: Float[Array, "tower inputs units"]) -> Maps:
    """What enters each tower times its kernel."""
    return tuple(x @ kernel for x, kernel in zip(xs, split_towers(kernels), strict=True))


def _products_at_once(xs: Maps, kernels: Float[Array, "tower inputs units"]) -> Maps:
    """The same, as one batch of products."""
    return split_towers(jnp.stack(xs) @ kernels)


class Tower(nn.Module):
    """The towers of net 145, or of another recipe. The defaults are net 145's.

    Parameters and batch statistics have a leading axis with an entry for each tower of this device.

    Attributes:
      layers: of a tower; see `recipes.py`.
      num_classes: of the whole network. Each tower has half of the logits, rounded up; in 2012 one GPU had all.
      towers: of the whole network, 2 or 1.
      axes: mesh axes over which this call is divided, when it runs within `shard_map`: `data`, `tower`, both or none.
      activation: relu or tanh (paper section 3.1).
      dtype: of the activations between layers, such as bfloat16; None: as the images, which are then float32 as the
        parameters. Parameters, norms and logits keep theirs.
      he_init: start kernels at He et al. 2015's sqrt(2 / inputs) and biases at 0, not at the recipe's values.
      norm_k, norm_alpha, norm_beta, norm_size: response norm; alpha as it multiplies the sum: 1e-4 / 5
        (A/layers/layer-params-145.cfg:137-155 and A/layer.py:1183).
      whole_norm: the window of a response norm reaches into the other tower, as in Caffe.
      spatial_alpha, spatial_size: the second norm of layer 2: k 1, alpha 1e-3 / 25
        (A/layers/layer-params-145.cfg:157-163).
      pool_size, pool_stride: overlapping pooling (paper section 3.4).
      adaptive_size: side of the maps after `adaptive_pool`, which takes means.
      round_down: sizes of maps are rounded down, as in PyTorch, not up as in 2012.
      whole_windows: convolutions alone round sizes down, as Caffe's do (K/src/caffe/layers/conv_layer.cpp:18).
      keep: share of units that dropout keeps (paper section 4.2).
      inverted_dropout: dropout divides by `keep` in training, as in Caffe, in place of multiplying in evaluation.
      momentum: of batch norm's running averages.
    """

    layers: tuple[Layer, ...]
    num_classes: int
    towers: int = 2
    axes: tuple[str, ...] = ()
    he_init: bool = False
    activation: str = "relu"
    dtype: Any = None
    norm_k: float = 2.0
    norm_alpha: float = 1e-4 / 5
    norm_beta: float = 0.75
    norm_size: int = 5
    whole_norm: bool = False
    spatial_alpha: float = 1e-3 / 25
    spatial_size: int = 5
    pool_size: int = 3
    pool_stride: int = 2
    adaptive_size: int = 6
    round_down: bool = False
    whole_windows: bool = False
    keep: float = 0.5
    inverted_dropout: bool = False
    momentum: float = 0.9

    @nn.compact
    def __call__(self, images: Float[Array, "b *before c"], *, train: bool) -> Float[Array, "b *places outputs"]:
        """The logits of the towers here, side by side; the last tower has a logit too many if classes are odd.

        A tower whose last layer is a convolution gives the maps of that layer.

        Training needs an rng `dropout`, and changes the collection `batch_stats` of a recipe with batch norm.

        Raises:
          UsageError: the images are too small for a layer.
        """
        dtype = images.dtype
        xs: Maps = (images,) * self._count_here()
        for layer in self.layers:
            if layer.exchange:
                xs = exchange(xs, self.towers)
            xs, done = self._product(layer, xs)
            self.sow("signals", f"{layer.name}_out", xs)  # kept under `init` and apply(..., mutable=["signals"]) alone
            for number, operation in enumerate(layer.then[done:]):
                xs = self._operation(operation, xs, layer, train=train)
                self.sow("signals", f"{layer.name}_then{number}", xs)
        return jnp.concatenate([x.astype(dtype) for x in xs], axis=-1)

    @property
    def norm_spans_towers(self) -> bool:
        """Whether the window of a response norm reaches into the other tower."""
        return self.whole_norm and self.towers > 1

    @property
    def convolutions_round_down(self) -> bool:
        """Whether convolutions round the sizes of maps down."""
        return self.round_down or self.whole_windows

    def leaf_names(self) -> dict[str, list[str]]:
        """Names of the parameters' leaves, by layer or norm."""
        names: dict[str, list[str]] = {}
        for layer in self.layers:
            names[layer.name] = ["kernel", "bias"]
            if "batch_norm" in layer.then:
                names[f"{layer.name}_norm"] = ["scale", "bias"]
        return names

    def _count_here(self) -> int:
        """How many towers this device holds."""
        return 1 if TOWER in self.axes else self.towers

    def _product(self, layer: Layer, xs: Maps) -> tuple[Maps, int]:
        """Kernel and bias of a layer: a convolution, an unshared convolution, or a matrix product.

        Returns the maps, and how many of the operations that follow are done, because one kernel computes them all.
        """
        if not layer.window:
            return self._connection(layer, xs), 0
        windows: dict[str, Any] = dict(
            window=layer.window,
            stride=layer.stride,
            padding=layer.padding,
            round_down=self.convolutions_round_down,
        )
        padding = [operations.overhang(n, **windows, layer=layer.name) for n in xs[0].shape[1:3]]
        channels = xs[0].shape[-1]
        places = [operations.output_size(n, **windows) for n in xs[0].shape[1:3]]
        if layer.local:
            return self._local_convolution(layer, xs, padding, places), 0
        kernels, biases = self._weights(layer, (layer.window, layer.window, channels, layer.features))
        geometry: dict[str, Any] = dict(stride=layer.stride, padding=padding)
        if block := self._block(layer, xs, places):
            return self._convolution_and_block(xs, kernels, biases, block, **geometry), block.operations
        products = (
            convolution(self._cast(x), self._cast(kernel), **geometry) for x, kernel in zip(xs, kernels, strict=True)
        )
        return tuple(blocks.add_bias(x, bias) for x, bias in zip(products, biases, strict=True)), 0

    def _convolution_and_block(
        self, xs: Maps, kernels: Maps, biases: Maps, block: blocks.Block, **geometry: Any
    ) -> Maps:
        """Convolutions, and the operations after them by one kernel.

        Towers that see the same maps share one convolution where a CUDA kernel follows, which takes less time than two.
        """
        kernels = tuple(self._cast(kernel) for kernel in kernels)
        if block.groups > 1:
            kernel, bias = (jnp.concatenate(parts, axis=-1) for parts in (kernels, biases))
            return blocks.run(convolution(self._cast(xs[0]), kernel, **geometry), bias, block)
        products = (convolution(self._cast(x), kernel, **geometry) for x, kernel in zip(xs, kernels, strict=True))
        return tuple(blocks.run(y, bias, block)[0] for y, bias in zip(products, biases, strict=True))

    def _block(self, layer: Layer, xs: Maps, places: list[int]) -> blocks.Block | None:
        """The block after a convolution: what one kernel computes together. None where there is no such kernel.

        There is none for a norm whose window reaches into the other tower, nor for signals that are looked at one by
        one.
        """
        if self.activation != "relu" or self.norm_spans_towers or self.is_mutable_collection("signals"):
            return None
        norm: dict[str, Any] = dict(size=self.norm_size, k=self.norm_k, alpha=self.norm_alpha, beta=self.norm_beta)
        pool = (self.pool_size, self.pool_stride)
        block = blocks.block_of(layer.then, **norm, pool=pool, round_down=self.round_down)
        if block is None:
            return None
        for n in places if block.pool else ():
            self._check_pooling(n, layer)
        shape, dtype = (xs[0].shape[0], *places), self.dtype or xs[0].dtype
        shared = len(xs) if all(x is xs[0] for x in xs) else 1
        for groups in sorted({shared, 1}, reverse=True):
            maps = jax.ShapeDtypeStruct((*shape, groups * layer.features), dtype)
            if blocks.fits(maps, block._replace(groups=groups)):
                return block._replace(groups=groups)
        return None

    def _local_convolution(self, layer: Layer, xs: Maps, padding: list[tuple[int, int]], places: list[int]) -> Maps:
        """A convolution with a kernel and a bias for each place."""
        rows, columns = places
        shape = (rows, columns, xs[0].shape[-1] * layer.window**2, layer.features)
        kernels, biases = self._weights(layer, shape, (rows, columns, layer.features))
        geometry: dict[str, Any] = dict(window=layer.window, stride=layer.stride, padding=padding)
        products = (
            local_convolution(self._cast(x), self._cast(kernel), **geometry)
            for x, kernel in zip(xs, kernels, strict=True)
        )
        return tuple(blocks.add_bias(x, bias) for x, bias in zip(products, biases, strict=True))

    def _connection(self, layer: Layer, xs: Maps) -> Maps:
        xs = tuple(x.reshape(x.shape[0], -1) for x in xs)
        units = layer.features or math.ceil(self.num_classes / self.towers)
        kernels, biases = self._stacked_weights(layer, (xs[0].shape[1], units))
        if layer.features:
            xs, kernels = tuple(self._cast(x) for x in xs), self._cast(kernels)
        else:  # logits, which bfloat16 would round until some are equal
            xs = tuple(x.astype(kernels.dtype) for x in xs)
        # On a CPU, products apart would copy each kernel out of the array of both towers.
        products = ops.faster_on_cpu(_products_at_once, _products_apart, xs, kernels)
        return tuple(blocks.add_bias(x, bias) for x, bias in zip(products, split_towers(biases), strict=True))

    def _weights(
        self, layer: Layer, shape: tuple[int, ...], bias_shape: tuple[int, ...] | None = None
    ) -> tuple[Maps, Maps]:
        """Kernels and biases of the towers here, apart."""
        kernels, biases = self._stacked_weights(layer, shape, bias_shape)
        return split_towers(kernels), split_towers(biases)

    def _stacked_weights(
        self, layer: Layer, shape: tuple[int, ...], bias_shape: tuple[int, ...] | None = None
    ) -> tuple[Array, Array]:
        """Kernels and biases of the towers here: `[tower, ...]`."""
        here = self._count_here()
        return Weights(
            (here, *shape),
            (here, *(bias_shape or shape[-1:])),
            nn.initializers.normal(self.kernel_deviation(layer, shape)),
            nn.initializers.constant(0.0 if self.he_init else layer.bias),
            name=layer.name,
        )()

    def kernel_deviation(self, layer: Layer, shape: tuple[int, ...]) -> float:
        """Standard deviation of a layer's initial kernel, whose shape is that of one tower."""
        inputs = math.prod(shape[2:-1] if layer.local else shape[:-1])  # a local kernel's shape begins with places
        return math.sqrt(2 / inputs) if self.he_init else layer.std

    def _cast(self, x: Array) -> Array:
        return x.astype(self.dtype) if self.dtype else x

    def _operation(self, operation: str, xs: Maps, layer: Layer, *, train: bool) -> Maps:
        match operation:
            case "activation":
                return tuple(ACTIVATIONS[self.activation](x) for x in xs)
            case "norm" | "spatial_norm" | "batch_norm":
                return self._norm(operation, xs, layer, train=train)
            case "pool":
                for n in xs[0].shape[1:3]:
                    self._check_pooling(n, layer)
                pooling: dict[str, Any] = dict(stride=self.pool_stride, round_down=self.round_down)
                return tuple(operations.max_pool(x, size=self.pool_size, **pooling) for x in xs)
            case "adaptive_pool":
                return tuple(operations.adaptive_average_pool(x, self.adaptive_size) for x in xs)
            case "dropout":
                return self._dropout(xs, train=train)
        raise ValueError(f"{layer.name} is followed by an unknown operation {operation!r}")

    def _check_pooling(self, n: int, layer: Layer) -> None:
        pooling: dict[str, Any] = dict(window=self.pool_size, stride=self.pool_stride, round_down=self.round_down)
        operations.output_size(n, **pooling, layer=f"the pooling after {layer.name}")

    def _dropout(self, xs: Maps, *, train: bool) -> Maps:
        masks: list[Array | None] = [None] * len(xs)
        if train:
            key, (rows, *shape) = self.make_rng("dropout"), xs[0].shape
            row_numbers = jnp.arange(rows) + (lax.axis_index(DATA) * rows if DATA in self.axes else 0)
            first = lax.axis_index(TOWER) if TOWER in self.axes else 0
            keys = [jax.random.fold_in(key, first + i) for i in range(len(xs))]
            masks = [
                operations.dropout_mask(key, row_numbers, math.prod(shape), self.keep).reshape(rows, *shape)
                for key in keys
            ]
        return tuple(
            operations.dropout(x, self.keep, mask, inverted=self.inverted_dropout)
            for x, mask in zip(xs, masks, strict=True)
        )

    def _norm(self, operation: str, xs: Maps, layer: Layer, *, train: bool) -> Maps:
        match operation:
            case "batch_norm":
                return self._batch_norm(xs, f"{layer.name}_norm", train=train)
            case "spatial_norm":
                constants: dict[str, Any] = dict(
                    size=self.spatial_size, k=1.0, alpha=self.spatial_alpha, beta=self.norm_beta
                )
                return tuple(operations.spatial_norm(x, **constants) for x in xs)
        width = xs[0].shape[-1]
        margin = self.norm_size // 2 if self.norm_spans_towers else 0
        if margin:
            xs = self._with_neighbours(xs, margin, layer.name)
        constants = dict(size=self.norm_size, k=self.norm_k, alpha=self.norm_alpha, beta=self.norm_beta)
        normed = (operations.response_norm(x, **constants) for x in xs)
        return tuple(lax.slice_in_dim(x, margin, margin + width, axis=x.ndim - 1) for x in normed)

    def _batch_norm(self, xs: Maps, name: str, *, train: bool) -> Maps:
        dtype = xs[0].dtype
        xs = tuple(operations.widened(x) for x in xs)
        scale, bias, mean, variance = BatchNormLeaves(len(xs), xs[0].shape[-1], name=name)()
        if train:
            axis_name = DATA if DATA in self.axes else None
            moments = [operations.batch_moments(x, axis_name) for x in xs]
            means, variances = (jnp.stack(each) for each in zip(*moments, strict=True))
            if not self.is_initializing():
                for average, now in ((mean, means), (variance, variances)):
                    average.value = self.momentum * average.value + (1 - self.momentum) * lax.stop_gradient(now)
        else:
            means, variances = mean.value, variance.value
        leaves = zip(xs, scale, bias, means, variances, strict=True)
        normed = (operations.batch_norm(x, scale=s, bias=b, mean=m, variance=v) for x, s, b, m, v in leaves)
        return tuple(x.astype(dtype) for x in normed)

    def _with_neighbours(self, xs: Maps, margin: int, layer: str) -> Maps:
        """Each tower's channels between the nearest `margin` of the other tower, on its side, and zeros.

        The margins alone are exchanged.
        """
        if xs[0].shape[-1] < margin:
            raise UsageError(
                f"{layer} has {xs[0].shape[-1]} maps, too few for a norm across towers; use a larger width"
            )
        edges = exchange([jnp.concatenate([x[..., :margin], x[..., -margin:]], axis=-1) for x in xs], self.towers)
        first = lax.axis_index(TOWER) if TOWER in self.axes else 0
        wider = []
        for i, (x, edge) in enumerate(zip(xs, edges, strict=True)):
            end_of_first, start_of_second = edge[..., margin : 2 * margin], edge[..., 2 * margin : 3 * margin]
            is_first, zeros = first + i == 0, jnp.zeros_like(end_of_first)
            before = jnp.where(is_first, zeros, end_of_first)
            after = jnp.where(is_first, start_of_second, zeros)
            wider.append(jnp.concatenate([before, x, after], axis=-1))
        return tuple(wider)


def make_tower(recipe: str, *, num_classes: int, width: float = 1.0, he_init: bool = False, dtype: Any = None) -> Tower:
    """The towers of a recipe.

    Args:
      recipe: name of the recipe.
      num_classes: of the whole network.
      width: of every layer but the last, relative to the recipe.
      he_init: He initialisation, in place of the recipe's.
      dtype: as in `Tower`.

    Raises:
      UsageError: the recipe is unknown or too narrow, or there are fewer than two classes.
    """
    layers = layers_of(recipe, width=width)
    if num_classes < 2 and not layers[-1].features:
        raise UsageError(f"the number of classes is {num_classes}, and a classifier needs at least 2")
    fields = dict(RECIPES[recipe].fields) | (dict(he_init=True) if he_init else {})
    return Tower(layers=layers, num_classes=num_classes, dtype=dtype, **fields)
