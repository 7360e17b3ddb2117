import functools
import re
from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.benchmarks.timing import resident_bytes
from alexnet_jax.errors import UsageError
from alexnet_jax.learning.step import TrainState, loss_fn, train_step
from alexnet_jax.network import forward as forwards
from alexnet_jax.network import sharding
from alexnet_jax.network.recipes import layers_of
from alexnet_jax.network.tower import Tower
from tests import small

LAYOUTS = [(1, 1), (1, 2), (2, 2), (4, 1)]
TOWER = Tower(layers_of("original", width=0.08), num_classes=5, he_init=True)
KEY = jax.random.key(7)
OPTIONS = {option: value for option, (value, _) in forwards.CPU_OPTIONS.items()}


def initial():
    return jax.tree.map(jnp.copy, drawn())  # a step that donates its state would take them from the others


@functools.cache
def drawn():
    return jax.jit(lambda key: forwards.init_params(TOWER, key, 67))(KEY)


def run(data: int, tower: int):
    """Logits, the velocities after one step, which are its gradients, and the losses of four, on one layout."""
    mesh = sharding.make_mesh(data=data, tower=tower)
    steps = small.steps(TOWER, mesh, table=[(0, 0.01), (2, 0.001)])
    state, batch = steps.init(KEY), sharding.put_batch(small.batch(), mesh)
    forward = jax.jit(forwards.make_forward(TOWER, mesh), compiler_options=forwards.compile_options(mesh))
    logits, _ = forward(state.params, {}, small.photometry(batch.image, None, None))
    losses, velocities = [], None
    for _ in range(4):
        state, metrics = steps.train_step(state, batch, KEY)
        losses.append(float(metrics.loss))
        velocities = velocities or jax.device_get(state.opt_state.velocity)
    return jax.device_get(logits), velocities, losses


@functools.cache
def reference():
    return run(1, 1)


@pytest.mark.parametrize("shape", LAYOUTS[1:])
def test_the_layout_changes_no_number(shape: tuple[int, int]):
    logits, velocities, losses = run(*shape)
    expected_logits, expected_velocities, expected_losses = reference()
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-5, atol=1e-6)
    for path, leaf in jax.tree_util.tree_leaves_with_path(expected_velocities):
        own = functools.reduce(lambda tree, key: tree[key.key], path, velocities)
        np.testing.assert_allclose(own, leaf, rtol=1e-4, atol=2e-5 * np.abs(leaf).max(), err_msg=str(path))
    np.testing.assert_allclose(losses, expected_losses, rtol=2e-6)
    assert losses[0] != losses[1], "nothing was learned or dropped"


def test_towers_meet_exactly_four_times():
    mesh = sharding.make_mesh(data=1, tower=2)
    forward = forwards.make_forward(TOWER, mesh)
    params = jax.eval_shape(lambda key: forwards.init_params(TOWER, key, 67), KEY)
    images = jax.ShapeDtypeStruct((2, 67, 67, 3), jnp.float32)
    text = jax.jit(forward).lower(params, {}, images).as_text()
    assert len(re.findall("stablehlo.all_gather", text)) == 4

    def loss(params, images):
        return forward(params, {}, images, KEY)[0].sum()

    text = jax.jit(jax.grad(loss)).lower(params, images).as_text()
    assert len(re.findall("stablehlo.all_gather", text)) == 4
    assert len(re.findall("stablehlo.reduce_scatter", text)) == 4


def test_a_mesh_larger_than_the_machine_is_refused():
    with pytest.raises(UsageError, match="data=4 x tower=2 needs 8 devices and there are 4"):
        sharding.make_mesh(data=4, tower=2)
    with pytest.raises(UsageError, match="data=1 x tower=2 needs 2 devices and there is 1"):
        sharding.make_mesh(data=1, tower=2, devices=jax.devices()[:1])


def test_the_compiler_options_change_no_number():
    """With YNNPACK and the order for the least memory against the default lowering, forward and gradient."""
    mesh = sharding.make_mesh(data=1, tower=2)
    loss = functools.partial(loss_fn, forward=forwards.make_forward(TOWER, mesh))
    batch = sharding.put_batch(small.batch(), mesh)
    arguments = initial(), {}, small.photometry(batch.image, None, None), batch, KEY
    gradient = jax.grad(loss, has_aux=True)
    plain, (plain_metrics, _) = jax.jit(gradient)(*arguments)
    fast, (fast_metrics, _) = jax.jit(gradient, compiler_options=forwards.compile_options(mesh))(*arguments)
    assert float(plain_metrics.loss) == pytest.approx(float(fast_metrics.loss), rel=1e-5)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(fast), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * float(jnp.abs(a).max()))


def test_a_jaxlib_without_a_compiler_option_goes_on_with_one_warning(monkeypatch):
    unknown = {"xla_cpu_is_not_known": ("1", "as slow as a snail")}
    mesh = sharding.make_mesh(data=1, tower=2)
    known = forwards.compile_options(mesh)
    monkeypatch.setattr(forwards, "CPU_OPTIONS", forwards.CPU_OPTIONS | unknown)
    forwards._known.cache_clear()
    with pytest.warns(UserWarning, match="slow as a snail with this jaxlib: .*xla_cpu_is_not_known") as warned:
        assert [forwards.compile_options(mesh) for _ in range(2)] == [known, known]
    assert len(warned) == 1
    monkeypatch.setattr(forwards, "CPU_OPTIONS", unknown)
    assert forwards.compile_options(mesh) is None


@pytest.mark.parametrize(
    ("capability", "expected"),
    [("7.5", None), ("8.0", "True"), ("8.9", "True"), ("9.0", None), ("10.0", None), ("gfx90a", None), (None, None)],
)
def test_channels_are_last_on_gpus_where_xla_has_them_first(capability, expected):
    device = SimpleNamespace(platform="gpu" if capability else "tpu")
    if capability:
        device.compute_capability = capability
    options = forwards.compile_options(Mock(spec=jax.sharding.Mesh, devices=np.array([[device]])))
    assert (options or {}).get("xla_gpu_force_conv_nhwc") == expected


def test_the_gradient_needs_little_memory():
    """It takes 10.0 times conv1's maps: 14.6 without the order for the least memory, 11.5 with norms' sums kept."""
    mesh = sharding.make_mesh(data=1, tower=2)
    tower = Tower(layers_of("original", width=0.5), num_classes=5)
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.param_sharding(mesh)),
        jax.eval_shape(lambda key: forwards.init_params(tower, key, 224), KEY),
    )
    forward = forwards.make_forward(tower, mesh)
    gradient = jax.jit(
        jax.grad(lambda params, images: jnp.square(forward(params, {}, images, KEY)[0]).sum()),
        compiler_options=forwards.compile_options(mesh),
    )
    compiled = gradient.lower(params, jax.ShapeDtypeStruct((128, 224, 224, 3), jnp.float32)).compile()
    maps = 128 * 55 * 55 * 24 * 4  # bytes, of one tower
    assert compiled.memory_analysis().temp_size_in_bytes < 11.0 * maps


def small_run(options: dict[str, str] | None) -> tuple[TrainState, Callable[[TrainState], tuple[TrainState, float]]]:
    """The first state of a small network with dropout, and its update, which gives the loss as well."""
    mesh = sharding.make_mesh(data=1, tower=2)
    steps, batch = small.steps(TOWER, mesh, table=[(0, 0.001)]), sharding.put_batch(small.batch(), mesh)
    state = steps.init(KEY)
    step = jax.jit(
        functools.partial(
            train_step,
            forward=forwards.make_forward(TOWER, mesh),
            optimizer=small.optimizer(TOWER, [(0, 0.001)]),
            photometry=small.photometry,
        ),
        donate_argnums=0,
        out_shardings=(sharding.state_shardings(steps.target, mesh), sharding.replicated(mesh)),
        compiler_options=options,
    )

    def update(state: TrainState) -> tuple[TrainState, float]:
        state, metrics = step(state, batch, KEY)
        return state, float(metrics.loss)

    return state, update


@pytest.mark.soak
def test_the_compiler_options_change_no_loss_of_200_steps():
    """Two updates by either program from each state of a run.

    Two whole runs part after some hundred updates, whatever the options: by then two numbers, of which pooling takes
    the larger, have been nearer to one another than rounding tells apart.
    """
    state, fast = small_run(OPTIONS)
    _, plain = small_run(None)
    losses = []
    for _ in range(200):
        _, expected = plain(plain(jax.tree.map(jnp.copy, state))[0])
        state, loss = fast(state)
        losses.append(loss)
        _, second = fast(jax.tree.map(jnp.copy, state))
        assert second == pytest.approx(expected, rel=1e-5)
    assert losses[-1] < 0.5 * losses[0], "nothing was learned"


@pytest.mark.soak
def test_ten_thousand_steps_take_no_more_memory():
    state, update = small_run(OPTIONS)
    used = []
    for number in range(10_000):
        state, _ = update(state)
        if number % 500 == 499:
            used.append(resident_bytes())
    assert max(used[4:]) - max(used[:4]) < 2**22, used
