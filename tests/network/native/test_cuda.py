"""The CUDA kernels, run on a CPU, against the formulas in NumPy and float64; and the network that calls them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.network import blocks, layers, sharding
from alexnet_jax.network.forward import init_variables, make_forward
from alexnet_jax.network.native import build
from alexnet_jax.network.tower import make_tower
from tests.network import formulas
from tests.network.native import cuda_on_cpu

NORM = dict(size=5, k=2.0, alpha=0.01, beta=0.75)
TOLERANCE = {jnp.float32: 2e-6, jnp.bfloat16: 4e-3}  # bfloat16 keeps 8 bits
TYPES = list(TOLERANCE)


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch):
    cuda_on_cpu.use(monkeypatch)


def draw(*shape: int, seed: int, dtype) -> jax.Array:
    return jnp.asarray(3 * np.random.default_rng(seed).standard_normal(shape), dtype)


def wide(x) -> np.ndarray:
    return np.asarray(x, np.float64)


def value_and_gradients(operation, x: jax.Array, *others: jax.Array):
    """The value, the gradient it is given, and the gradients of all arguments; and the kernels that were called."""

    @jax.jit
    def run(*arguments):
        y, pull = jax.vjp(operation, *arguments)
        dy = jnp.cos(jnp.arange(y.size)).reshape(y.shape).astype(y.dtype)
        return y, dy, *pull(dy)

    text = run.lower(x, *others).as_text()
    called = {name for name in build.CUDA_OPERATIONS if f"@{build.cuda_target(name)}(" in text}
    return map(wide, run(x, *others)), called


def check(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert found.shape == expected.shape and np.isfinite(found).all()
    assert np.sqrt(np.mean((found - expected) ** 2)) <= tolerance * np.sqrt(np.mean(expected**2))


SHAPES = [(2, 5, 7, 48), (1, 6, 5, 8), (3, 3, 4, 4), (1, 1, 1, 12), (2, 9, 13, 128), (1, 4, 4, 52), (1, 27, 27, 16)]


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["response_norm", "spatial_norm"])
def test_norms(kind: str, shape: tuple[int, ...], dtype):
    x = draw(*shape, seed=1, dtype=dtype)
    (y, dy, dx), called = value_and_gradients(functools.partial(getattr(layers, kind), **NORM), x)
    assert called == {kind, f"{kind}_gradient"}
    check(y, formulas.norm(wide(x), kind=kind, **NORM), TOLERANCE[dtype])
    check(dx, formulas.norm_gradient(wide(x), dy, kind=kind, **NORM), TOLERANCE[dtype])


POOLS = [(3, 2), (2, 2)]


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize(("size", "stride"), POOLS)
@pytest.mark.parametrize("sides", [(7, 9), (8, 6), (5, 5), (3, 4), (11, 14)])
def test_max_pooling_sends_the_gradient_to_every_tied_maximum(sides, size: int, stride: int, dtype):
    x = jnp.asarray(np.random.default_rng(2).integers(-2, 3, (2, *sides, 24)), dtype)  # few values: many ties
    (y, dy, dx), called = value_and_gradients(functools.partial(layers.max_pool, size=size, stride=stride), x)
    assert called == {"max_pool", "max_pool_gradient"}
    np.testing.assert_array_equal(y, formulas.max_pool(wide(x), size=size, stride=stride, lowest=-np.inf))
    check(dx, formulas.max_pool_gradient(wide(x), dy, size=size, stride=stride), TOLERANCE[dtype])


def expected_block(x, bias, dys, block: blocks.Block):
    """Values and gradients in float64, but for the maps between norm and pooling, which have the maps' type."""
    biased = wide(x) + wide(bias)
    before = np.maximum(biased, 0) if block.rectify else biased
    constants, dtype = dict(kind="response_norm", **NORM), x.dtype
    ys, dx = [], []
    for part, dy in zip(np.split(before, block.groups, axis=-1), dys, strict=True):
        pooled = normed = formulas.norm(part, **constants)
        if block.pool:
            size, stride = block.pool
            normed = wide(jnp.asarray(normed, dtype))  # which makes ties
            pooled = formulas.max_pool(normed, size=size, stride=stride, lowest=-np.inf)
            dy = dy * (pooled > 0) if block.rectify_pooled else dy
            dy = formulas.max_pool_gradient(normed, dy, size=size, stride=stride)
        ys.append(np.maximum(pooled, 0) if block.rectify_pooled else pooled)
        dx.append(formulas.norm_gradient(part, dy, **constants))
    dx = np.concatenate(dx, axis=-1)
    dx = dx * (biased > 0) if block.rectify else dx
    return ys, dx, dx.sum((0, 1, 2))


THEN = [
    ("norm", "pool", "activation"),
    ("activation", "norm", "pool"),
    ("activation", "norm", "spatial_norm", "pool"),
    ("norm", "pool"),
    ("norm",),
]


def test_rows_that_shared_memory_cannot_hold_take_the_plain_form():
    block = blocks.block_of(("norm", "pool"), **NORM, pool=(3, 2), round_down=False)
    assert block is not None
    wide = {dtype: draw(1, 4, 200, 48, seed=3, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16)}
    assert [blocks.fits(x, block) for x in wide.values()] == [False, True]  # three rows: 115,200 or 57,600 bytes


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize(("channels", "groups"), [(48, 1), (8, 1), (20, 1), (96, 2), (24, 2)])
@pytest.mark.parametrize(("then", "size"), [*((then, 3) for then in THEN), (THEN[0], 2)], ids=str)
def test_bias_norm_and_pooling_of_a_layer_are_one_kernel(then, size: int, channels: int, groups: int, dtype):
    block = blocks.block_of(then, **NORM, pool=(size, 2), round_down=False)
    assert block is not None
    block = block._replace(groups=groups)
    x, bias = draw(2, 13, 8, channels, seed=3, dtype=dtype), draw(channels, seed=4, dtype=jnp.float32)
    if not block.pool and groups > 1:
        assert not blocks.fits(x, block)
        return
    assert blocks.fits(x, block)

    def run(x, bias):
        return jnp.concatenate(blocks.run(x, bias, block), axis=-1)

    (y, dy, dx, dbias), called = value_and_gradients(run, x, bias)
    name = "norm_pool" if block.pool else "response_norm"
    assert called == {name, f"{name}_gradient"}
    expected = expected_block(x, bias, np.split(dy, groups, axis=-1), block)
    check(y, np.concatenate(expected[0], axis=-1), TOLERANCE[dtype])
    # A maximum may be decided differently after rounding, which moves a gradient to another pixel.
    tolerance = TOLERANCE[dtype] if dtype == jnp.float32 or not block.pool else 0.1
    check(dx, expected[1], tolerance)
    check(dbias, expected[2], 5 * tolerance)  # a sum in which much cancels


def test_a_number_that_is_no_number_stays_one():
    """A network that diverges must be seen to."""
    block = blocks.block_of(("norm", "pool", "activation"), **NORM, pool=(3, 2), round_down=False)
    x = draw(1, 5, 5, 8, seed=5, dtype=jnp.float32).at[0, 2, 2, 3].set(jnp.nan)
    assert np.isnan(blocks.run(x, jnp.zeros(8), block)[0]).any()
    assert np.isnan(layers.max_pool(x, size=3, stride=2)).sum() == 4


@pytest.mark.parametrize(
    ("x", "norm"),
    [
        (jnp.ones((1, 3, 3, 6)), NORM),  # channels
        (jnp.ones((1, 3, 3, 8), jnp.float16), NORM),
        (jnp.ones((1, 3, 3, 8)), NORM | dict(size=3)),
        (jnp.ones((1, 3, 3, 8)), NORM | dict(beta=0.5)),
        (jnp.ones((0, 3, 3, 8)), NORM),
    ],
)
def test_what_no_kernel_covers_takes_the_plain_form(x: jax.Array, norm: dict):
    _, called = value_and_gradients(functools.partial(layers.response_norm, **norm), x)
    assert not called


@pytest.mark.parametrize(("size", "stride"), [(2, 3), (3, 1), (4, 2)])
def test_pooling_that_no_kernel_covers_takes_the_plain_form(size: int, stride: int):
    _, called = value_and_gradients(
        functools.partial(layers.max_pool, size=size, stride=stride), jnp.ones((1, 6, 6, 8))
    )
    assert not called


def test_maps_too_large_for_shared_memory_take_the_plain_form():
    x = jnp.ones((1, 60, 60, 16))
    _, called = value_and_gradients(functools.partial(layers.spatial_norm, **NORM), x)
    assert called == {"spatial_norm"}, "the gradient takes twice as much"
    assert layers._chunk(jnp.ones((1, 27, 27, 128)), 2) == 16


@pytest.mark.parametrize(
    ("recipe", "bfloat16"),
    [("original", False), ("original", True), ("paper", False), ("caffenet", False), ("caffenet", True)],
)
def test_the_network_gives_what_the_plain_form_gives(recipe: str, bfloat16: bool):
    tower = make_tower(recipe, num_classes=6, width=0.25, dtype=jnp.bfloat16 if bfloat16 else None)
    mesh = sharding.make_mesh(data=1, tower=1)
    params, stats = jax.jit(lambda key: init_variables(tower, key, 67))(jax.random.key(0))
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    images = 50 * jax.random.normal(jax.random.key(1), (2, 67, 67, 3))

    def loss(params):
        return jnp.square(make_forward(tower, mesh)(params, stats, images, jax.random.key(2))[0]).mean()

    run = jax.jit(jax.value_and_grad(loss))
    text = run.lower(params).as_text()
    called = {name for name in build.CUDA_OPERATIONS if f"@{build.cuda_target(name)}(" in text}
    with_norms = {"norm_pool", "norm_pool_gradient"} if recipe != "caffenet" else set()
    assert with_norms <= called and "max_pool_gradient" in called
    found = run(params)
    with build.plain_form():
        expected = jax.jit(jax.value_and_grad(lambda params: loss(params)))(params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        check(wide(a), wide(b), 0.2 if bfloat16 else 1e-4)


@pytest.mark.parametrize(("data", "tower"), [(2, 1), (1, 2), (2, 2)])
def test_the_kernels_know_nothing_of_a_mesh(data: int, tower: int):
    """A divided batch, and towers on devices of their own, give the losses and gradients of one device."""
    network = make_tower("original", num_classes=6, width=0.25, he_init=True)
    params, stats = jax.jit(lambda key: init_variables(network, key, 67))(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (4, 67, 67, 3))

    def run(mesh):
        def loss(params):
            return jnp.square(make_forward(network, mesh)(params, stats, images, jax.random.key(2))[0]).mean()

        program = jax.jit(jax.value_and_grad(loss))
        assert f"@{build.cuda_target('norm_pool_gradient')}(" in program.lower(params).as_text()
        return program(params)

    one, divided = run(sharding.make_mesh(data=1, tower=1)), run(sharding.make_mesh(data=data, tower=tower))
    for a, b in zip(jax.tree.leaves(divided), jax.tree.leaves(one), strict=True):
        check(wide(a), wide(b), 1e-4)


def test_a_call_that_the_kernel_does_not_understand_is_refused():
    def call(x, **attributes):
        y = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.ffi.ffi_call(build.cuda_target("max_pool"), y)(x, **attributes)

    x = jnp.ones((1, 3, 3, 8))
    with pytest.raises(Exception, match="attribute size is missing"):
        jax.block_until_ready(call(x))
    with pytest.raises(Exception, match="attribute size is 4, expected 2 to 3"):
        jax.block_until_ready(call(x, size=np.int64(4)))
    with pytest.raises(Exception, match="the pooled array does not fit the maps"):
        jax.block_until_ready(call(x, size=np.int64(3)))
    with pytest.raises(Exception, match="6 channels, expected a multiple of 4"):
        jax.block_until_ready(call(jnp.ones((1, 3, 3, 6)), size=np.int64(3)))


def test_an_image_too_small_for_a_pooling_is_named():
    tower = make_tower("original", num_classes=6, width=0.25)
    with pytest.raises(UsageError, match="too small"):
        init_variables(tower, jax.random.key(0), 12)


@pytest.mark.parametrize("recipe", ["tanh", "bvlc", "cifar_11pct"])
def test_operations_that_no_block_covers_take_none(recipe: str):
    """Another activation, a window across the towers, a window of nine maps."""
    tower, mesh = make_tower(recipe, num_classes=6, width=0.25), sharding.make_mesh(data=1, tower=1)
    params, _ = jax.jit(lambda key: init_variables(tower, key, 67))(jax.random.key(0))
    images = 50 * jax.random.normal(jax.random.key(1), (2, 67, 67, 3))

    def forward(params):
        return jax.jit(lambda params: make_forward(tower, mesh)(params, {}, images)[0])

    assert f"@{build.cuda_target('norm_pool')}(" not in forward(params).lower(params).as_text()
    found = forward(params)(params)
    with build.plain_form():
        expected = forward(params)(params)
    check(wide(found), wide(expected), 1e-4)


def test_signals_are_those_of_single_operations():
    tower = make_tower("original", num_classes=6, width=0.25)
    params, _ = jax.jit(lambda key: init_variables(tower, key, 67))(jax.random.key(0))
    images = jnp.ones((1, 67, 67, 3))
    run = jax.jit(lambda params: tower.apply({"params": params}, images, train=False, mutable=["signals"]))
    assert f"@{build.cuda_target('norm_pool')}(" not in run.lower(params).as_text()


@pytest.mark.parametrize(
    ("norm", "pool", "groups"),
    [
        ({"size": 9}, (3, 2), 1),
        ({"beta": 0.5}, (3, 2), 1),
        ({}, (3, 3), 1),
        ({}, (3, 2), 2),  # twelve channels in two groups of six
    ],
)
def test_a_block_that_no_kernel_covers(norm: dict, pool: tuple[int, int], groups: int):
    block = blocks.block_of(("norm", "pool"), **NORM | norm, pool=pool, round_down=False)
    assert block is not None
    assert not blocks.fits(draw(1, 7, 7, 12, seed=0, dtype=jnp.float32), block._replace(groups=groups))


def test_a_strip_of_rows_shrinks_until_shared_memory_holds_it():
    """Nine rows of layer 2 of the recipe `paper` in float32 take 124,416 bytes."""
    block = blocks.block_of(("activation", "norm", "pool"), **NORM, pool=(3, 2), round_down=False)
    assert block is not None
    x, bias = draw(1, 27, 27, 128, seed=3, dtype=jnp.float32), draw(128, seed=4, dtype=jnp.float32)
    (y, dy, dx, _), called = value_and_gradients(lambda x, b: blocks.run(x, b, block)[0], x, bias)
    assert called == {"norm_pool", "norm_pool_gradient"}
    ys, expected, _ = expected_block(x, bias, [dy], block)
    check(y, ys[0], TOLERANCE[jnp.float32])
    check(dx, expected, TOLERANCE[jnp.float32])


def test_a_blocks_bias_has_a_gradient_that_is_summed_in_its_own_type():
    block = blocks.block_of(("norm",), size=5, k=1.0, alpha=0.0, beta=0.75, pool=(3, 2), round_down=False)
    assert block is not None
    x = jnp.zeros((3, 20, 25, 4), jnp.bfloat16)
    _, pull = jax.vjp(lambda bias: blocks.run(x, bias, block)[0], jnp.zeros(4))
    np.testing.assert_array_equal(pull(jnp.ones_like(x))[0], 1500)  # bfloat16 has 1504


def test_a_relu_after_pooling_stops_the_gradient_at_zero():
    block = blocks.block_of(THEN[0], **NORM, pool=(3, 2), round_down=False)
    assert block is not None
    y, pull = jax.vjp(lambda x: blocks.run(x, jnp.zeros(8), block)[0], jnp.zeros((1, 5, 5, 8)))
    assert not pull(jnp.ones_like(y))[0].any()
