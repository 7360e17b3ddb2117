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
    """The products of every layer, the operations after it, and the exchanges of the towers."""
    tower = tower.clone(axes=(TOWER,) if mesh.shape[TOWER] > 1 else ())
    parts = []
    shape: tuple[int, ...] = (batch_size, image_size, image_size, 3)
    for layer in tower.layers:
        if layer.exchange:
            parts.append(_exchange(tower, mesh, shape, layer.name))
            shape = (*shape[:-1], shape[-1] * tower.towers)
        layer_parts, shape = _layer(tower, mesh, layer, shape, first=layer is tower.layers[0])
        parts += layer_parts
    return parts


def _layer(
    tower: Tower, mesh: Mesh, layer: Layer, shape: tuple[int, ...], *, first: bool
) -> tuple[list[Part], tuple[int, ...]]:
    units = layer.features or math.ceil(tower.num_classes / tower.towers)
    layer = dataclasses.replace(layer, features=units, exchange=False)
    here = tower.towers // mesh.shape[TOWER]
    product = tower.clone(layers=(dataclasses.replace(layer, then=()),))
    whole = tower.clone(layers=(layer,))
    key, x = jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32)
    alone = product.clone(axes=(), towers=here), whole.clone(axes=(), towers=here)  # shapes need no mesh
    params = jax.eval_shape(lambda x: alone[0].init(key, x, train=False)["params"], x)
    y = jax.eval_shape(_run(alone[0], layer, key), params, x)

    forward = _seconds(mesh, _run(product, layer, key), params, x)
    backward = _seconds(mesh, _gradients(_run(product, layer, key), first=first), params, x, y)
    kernel = params[layer.name]["kernel"].shape[1:]
    flops = 2.0 * tower.towers * math.prod(kernel) * math.prod(y.shape[:-1])
    parts = [Part(layer.name, forward, backward, flops, 1 if first else 2)]
    if layer.then:
        y = jax.eval_shape(_run(alone[1], layer, key), params, x)
        to_end = _seconds(mesh, _run(whole, layer, key), params, x)
        and_back = _seconds(mesh, _gradients(_run(whole, layer, key), first=first, with_output=True), params, x, y)
        name = f"{layer.name} {', '.join(layer.then)}"
        parts.append(Part(name, to_end - forward, and_back - to_end - backward))
    return parts, (*y.shape[:-1], y.shape[-1] // here)


def _run(network: Tower, layer: Layer, key: Any) -> Callable[..., Any]:
    rngs = {"dropout": key} if "dropout" in layer.then else None
    return lambda params, x: network.apply({"params": params}, x, train=True, rngs=rngs)


def _gradients(run: Callable[..., Any], *, first: bool, with_output: bool = False) -> Callable[..., Any]:
    """Gradients of kernel and bias and, after the first layer, of the input."""

    def both(params: Any, x: Any, dy: Any) -> Any:
        y, pull = jax.vjp(lambda params: run(params, x), params) if first else jax.vjp(run, params, x)
        return (y, pull(dy)) if with_output else pull(dy)

    return both


def measure_optimizer(optimizer: optax.GradientTransformationExtraArgs, state: TrainState, mesh: Mesh) -> Part:
    """The update of all parameters, given their gradients. An update has no backward pass."""
    shardings = sharding.state_shardings((state.params, state.opt_state), mesh)
    step = state.step

    def update(params: Any, opt_state: Any, gradients: Any, step: Any) -> Any:
        updates, opt_state = optimizer.update(gradients, opt_state, params, step=step)
        return optax.apply_updates(params, updates), opt_state

    compiled = jax.jit(
        update, donate_argnums=(0, 1), out_shardings=shardings, compiler_options=forwards.compile_options(mesh)
    )
    params, opt_state, gradients = jax.tree.map(jnp.copy, (state.params, state.opt_state, state.params))
    seconds = []
    for _ in range(1 + REPEATS):
        begun = time.perf_counter()
        params, opt_state = jax.block_until_ready(compiled(params, opt_state, gradients, step))
        seconds.append(time.perf_counter() - begun)
    return Part("update of the parameters", min(seconds[1:]), 0.0)


def _exchange(tower: Tower, mesh: Mesh, shape: tuple[int, ...], name: str) -> Part:
    here = tower.towers // mesh.shape[TOWER]
    x = jax.ShapeDtypeStruct((here, *shape), jnp.float32)
    joined = jax.ShapeDtypeStruct((here, *shape[:-1], shape[-1] * tower.towers), jnp.float32)

    def run(x: Any) -> Any:
        return jnp.stack(exchange(tuple(x), tower.towers))

    forward = _seconds(mesh, run, x)
    backward = _seconds(mesh, lambda dy: jax.linear_transpose(run, x)(dy), joined)
    return Part(f"exchange before {name}", forward, backward)


def _draw(mesh: Mesh, shape: tuple[int, ...]) -> Any:
    """Small random numbers of this shape for each device of the tower axis."""
    draw = jax.jit(
        lambda: 0.01 * jax.random.normal(jax.random.key(0), (mesh.shape[TOWER], *shape)),
        out_shardings=NamedSharding(mesh, SAMPLE),
    )
    return draw()


def _seconds(mesh: Mesh, run: Callable[..., Any], *shapes: Any) -> float:
    """The fastest of a few runs on random arguments of these shapes, which are those of a device."""
    arguments = jax.tree.map(lambda leaf: _draw(mesh, leaf.shape), shapes)

    def on_device(*arguments: Any) -> Any:
        result = run(*jax.tree.map(lambda leaf: leaf[0], arguments))
        return jax.tree.map(lambda leaf: leaf[None], result)

    compiled = jax.jit(
        jax.shard_map(on_device, mesh=mesh, in_specs=SAMPLE, out_specs=SAMPLE, check_vma=False),
        compiler_options=forwards.compile_options(mesh),
    )
    jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - begun)
    return min(seconds)
