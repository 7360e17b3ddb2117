"""The layers of a tower as nodes of an ONNX graph: the same walk as in `Tower`, and the same names."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from alexnet_jax.errors import UsageError
from alexnet_jax.network import layers as operations
from alexnet_jax.network.recipes import Layer
from alexnet_jax.network.tower import Tower

Names: TypeAlias = tuple[str, ...]  # of tensors


class Graph:
    """Nodes and constants of a graph, in order of computation.

    Attributes:
      nodes, constants: as `onnx.helper.make_graph` takes them.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Adds a node of one output, and returns the output's name."""
        from onnx import helper

        output = output or f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def split(self, x: str, count: int) -> Names:
        """Equal parts of the channels."""
        from onnx import helper

        outputs = tuple(f"split{len(self.nodes)}_{i}" for i in range(count))
        self.nodes.append(helper.make_node("Split", [x], outputs, name=f"split{len(self.nodes)}", axis=1))
        return outputs

    def constant(self, array: np.ndarray, name: str = "") -> str:
        """Adds an array, of float32 where it holds fractions, and returns its name."""
        from onnx import numpy_helper

        name = name or f"constant{len(self.constants)}"
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


@dataclasses.dataclass(frozen=True)
class Walk:
    """The walk through a tower's layers; a tuple holds a tensor for each tower.

    Shapes are those of one tower and one image in the order of `Tower`, `(h, w, channels)` or `(units,)`. The tensors
    are channels first.
    """

    graph: Graph
    tower: Tower
    params: Mapping[str, Mapping[str, Float[np.ndarray, "tower ..."]]]
    batch_stats: Mapping[str, Mapping[str, Float[np.ndarray, "tower ..."]]]

    def logits(self, images: str, shape: tuple[int, ...]) -> str:
        """The network's logits of the images, without the one that an odd number of classes leaves over."""
        xs: Names = (images,) * self.tower.towers
        for layer in self.tower.layers:
            if layer.exchange and self.tower.towers > 1:
                xs = (self.graph.add("Concat", *xs, axis=1),) * self.tower.towers
                shape = (*shape[:-1], shape[-1] * self.tower.towers)
            xs, shape = self._product(layer, xs, shape)
            for operation in layer.then:
                xs, shape = self._operation(operation, layer, xs, shape)
        joined = self.graph.add("Concat", *xs, axis=1) if len(xs) > 1 else xs[0]
        if shape[-1] * self.tower.towers == self.tower.num_classes:
            return joined
        ends = (self.graph.constant(np.array([number], np.int64)) for number in (0, self.tower.num_classes, 1))
        return self.graph.add("Slice", joined, *ends)

    def _product(self, layer: Layer, xs: Names, shape: tuple[int, ...]) -> tuple[Names, tuple[int, ...]]:
        kernels, biases = self.params[layer.name]["kernel"], self.params[layer.name]["bias"]
        features = biases.shape[-1]
        if not layer.window:
            return self._connection(layer.name, kernels, biases, xs, shape), (features,)
        out, ends = self._window(
            shape,
            window=layer.window,
            stride=layer.stride,
            padding=layer.padding,
            round_down=self.tower.convolutions_round_down,
            layer=layer.name,
        )
        geometry: dict[str, Any] = dict(strides=[layer.stride] * 2, pads=ends)
        if layer.local:
            ys = (
                self._local_convolution(f"{layer.name}/{i}", xs[i], kernel, biases[i], shape[-1], geometry)
                for i, kernel in enumerate(kernels)
            )
        else:
            ys = (
                self.graph.add(
                    "Conv",
                    xs[i],
                    self.graph.constant(kernel.transpose(3, 2, 0, 1), f"{layer.name}/{i}/kernel"),
                    self.graph.constant(biases[i], f"{layer.name}/{i}/bias"),
                    **geometry,
                )
                for i, kernel in enumerate(kernels)
            )
        return tuple(ys), (*out, features)

    def _window(
        self, shape: tuple[int, ...], *, window: int, stride: int, padding: int = 0, round_down: bool, layer: str
    ) -> tuple[tuple[int, ...], list[int]]:
        """Rows and columns after windows, and the padding as ONNX has it: top, left, bottom, right."""
        options: dict[str, Any] = dict(window=window, stride=stride, padding=padding, round_down=round_down)
        out = tuple(operations.output_size(n, **options, layer=layer) for n in shape[:2])
        (top, bottom), (left, right) = (operations.overhang(n, **options, layer=layer) for n in shape[:2])
        return out, [top, left, bottom, right]

    def _connection(
        self, name: str, kernels: np.ndarray, biases: np.ndarray, xs: Names, shape: tuple[int, ...]
    ) -> Names:
        """A matrix product. Maps are flattened channels first here, and channels last in the kernel's rows."""
        ys = []
        for i, kernel in enumerate(kernels):
            if len(shape) > 1:
                kernel = np.moveaxis(kernel.reshape(*shape, -1), 2, 0).reshape(kernel.shape)
            x = self.graph.add("Flatten", xs[i], axis=1) if len(shape) > 1 else xs[i]
            bias = self.graph.constant(biases[i], f"{name}/{i}/bias")
            ys.append(self.graph.add("Gemm", x, self.graph.constant(kernel, f"{name}/{i}/kernel"), bias))
        return tuple(ys)

    def _local_convolution(
        self, name: str, x: str, kernel: np.ndarray, bias: np.ndarray, channels: int, geometry: dict[str, Any]
    ) -> str:
        """A convolution with a kernel for each place: ONNX has none, so windows become channels, and places matrices.

        Args:
          name: of the constants.
          x: maps.
          kernel: `[rows, columns, channels x window x window, features]`.
          bias: `[rows, columns, features]`.
          channels: of `x`.
          geometry: strides and padding.
        """
        places = kernel.shape[2] // channels
        side = round(places**0.5)
        picks = np.tile(np.eye(places, dtype=np.float32), (channels, 1)).reshape(-1, 1, side, side)
        windows = self.graph.add("Conv", x, self.graph.constant(picks), group=channels, **geometry)
        by_place = self.graph.add("Transpose", windows, perm=[2, 3, 0, 1])
        product = self.graph.add("MatMul", by_place, self.graph.constant(kernel, f"{name}/kernel"))
        y = self.graph.add("Add", product, self.graph.constant(bias[:, :, None], f"{name}/bias"))
        return self.graph.add("Transpose", y, perm=[2, 3, 0, 1])

    def _operation(
        self, operation: str, layer: Layer, xs: Names, shape: tuple[int, ...]
    ) -> tuple[Names, tuple[int, ...]]:
        tower = self.tower
        match operation:
            case "activation":
                return self._each({"relu": "Relu", "tanh": "Tanh"}[tower.activation], xs), shape
            case "norm":
                return self._response_norm(xs), shape
            case "spatial_norm":
                return tuple(map(self._spatial_norm, xs)), shape
            case "batch_norm":
                return self._batch_norm(f"{layer.name}_norm", xs), shape
            case "pool":
                windows: dict[str, Any] = dict(window=tower.pool_size, stride=tower.pool_stride)
                out, ends = self._window(shape, **windows, round_down=tower.round_down, layer=layer.name)
                sides: dict[str, Any] = dict(kernel_shape=[tower.pool_size] * 2, strides=[tower.pool_stride] * 2)
                return self._each("MaxPool", xs, pads=ends, **sides), (*out, shape[-1])
            case "adaptive_pool":
                size = tower.adaptive_size
                return tuple(self._adaptive_pool(x, shape, size) for x in xs), (size, size, shape[-1])
            case "dropout" if tower.inverted_dropout:
                return xs, shape
            case "dropout":
                keep = self.graph.constant(np.array(tower.keep, np.float32))
                return tuple(self.graph.add("Mul", x, keep) for x in xs), shape
        raise UsageError(
            f"{layer.name} is followed by {operation}, which has no ONNX form here; export StableHLO",
            option="kind=stablehlo",
        )

    def _each(self, operator: str, xs: Names, **attributes: Any) -> Names:
        return tuple(self.graph.add(operator, x, **attributes) for x in xs)

    def _response_norm(self, xs: Names) -> Names:
        """ONNX divides alpha by the window, as Caffe does."""
        tower = self.tower
        constants: dict[str, Any] = dict(size=tower.norm_size, bias=tower.norm_k, beta=tower.norm_beta)
        constants["alpha"] = tower.norm_alpha * tower.norm_size
        if not tower.norm_spans_towers:
            return self._each("LRN", xs, **constants)
        whole = self.graph.add("LRN", self.graph.add("Concat", *xs, axis=1), **constants)
        return self.graph.split(whole, tower.towers)

    def _spatial_norm(self, x: str) -> str:
        size, add = self.tower.spatial_size, self.graph.add
        number = functools.cache(lambda value: self.graph.constant(np.array(value, np.float32)))
        sides: dict[str, Any] = dict(kernel_shape=[size] * 2, pads=[size // 2] * 4, count_include_pad=1)
        mean = add("AveragePool", add("Mul", x, x), **sides)
        scaled = add("Mul", mean, number(self.tower.spatial_alpha * size**2))
        return add("Mul", x, add("Pow", add("Add", scaled, number(1.0)), number(-self.tower.norm_beta)))

    def _adaptive_pool(self, x: str, shape: tuple[int, ...], size: int) -> str:
        """Means over windows along the rows, then along the columns, as matrix products."""
        rows, columns, _ = shape
        if rows != size:
            x = self.graph.add("MatMul", self.graph.constant(operations.window_shares(rows, size)), x)
        if columns != size:
            x = self.graph.add("MatMul", x, self.graph.constant(operations.window_shares(columns, size).T))
        return x

    def _batch_norm(self, name: str, xs: Names) -> Names:
        """ONNX takes scale, bias, mean and variance in this order."""
        leaves = dict(self.params[name]) | dict(self.batch_stats[name])
        return tuple(
            self.graph.add(
                "BatchNormalization",
                x,
                *(
                    self.graph.constant(leaves[leaf][i], f"{name}/{i}/{leaf}")
                    for leaf in ("scale", "bias", "mean", "variance")
                ),
                epsilon=operations.EPSILON,
            )
            for i, x in enumerate(xs)
        )
