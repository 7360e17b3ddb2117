"""Compares operations and a network on this device with float64 on its host's CPU.

python -m alexnet_jax.benchmarks.numbers

Prints a line of JSON for each comparison: its name, and the relative root mean square of each difference. Maps that
bfloat16 rounds to the same number share a gradient after pooling, so such gradients differ by a tenth and more.
"""

import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.network import blocks, layers, sharding
from alexnet_jax.network.convolution import convolution
from alexnet_jax.network.forward import init_variables, make_forward
from alexnet_jax.network.native import build as native
from alexnet_jax.network.tower import Tower, make_tower

NORM: dict[str, Any] = dict(size=Tower.norm_size, k=Tower.norm_k, alpha=Tower.norm_alpha, beta=Tower.norm_beta)
SPATIAL: dict[str, Any] = dict(size=Tower.spatial_size, k=1.0, alpha=Tower.spatial_alpha, beta=Tower.norm_beta)
CONV1: dict[str, Any] = dict(stride=4, padding=((0, 3), (0, 3)))
SMALL = 67  # pixels of the network's images
TYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
POOL = (Tower.pool_size, Tower.pool_stride)


def _block(then: tuple[str, ...], groups: int) -> Callable[[Any, Any], Any]:
    """Bias, and the operations after a convolution that are one kernel, with all groups of channels side by side."""
    block = blocks.block_of(then, **NORM, pool=POOL, round_down=False)
    assert block is not None, then
    block = block._replace(groups=groups)

    def run(x: Any, bias: Any) -> Any:  # a bias has float32 beside maps of bfloat16
        return jnp.concatenate(blocks.run(x, bias.astype(jnp.promote_types(x.dtype, jnp.float32)), block), axis=-1)

    return run


# Of net 145, with two images: the operation, and the shapes of its maps and of its bias.
OPERATIONS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "layer 1 after conv1": (_block(("norm", "pool", "activation"), groups=2), ((2, 55, 55, 96), (96,))),
    "layer 2 after conv2": (_block(("activation", "norm"), groups=1), ((2, 27, 27, 128), (128,))),
    "eight channels": (_block(("activation", "norm", "pool"), groups=1), ((2, 13, 11, 8), (8,))),
    "norm of layer 2": (functools.partial(layers.response_norm, **NORM), ((2, 27, 27, 128),)),
    "spatial norm": (functools.partial(layers.spatial_norm, **SPATIAL), ((2, 27, 27, 128),)),
    "pooling": (functools.partial(layers.max_pool, size=3, stride=2), ((2, 27, 27, 128),)),
}


def relative(actual: Any, expected: Any) -> float:
    """Root mean square of the difference, relative to that of the expected array."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.sqrt(np.mean((actual - expected) ** 2) / np.mean(expected**2)))


def value_and_gradients(operation: Callable[..., Any], dy: Any, *arguments: Any) -> tuple[Any, ...]:
    """The result, and the gradients of the arguments."""
    y, pull = jax.vjp(operation, *arguments)
    return y, *pull(dy.astype(y.dtype))


def compare(operation: Callable[..., Any], arguments: list[Any], dy: Any, dtype: Any) -> list[float]:
    """Errors of the result and of the gradients, on arguments that the type can hold."""
    narrow = [jnp.asarray(each, dtype) for each in arguments]
    actual = jax.jit(functools.partial(value_and_gradients, operation))(jnp.asarray(dy, dtype), *narrow)
    with jax.default_device(jax.devices("cpu")[0]), jax.enable_x64(True), native.plain_form():
        exact = [jnp.asarray(np.asarray(each, np.float64)) for each in (jnp.asarray(dy, dtype), *narrow)]
        expected = jax.jit(functools.partial(value_and_gradients, operation))(*exact)
    return [relative(a, b) for a, b in zip(actual, expected, strict=True)]


def operations() -> None:
    """Compares the operations of which there are native kernels, and conv1, which runs over blocks of pixels."""
    rng = np.random.default_rng(0)
    for type_name, dtype in TYPES.items():
        for name, (operation, shapes) in OPERATIONS.items():
            arguments = [150 * rng.standard_normal(shape) for shape in shapes]
            dy = rng.standard_normal(jax.eval_shape(operation, *map(jnp.zeros, shapes)).shape)
            _print(f"{name}, {type_name}", compare(operation, arguments, dy, dtype))
        x, kernel = 60 * rng.standard_normal((2, 224, 224, 3)), 0.01 * rng.standard_normal((11, 11, 3, 96))
        conv1 = functools.partial(convolution, **CONV1)
        _print(f"conv1, {type_name}", compare(conv1, [x, kernel], rng.standard_normal((2, 55, 55, 96)), dtype))


def network() -> None:
    """Compares the loss of a small net 145 and its gradient."""
    rng = np.random.default_rng(0)
    images, labels = 60 * rng.standard_normal((8, SMALL, SMALL, 3)), rng.integers(0, 10, 8)

    def loss_and_gradients(dtype: Any, images: Any, devices: Any) -> Any:
        tower = make_tower("original", num_classes=10, width=0.25, he_init=True, dtype=dtype)
        forward = make_forward(tower, sharding.make_mesh(data=1, tower=1, devices=devices))

        def loss(params: Any) -> Any:
            log_probs = jax.nn.log_softmax(forward(params, {}, images / 150, None)[0])
            return -jnp.take_along_axis(log_probs, labels[:, None], axis=1).mean()

        return jax.jit(jax.value_and_grad(loss))

    tower = make_tower("original", num_classes=10, width=0.25, he_init=True)
    params = jax.tree.map(np.asarray, init_variables(tower, jax.random.key(0), SMALL)[0])
    cpu = jax.devices("cpu")[:1]
    with jax.default_device(cpu[0]), jax.enable_x64(True), native.plain_form():
        exact = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        expected = jax.tree.map(np.asarray, loss_and_gradients(None, jnp.asarray(images), cpu)(exact))
    for type_name, dtype in TYPES.items():
        run = loss_and_gradients(None if dtype == jnp.float32 else dtype, jnp.asarray(images, jnp.float32), None)
        actual = run(jax.tree.map(jnp.asarray, params))
        gradients = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (actual[1], expected[1])
        )
        _print(f"net 145, small, {type_name}", [relative(actual[0], expected[0]), relative(*gradients)])


def _print(name: str, errors: list[float]) -> None:
    print(json.dumps([name, errors]), flush=True)


def main() -> None:
    """Prints the line that says which kernels run, and then all comparisons."""
    print(json.dumps([native.load().line, []]), flush=True)
    operations()
    network()


if __name__ == "__main__":
    main()
