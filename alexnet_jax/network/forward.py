"""Where the towers run: the forward pass on a mesh, and initial parameters.

`forward` is one `shard_map`, manual over `data` and `tower`. Below it every array is local to a device. An axis of one
device divides nothing: arrays then do not vary over it, and no collective operation is compiled for it.
"""

import functools
import itertools
import warnings
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from alexnet_jax.errors import UsageError
from alexnet_jax.network.native import build
from alexnet_jax.network.tower import DATA, TOWER, Tower

Params: TypeAlias = PyTree[Float[Array, "tower ..."]]
BatchStats: TypeAlias = PyTree[Float[Array, "tower ..."]]  # running averages of batch norms; empty without them
Forward: TypeAlias = Callable[
    [Params, BatchStats, Float[Array, "B h w 3"], PRNGKeyArray | None], tuple[Float[Array, "B classes"], BatchStats]
]


def check_classifier(tower: Tower) -> None:
    """Checks that the network ends with a classifier.

    Raises:
      UsageError: it does not.
    """
    last = tower.layers[-1]
    if last.window:
        raise UsageError(
            f"the network has no classifier: its last layer is {last.name}, whose output `features` gives; use a recipe"
            " with a connected layer at its end"
        )


def make_forward(tower: Tower, mesh: Mesh) -> Forward:
    """`forward(params, batch_stats, images, key) -> (logits [B, classes], batch_stats)` on this mesh.

    With a key it trains: dropout drops, and batch norms use the batch's statistics and move their running averages.
    With key None it evaluates, and `batch_stats` come back as they were. Masks are drawn by an image's place in the
    global batch, and statistics are the global batch's, so no layout changes a number but by rounding.

    Raises:
      UsageError: the mesh has more places on its tower axis than the network has towers, or the network has no
        classifier.
    """
    check_classifier(tower)
    return _make_forward(tower, mesh)


def make_features(
    tower: Tower, mesh: Mesh, layer: str
) -> Callable[[Params, BatchStats, Float[Array, "B h w 3"]], Float[Array, "B ..."]]:
    """`features(params, batch_stats, images)`: a layer's output in evaluation, after the operations that follow it.

    That is what the next layer is given: `[B, units]` of a connected layer, `[B, h, w, maps]` of a convolution, both
    towers side by side. Of the last layer these are the logits.

    Raises:
      UsageError: the network has no such layer, or the mesh does not fit the towers.
    """
    names = [each.name for each in tower.layers]
    if layer not in names:
        raise UsageError(f"the network has no layer {layer!r}; its layers are {', '.join(names)}")
    forward = _make_forward(tower.clone(layers=tower.layers[: names.index(layer) + 1]), mesh)
    return lambda params, batch_stats, images: forward(params, batch_stats, images, None)[0]


def _make_forward(tower: Tower, mesh: Mesh) -> Callable[..., tuple[Float[Array, "B ..."], BatchStats]]:
    """`make_forward` of a network that may end at any layer."""
    places = mesh.shape[TOWER]
    if places not in (1, tower.towers):
        raise UsageError(f"the mesh has {places} places for towers and the network {tower.towers} tower; use tower=1")
    build.load_once()  # tracing needs the kernels, and a user's program may not have loaded them
    axes = _axes(mesh)
    data, towers = _spec(axes, DATA), _spec(axes, TOWER)
    here = tower.clone(axes=axes)
    last = tower.layers[-1]

    def local(params, batch_stats, images, key):
        if DATA in axes:  # the transpose is the sum of all gradients over `data`, the only one
            params = jax.tree.map(lambda leaf: lax.pcast(leaf, DATA, to="varying"), params)
        if TOWER in axes:  # towers make different maps of the same images
            images = lax.pcast(images, TOWER, to="varying")
        variables = {"params": params, "batch_stats": batch_stats}
        if key is None:
            return here.apply(variables, images, train=False), batch_stats
        y, changed = here.apply(variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
        return y, changed.get("batch_stats", {})

    output = _spec(axes, DATA, None, None, TOWER) if last.window else _spec(axes, DATA, TOWER)
    run = jax.shard_map(local, mesh=mesh, in_specs=(towers, towers, data, PartitionSpec()), out_specs=(output, towers))

    def forward(params, batch_stats, images, key=None):
        y, batch_stats = run(params, batch_stats, images, key)
        if not last.window and not last.features:  # with an odd number of classes the last tower has one too many
            y = y[:, : tower.num_classes]
        return y, batch_stats

    return forward


def _spec(axes: tuple[str, ...], *names: str | None) -> PartitionSpec:
    """The layout of an array whose axes lie along these axes of the mesh, where the mesh has more than one place."""
    return PartitionSpec(*(name if name in axes else None for name in names))


def _axes(mesh: Mesh) -> tuple[str, ...]:
    return tuple(axis for axis in (DATA, TOWER) if mesh.shape[axis] > 1)


def init_variables(tower: Tower, key: PRNGKeyArray, image_size: int) -> tuple[Params, BatchStats]:
    """Fresh parameters and batch statistics of all towers: Gaussian kernels and constant biases.

    The distribution is that of `Tower.init`. All kernels of a tower are parts of one draw: a draw for each would take
    three seconds to compile.

    Args:
      tower: the network.
      key: of the initial values.
      image_size: pixels along a side of the images.

    Raises:
      UsageError: the images are too small for a layer.
    """
    images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
    variables = tower.init(key, images, train=False)  # compiled, the kernels drawn here are dropped
    params = dict(variables["params"])
    layers = {layer.name: layer for layer in tower.layers}
    kernels = {name: params[name]["kernel"].shape[1:] for name in sorted(layers)}
    sizes = [functools.reduce(int.__mul__, shape) for shape in kernels.values()]
    draws = jax.vmap(lambda index: jax.random.normal(jax.random.fold_in(key, index), (sum(sizes),)))
    parts = jnp.split(draws(jnp.arange(tower.towers)), list(itertools.accumulate(sizes))[:-1], axis=1)
    for (name, shape), part in zip(kernels.items(), parts, strict=True):
        kernel = tower.kernel_deviation(layers[name], shape) * part.reshape(-1, *shape)
        params[name] = dict(params[name], kernel=kernel)
    return params, variables.get("batch_stats", {})


def init_params(tower: Tower, key: PRNGKeyArray, image_size: int) -> Params:
    """The parameters of `init_variables`."""
    return init_variables(tower, key, image_size)[0]


# For the CPU's compiler: option, value, and what training is without it. Experimental in jaxlib 0.10.
# YNNPACK runs matrix products and, where the C kernels do not run, turns gradients of convolutions into plain
# convolutions, which take a twentieth of the default lowering's time. The order of operations that needs the least
# memory saves a tenth of an update's memory, and its page faults.
CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": ("LIBRARY_FUSION_TYPE_DOT", "several times as slow"),
    "xla_cpu_scheduler_type": ("CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED", "larger in memory"),
}


# For NVIDIA's Ampere and Ada, of compute capability 8. There XLA puts the channels of float32 maps first for
# convolutions, and last from Hopper on. The kernels of norms and pooling have them last, so that each large map would
# be transposed between the two.
CHANNELS_LAST = {"xla_gpu_force_conv_nhwc": ("True", "slower in float32")}


def compile_options(mesh: Mesh) -> dict[str, str] | None:
    """The compiler options for the mesh's devices, without those that jaxlib does not support; None for no option."""
    device, options = mesh.devices.flat[0], {}
    if device.platform == "cpu":
        options = CPU_OPTIONS
    elif str(getattr(device, "compute_capability", "")).startswith("8."):
        options = CHANNELS_LAST
    known = {name: value for name, (value, without) in options.items() if _known(name, value, without)}
    return known or None


@functools.cache
def _known(option: str, value: str, without: str) -> bool:
    """Whether this jaxlib takes the option; warns once where it does not."""
    try:
        compiled = jax.jit(lambda x: x, compiler_options={option: value})
        compiled.lower(jax.ShapeDtypeStruct((), jnp.float32)).compile()
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        warnings.warn(f"training on this device is {without} with this jaxlib: {reason}", stacklevel=3)
        return False
    return True
