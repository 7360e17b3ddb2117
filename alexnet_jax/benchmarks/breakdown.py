"""The time of each part of an update, alone and by direction, with the towers on the devices as in training."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alexnet_jax.learning.step import TrainState
from alexnet_jax.network import forward as forwards
from alexnet_jax.network import sharding
from alexnet_jax.network.recipes import Layer
from alexnet_jax.network.tower import TOWER, Tower, exchange

REPEATS = 3
SAMPLE = PartitionSpec(TOWER)


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the update.

    Attributes:
      name: name of the layer, of the operations that follow it, or of another part.
      forward, backward: seconds, for both towers at once.
      flops: FLOP of the forward pass of both towers, and of each gradient.
      gradients: number of gradients: that of the kernel, and that of the input unless the input is the image.
    """

    name: str
    forward: float
    backward: float
    flops: float = 0.0
    gradients: int = 0


def measure(tower: Tower, mesh: Mesh, batch_size: int, image_size: int) -> list[Part]:
    """Times of each layer's products, of the operations that follow them, and of the exchanges between towers."""
    parts = []
    shape: tuple[int, ...] = (batch_size, image_size, image_size, 3)
    for layer in tower.layers:
        if layer.exchange:
            parts.append(_exchange(mesh, shape, layer.name))
            shape = (*shape[:-1], shape[-1] * tower.towers)
        of_layer, shape = _layer(tower, mesh, layer, shape, first=layer is tower.layers[0])
        parts += of_layer
    return parts


def _layer(
    tower: Tower, mesh: Mesh, layer: Layer, shape: tuple[int, ...], *, first: bool
) -> tuple[list[Part], tuple[int, ...]]:
    layer = dataclasses.replace(layer, exchange=False)
    bare = tower.clone(layers=(dataclasses.replace(layer, then=()),))
    whole = tower.clone(layers=(layer,))
    key = jax.random.key(0)
    x = _draw(mesh, shape)
    params = jax.tree.map(
        lambda leaf: _draw(mesh, leaf.shape) * 0.01,
        jax.eval_shape(lambda x: bare.init(key, x, train=False)["params"], jax.ShapeDtypeStruct(shape, jnp.float32)),
    )

    def run(network: Tower) -> Callable[..., Any]:
        rngs = {"dropout": key} if "dropout" in layer.then else None
        return lambda params, x: network.apply({"params": params}, x, train=True, rngs=rngs)

    def gradients(network: Tower, *, with_output: bool) -> Callable[..., Any]:
        def run_and_pull(params: Any, x: Any, dy: Any) -> Any:
            if first:
                y, pull = jax.vjp(lambda params: run(network)(params, x), params)
            else:
                y, pull = jax.vjp(run(network), params, x)
            return (y, pull(dy)) if with_output else pull(dy)

        return run_and_pull

    y = jax.eval_shape(run(bare), jax.tree.map(lambda leaf: leaf[0], params), x[0])
    forward = _seconds(mesh, run(bare), params, x)
    backward = _seconds(mesh, gradients(bare, with_output=False), params, x, _draw(mesh, y.shape))
    kernel = params[layer.name]["kernel"]
    flops = 2 * tower.towers * kernel[0].size * math.prod(y.shape[:-1])
    parts = [Part(layer.name, forward, backward, flops, 1 if first else 2)]
    if layer.then:
        y = jax.eval_shape(run(whole), jax.tree.map(lambda leaf: leaf[0], params), x[0])
        to_end = _seconds(mesh, run(whole), params, x)
        and_back = _seconds(mesh, gradients(whole, with_output=True), params, x, _draw(mesh, y.shape))
        name = f"{layer.name} {', '.join(layer.then)}"
        parts.append(Part(name, to_end - forward, and_back - to_end - backward))
    return parts, y.shape


def measure_optimizer(optimizer: optax.GradientTransformation, state: TrainState, mesh: Mesh) -> Part:
    """The time of the update of all parameters, given their gradients. Its backward time is 0."""
    shardings = sharding.state_shardings((state.params, state.opt_state), mesh)

    def update(params: Any, opt_state: Any, gradients: Any) -> Any:
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    compiled = jax.jit(
        update, donate_argnums=(0, 1), out_shardings=shardings, compiler_options=forwards.compile_options(mesh)
    )
    params, opt_state, gradients = jax.tree.map(jnp.copy, (state.params, state.opt_state, state.params))
    seconds = []
    for _ in range(1 + REPEATS):
        begun = time.perf_counter()
        params, opt_state = jax.block_until_ready(compiled(params, opt_state, gradients))
        seconds.append(time.perf_counter() - begun)
    return Part("update of the parameters", min(seconds[1:]), 0.0)


def _exchange(mesh: Mesh, shape: tuple[int, ...], name: str) -> Part:
    exchanged = (*shape[:-1], shape[-1] * mesh.shape[TOWER])
    forward = _seconds(mesh, exchange, _draw(mesh, shape))
    backward = _seconds(
        mesh,
        lambda dy: jax.linear_transpose(exchange, jax.ShapeDtypeStruct(shape, jnp.float32))(dy),
        _draw(mesh, exchanged),
    )
    return Part(f"exchange before {name}", forward, backward)


def _draw(mesh: Mesh, shape: tuple[int, ...]) -> Any:
    """Normal numbers: an array of the given shape for each tower."""
    draw = jax.jit(
        lambda: jax.random.normal(jax.random.key(0), (mesh.shape[TOWER], *shape)),
        out_shardings=NamedSharding(mesh, SAMPLE),
    )
    return draw()


def _seconds(mesh: Mesh, run: Callable[..., Any], *arguments: Any) -> float:
    """The least time of a few runs."""

    def one_tower(*arguments: Any) -> Any:
        result = run(*jax.tree.map(lambda leaf: leaf[0], arguments))
        return jax.tree.map(lambda leaf: leaf[None], result)

    compiled = jax.jit(
        jax.shard_map(one_tower, mesh=mesh, in_specs=SAMPLE, out_specs=SAMPLE, check_vma=False),
        compiler_options=forwards.compile_options(mesh),
    )
    jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - begun)
    return min(seconds)
