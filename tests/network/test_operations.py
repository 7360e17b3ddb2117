"""Values and gradients of convolutions, norms and pooling in every form, against the formulas in NumPy and float64.

The forms: C kernels, as on a CPU; the plain form in JAX in float32, as on accelerators; the plain form in float64, with
a tolerance that leaves no room for another formula.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from alexnet_jax.network import blocks, layers, sharding
from alexnet_jax.network.convolution import convolution, local_convolution, over_blocks
from alexnet_jax.network.forward import init_params, make_forward
from alexnet_jax.network.native import build
from alexnet_jax.network.tower import DATA, TOWER, make_tower
from tests.network import formulas

FORMS = ["c", "plain", "plain64"]
NORM = dict(k=2.0, alpha=0.01)
rng = np.random.default_rng(0)


@pytest.fixture
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """Selects the form of operations that programs traced in the test take."""
    if build.load("auto" if request.param == "c" else "off").platform is None and request.param == "c":
        pytest.skip(build.load().line)
    with jax.enable_x64(request.param == "plain64"):
        yield request.param
    build.load()


def cases(fixed: list[dict], draw: Callable[[], dict], **random: int) -> pytest.MarkDecorator:
    """Fixed geometries and random ones, of which a form takes so many: a plain form takes long to compile."""
    drawn = [draw() for _ in range(max(random.values()))]
    listed = [(form, case) for form in FORMS for case in [*fixed, *drawn[: random[form]]]]
    ids = [f"{form}-{' '.join(map(str, case.values()))}" for form, case in listed]
    return pytest.mark.parametrize(("form", "case"), listed, indirect=["form"], ids=ids)


def draw_array(*shape: int, seed: int, scale: float = 1) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def value_and_gradients(form: str, operation: Callable, *arguments: np.ndarray, names: list[str]):
    """The result, the gradient of the result and the gradients of the arguments, all in float64.

    The compiled program calls the kernels `names` if the form is C, and no others.
    """

    @jax.jit
    def run(*arguments):
        y, pull = jax.vjp(operation, *arguments)
        dy = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return y, dy, *pull(dy)

    arrays = [jnp.asarray(argument, jnp.float64 if form == "plain64" else jnp.float32) for argument in arguments]
    lowered = run.lower(*arrays)
    called = [name for name in build.OPERATIONS if f"@{build.target(name)}(" in lowered.as_text()]
    assert called == (sorted(names, key=build.OPERATIONS.index) if form == "c" else [])
    return [np.asarray(array, np.float64) for array in lowered.compile()(*arrays)]


def check(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Compares by the root mean square of the difference, relative to that of the expected array."""
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    assert np.sqrt(np.mean((found - expected) ** 2)) <= tolerance * np.sqrt(np.mean(expected**2))


# ---- convolutions ----------------------------------------------------------------------------------------------------


def draw_convolution() -> dict:
    stride = int(rng.integers(1, 4))
    window = int(rng.choice([3, 5])) * stride - int(rng.integers(0, stride))
    return dict(
        images=rng.integers(1, 10),
        height=rng.integers(window, 18),
        width=rng.integers(window, 18),
        channels=rng.integers(1, 41 if stride == 1 else 256 // stride**2),
        maps=rng.integers(1, 71),
        window=window,
        stride=stride,
        before=rng.integers(0, window),
        after=rng.integers(0, 4),
    )


def convolution_case(*numbers: int) -> dict:
    names = "images", "height", "width", "channels", "maps", "window", "stride", "before", "after"
    return dict(zip(names, numbers, strict=True))


@cases(
    [
        convolution_case(2, 27, 27, 48, 128, 5, 1, 2, 2),  # conv2
        convolution_case(13, 13, 13, 64, 48, 3, 1, 1, 1),  # conv3
        convolution_case(3, 56, 60, 3, 48, 11, 4, 0, 3),  # conv1
        convolution_case(2, 56, 61, 3, 16, 11, 4, 2, 2),  # torchvision's conv1: pixels at the border fill no window
        convolution_case(4, 9, 9, 1, 1, 5, 2, 2, 1),
        convolution_case(9, 31, 38, 3, 12, 9, 2, 3, 5),  # five blocks of 2 x 2 pixels
    ],
    draw_convolution,
    c=12,
    plain=2,
    plain64=1,
)
def test_a_convolution_and_its_gradients(form: str, case: dict):
    window, stride, padding = case["window"], int(case["stride"]), [(int(case["before"]), int(case["after"]))] * 2
    x = draw_array(case["images"], case["height"], case["width"], case["channels"], seed=0)
    kernel = draw_array(window, window, case["channels"], case["maps"], seed=1)
    names = ["convolution", "convolution_kernel_gradient", *["convolution_input_gradient"] * (stride == 1)]
    convolve = functools.partial(convolution, stride=stride, padding=padding)
    y, dy, *gradients = value_and_gradients(form, convolve, x, kernel, names=names)
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    # Winograd's transforms round more than a sum does, but no more than some hundred of its terms.
    tolerance = {"c": 5e-6, "plain": 2e-6, "plain64": 1e-13}[form]
    check(y, formulas.convolution(x, kernel, stride=stride, padding=padding), tolerance)
    expected = formulas.convolution_gradients(x, kernel, dy, stride=stride, padding=padding)
    for gradient, wanted in zip(gradients, expected, strict=True):
        check(gradient, wanted, tolerance)


@pytest.mark.parametrize("seed", range(8))
def test_a_convolution_over_blocks_has_the_same_sums(seed: int):
    rng = np.random.default_rng(seed)
    stride, channels = int(rng.integers(2, 6)), int(rng.integers(1, 8))
    window = tuple(map(int, rng.integers(1, 13, 2)))
    padding = tuple(tuple(map(int, sides)) for sides in rng.integers(0, 4, (2, 2)))
    height, width = (int(size) for size in rng.integers(window, np.add(window, 20)))
    with jax.enable_x64(True):
        x = jnp.asarray(rng.standard_normal((2, height, width, channels)))
        kernel = jnp.asarray(rng.standard_normal((*window, channels, 3)))
        dimensions = ("NHWC", "HWIO", "NHWC")

        @jax.jit
        def both(x, kernel):
            blocks = over_blocks(x, kernel, stride=stride, padding=padding)
            assert blocks[1].shape[2] == stride**2 * channels
            found = lax.conv_general_dilated(*blocks, (1, 1), "VALID", dimension_numbers=dimensions)
            return found, lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=dimensions)

        found, expected = both(x, kernel)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_convolution_with_a_kernel_for_each_place(seed: int, dtype: str):
    random = np.random.default_rng(seed)
    window, stride, *sizes = (int(random.integers(1, high)) for high in (5, 4, 8, 8))
    size = [window + size for size in sizes]
    padding = [(int(random.integers(window)), int(random.integers(window))) for _ in range(2)]
    places = [1 + (n + sum(sides) - window) // stride for n, sides in zip(size, padding, strict=True)]
    with jax.enable_x64(True):
        x = jnp.asarray(random.standard_normal((2, *size, 3)), dtype)
        kernel = jnp.asarray(random.standard_normal((*places, 3 * window**2, 4)), dtype)

        def ours(x, kernel):
            return local_convolution(x, kernel, window=window, stride=stride, padding=padding)

        def library(x, kernel):
            numbers = ("NHWC", "HWIO", "NHWC")
            return lax.conv_general_dilated_local(
                x, kernel, (stride,) * 2, padding, (window,) * 2, dimension_numbers=numbers
            )

        @jax.jit
        def both(x, kernel, dy):
            y, pull = jax.vjp(ours, x, kernel)
            exact = (each.astype("float64") for each in (x, kernel))
            expected, expected_pull = jax.vjp(library, *exact)
            return (y, *pull(dy)), (expected, *expected_pull(dy.astype("float64")))

        dy = jnp.asarray(random.standard_normal(jax.eval_shape(ours, x, kernel).shape), dtype)
        for got, want in zip(*both(x, kernel, dy), strict=True):
            assert got.dtype == dtype
            tolerance = {"float64": 1e-12, "bfloat16": 0.03}[dtype]
            np.testing.assert_allclose(got.astype("float64"), want, rtol=tolerance, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize(
    ("window", "stride", "padding"),
    [
        ((3, 3), 1, [(-1, 0), (-1, 0)]),
        ((3, 2), 1, [(1, 0)] * 2),
        ((3, 3), 1, [(1, 1), (0, 1)]),
        ((4, 4), 1, [(1, 0)] * 2),
        ((1, 1), 1, [(0, 0)] * 2),
        ((3, 3), 2, [(1, 0)] * 2),  # two blocks a side
        ((5, 5), 2, [(1, 0)] * 2),  # three blocks of 4 x 68 numbers
    ],
)
def test_a_geometry_that_the_c_kernels_do_not_cover_takes_the_plain_form(window, stride, padding):
    channels = 68 if stride == 2 else 6
    x, kernel = draw_array(2, 8, 9, channels, seed=0), draw_array(*window, channels, 4, seed=1)
    convolve = functools.partial(convolution, stride=stride, padding=padding)
    y, dy, *gradients = value_and_gradients("plain", convolve, x, kernel, names=[])
    cut = [-min(0, before) for before, _ in padding]
    padding = [(max(0, before), after) for before, after in padding]
    inner = x[:, cut[0] :, cut[1] :].astype(np.float64)
    check(y, formulas.convolution(inner, kernel, stride=stride, padding=padding), 1e-6)
    dx, dkernel = formulas.convolution_gradients(inner, kernel, dy, stride=stride, padding=padding)
    check(gradients[0][:, cut[0] :, cut[1] :], dx, 1e-6)
    check(gradients[1], dkernel, 1e-6)


@pytest.mark.parametrize("form", ["c", "plain"], indirect=True)
def test_a_convolution_of_no_images_and_its_gradient(form: str):
    x, kernel = draw_array(0, 7, 6, 4, seed=0), draw_array(3, 3, 4, 5, seed=1)
    convolve = functools.partial(convolution, stride=1, padding=[(1, 1)] * 2)
    y, pull = jax.vjp(convolve, jnp.asarray(x), jnp.asarray(kernel))
    assert y.shape == (0, 7, 6, 5)
    assert not pull(y)[1].any()


@pytest.mark.parametrize("form", ["c"], indirect=True)
def test_gradients_have_the_same_bits_in_every_order_of_the_threads(form: str):
    x, dy = draw_array(37, 13, 13, 24, seed=0), draw_array(37, 13, 13, 40, seed=1)
    kernel = draw_array(3, 3, 24, 40, seed=2)

    @jax.jit
    def gradient(x, kernel, dy):
        return jax.vjp(functools.partial(convolution, stride=1, padding=[(1, 1)] * 2), x, kernel)[1](dy)

    first = gradient(x, kernel, dy)
    for _ in range(30):
        for a, b in zip(first, gradient(x, kernel, dy), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("form", ["c"], indirect=True)
@pytest.mark.parametrize("layout", [(1, 2), (2, 2)])
def test_images_that_all_towers_have_get_the_sum_of_their_gradients(form: str, layout: tuple[int, int]):
    """Under `shard_map` the result of a C kernel varies over the axes over which the plain form's does."""
    mesh = sharding.make_mesh(data=layout[0], tower=layout[1])
    x, kernels = draw_array(4, 9, 8, 3, seed=0), draw_array(2, 3, 3, 3, 5, seed=1)
    images, towers = PartitionSpec(DATA), PartitionSpec(TOWER)

    def gradient(convolve: Callable) -> Callable:
        def one_tower(x, kernel):
            return convolve(x, kernel[0])[None]

        both = jax.shard_map(one_tower, mesh=mesh, in_specs=(images, towers), out_specs=PartitionSpec(TOWER, DATA))
        return jax.jit(jax.grad(lambda x, kernels: jnp.sin(both(x, kernels)).sum(), argnums=(0, 1)))

    def by_lax(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    in_c = gradient(functools.partial(convolution, stride=1, padding=[(1, 1)] * 2))
    assert "@alexnet_jax_convolution_kernel_gradient(" in in_c.lower(x, kernels).as_text()
    for a, b in zip(in_c(x, kernels), gradient(by_lax)(x, kernels), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["c", "plain"], indirect=True)
def test_the_network_in_training_calls_every_kernel(form: str):
    tower = make_tower("original", num_classes=6, width=0.1)
    forward = make_forward(tower, sharding.make_mesh(data=1, tower=1, devices=jax.devices()[:1]))
    params = jax.eval_shape(lambda key: init_params(tower, key, 96), jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda params, images: forward(params, {}, images)[0].sum()))
    text = gradient.lower(params, jax.ShapeDtypeStruct((2, 96, 96, 3), jnp.float32)).as_text()
    called = [name for name in build.OPERATIONS if f"@{build.target(name)}(" in text]
    assert called == (list(build.OPERATIONS) if form == "c" else [])


# ---- norms -----------------------------------------------------------------------------------------------------------


def draw_norm() -> dict:
    kind = str(rng.choice(["response_norm", "spatial_norm"]))
    shape = rng.integers(1, 6), rng.integers(1, 10), rng.integers(1, 10), rng.integers(1, 41)
    return dict(kind=kind, shape=tuple(map(int, shape)), size=int(rng.choice([1, 3, 5, 7])), beta=0.75)


def norm_case(kind: str, shape: tuple, size: int, beta: float = 0.75) -> dict:
    return dict(kind=f"{kind}_norm", shape=shape, size=size, beta=beta)


@cases(
    [
        norm_case("response", (2, 27, 27, 128), 5),
        norm_case("spatial", (2, 27, 27, 128), 5),
        norm_case("response", (1, 2, 1, 2000), 5),  # more channels than a block of the C kernel holds
        norm_case("spatial", (1, 2, 3, 2), 7),  # a window larger than the map
        norm_case("response", (2, 3, 2, 7), 5, beta=0.5),
        norm_case("spatial", (2, 6, 5, 3), 3, beta=0.5),
    ],
    draw_norm,
    c=8,
    plain=2,
    plain64=2,
)
def test_a_norm_and_its_gradient(form: str, case: dict):
    kind, constants = case["kind"], NORM | dict(size=case["size"], beta=case["beta"])
    names = [kind, f"{kind}_gradient"] if case["beta"] == 0.75 else []
    normalise = functools.partial(getattr(layers, kind), **constants)
    x = draw_array(*case["shape"], seed=0, scale=10)
    y, dy, dx = value_and_gradients(form, normalise, x, names=names)
    x = x.astype(np.float64)
    tolerance = 1e-12 if form == "plain64" else 1e-6
    check(y, formulas.norm(x, kind=kind, **constants), tolerance)
    check(dx, formulas.norm_gradient(x, dy, kind=kind, **constants), tolerance)


@pytest.mark.parametrize("form", ["c", "plain"], indirect=True)
def test_a_pixel_that_is_not_a_number_stays_alone_in_a_norms_gradient(form: str):
    x = draw_array(1, 1, 90, 4, seed=0)
    x[0, 0, 3, 2] = np.nan
    norm = functools.partial(layers.response_norm, size=5, beta=0.75, **NORM)
    (gradient,) = jax.jit(lambda x: jax.vjp(norm, x)[1](jnp.ones_like(x)))(x)
    np.testing.assert_array_equal(np.isnan(gradient).any(axis=(0, 1, 3)), np.arange(90) == 3)


# ---- pooling ---------------------------------------------------------------------------------------------------------


def draw_pool() -> dict:
    shape = tuple(int(n) for n in (rng.integers(1, 6), rng.integers(4, 13), rng.integers(4, 13), rng.integers(1, 41)))
    size, stride = rng.integers(1, 5, 2)
    return dict(shape=shape, size=int(size), stride=int(stride), ties=bool(rng.integers(2)))


@cases(
    [
        dict(shape=(2, 13, 8, 48), size=3, stride=2, ties=True),  # as in 2012; windows hang over the right border
        dict(shape=(2, 8, 13, 5), size=3, stride=2, ties=False),
        dict(shape=(1, 10, 11, 3), size=2, stride=4, ties=False),
        dict(shape=(1, 9, 7, 3), size=4, stride=3, ties=True),
        dict(shape=(1, 4, 3, 5), size=1, stride=2, ties=False),  # a window lies outside of the image
    ],
    draw_pool,
    c=10,
    plain=2,
    plain64=2,
)
def test_max_pool_and_its_gradient(form: str, case: dict):
    geometry = dict(size=case["size"], stride=case["stride"])
    x = np.random.default_rng(0).integers(0, 3, case["shape"]) if case["ties"] else draw_array(*case["shape"], seed=0)
    x = (x - 3).astype(np.float32)  # mostly below a border of zeros
    pool = functools.partial(layers.max_pool, **geometry)
    y, dy, dx = value_and_gradients(form, pool, x, names=["max_pool", "max_pool_gradient"])
    x = x.astype(np.float64)
    lowest = float(np.finfo(np.float64 if form == "plain64" else np.float32).min)
    np.testing.assert_array_equal(y, formulas.max_pool(x, **geometry, lowest=lowest))
    check(dx, formulas.max_pool_gradient(x, dy, **geometry), 1e-12 if form == "plain64" else 1e-6)


@pytest.mark.parametrize("form", FORMS, indirect=True)
@pytest.mark.parametrize("height", [9, 10])
def test_max_pool_of_whole_windows_alone(form: str, height: int):
    x = draw_array(2, height, 12, 5, seed=0)
    pool = functools.partial(layers.max_pool, size=3, stride=2, round_down=True)
    y, dy, dx = value_and_gradients(form, pool, x, names=["max_pool", "max_pool_gradient"])
    seen = x[:, :9, :11].astype(np.float64)
    np.testing.assert_array_equal(y, formulas.max_pool(seen, size=3, stride=2, lowest=-np.inf))
    check(dx[:, :9, :11], formulas.max_pool_gradient(seen, dy, size=3, stride=2), 1e-6)
    assert not dx[:, 9:].any() and not dx[:, :, 11:].any()


@pytest.mark.parametrize("length", [1, 4, 6, 7, 13])
def test_means_over_windows_that_cover_the_maps(length: int):
    x = draw_array(2, length, length + 1, 3, seed=0)
    y = layers.adaptive_average_pool(jnp.asarray(x), 6)
    for i, j in np.ndindex(6, 6):
        rows, columns = (slice(k * n // 6, -(-(k + 1) * n // 6)) for k, n in ((i, length), (j, length + 1)))
        np.testing.assert_allclose(y[:, i, j], x[:, rows, columns].mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["c", "plain"], indirect=True)
@pytest.mark.parametrize("pixel", [0, 4, 8])
def test_a_pixel_that_is_not_a_number_makes_its_maximum_none(form: str, pixel: int):
    x = np.zeros((1, 3, 3, 20), np.float32)
    x.reshape(9, 20)[pixel, 7] = np.nan
    pooled = jax.jit(functools.partial(layers.max_pool, size=3, stride=2))(x)
    np.testing.assert_array_equal(np.isnan(pooled[0, 0, 0]), np.arange(20) == 7)


@pytest.mark.parametrize("form", ["c", "plain"], indirect=True)
def test_a_window_of_minus_infinity_keeps_it(form: str):
    x = jnp.full((1, 3, 3, 2), -jnp.inf)
    y, pull = jax.vjp(jax.jit(functools.partial(layers.max_pool, size=3, stride=2)), x)
    assert (y == -jnp.inf).all()
    assert (pull(jnp.ones_like(y))[0] == 1).all()


# ---- the formulas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["response_norm", "spatial_norm", "max_pool", "convolution", "kernel"])
def test_the_gradients_of_the_formulas_are_their_derivatives(kind: str):
    """By central differences along a random direction."""
    draws = np.random.default_rng(1)
    x, kernel = draws.standard_normal((2, 6, 5, 4)), draws.standard_normal((3, 2, 4, 3))
    norm, pool = dict(kind=kind, size=3, k=2.0, alpha=0.1, beta=0.75), dict(size=3, stride=2)
    geometry = dict(stride=2, padding=[(1, 2), (0, 1)])
    value, gradient, at = {
        "response_norm": (lambda x: formulas.norm(x, **norm), lambda x, dy: formulas.norm_gradient(x, dy, **norm), x),
        "spatial_norm": (lambda x: formulas.norm(x, **norm), lambda x, dy: formulas.norm_gradient(x, dy, **norm), x),
        "max_pool": (
            lambda x: formulas.max_pool(x, **pool, lowest=-np.inf),
            lambda x, dy: formulas.max_pool_gradient(x, dy, **pool),
            x,
        ),
        "convolution": (
            lambda x: formulas.convolution(x, kernel, **geometry),
            lambda x, dy: formulas.convolution_gradients(x, kernel, dy, **geometry)[0],
            x,
        ),
        "kernel": (
            lambda kernel: formulas.convolution(x, kernel, **geometry),
            lambda kernel, dy: formulas.convolution_gradients(x, kernel, dy, **geometry)[1],
            kernel,
        ),
    }[kind]
    direction, dy, step = draws.standard_normal(at.shape), draws.standard_normal(value(at).shape), 1e-6
    difference = ((value(at + step * direction) - value(at - step * direction)) / (2 * step) * dy).sum()
    assert (gradient(at, dy) * direction).sum() == pytest.approx(difference, rel=1e-7)


# ---- blocks ----------------------------------------------------------------------------------------------------------


LAYER_1 = blocks.Block(False, 5, 2.0, 0.01, 0.75, (3, 2), True, round_down=False, operations=0)


def draw_block() -> dict:
    shape = tuple(int(n) for n in (rng.integers(1, 4), rng.integers(4, 13), rng.integers(4, 13), rng.integers(1, 41)))
    size, (pool, stride), rectify, rectify_pooled = (
        rng.choice([1, 3, 5, 7]),
        rng.integers(1, 5, 2),
        *rng.integers(2, size=2),
    )
    return block_case(shape, int(size), (int(pool), int(stride)), bool(rectify), bool(rectify_pooled))


def block_case(shape: tuple, size: int, pool: tuple, rectify: bool, rectify_pooled: bool) -> dict:
    return dict(shape=shape, size=size, pool=pool, rectify=rectify, rectify_pooled=rectify_pooled)


@cases(
    [
        block_case((2, 55, 55, 48), 5, (3, 2), False, True),  # layer 1
        block_case((3, 13, 12, 20), 5, (3, 2), True, False),
        block_case((2, 9, 8, 7), 3, (2, 3), True, True),
    ],
    draw_block,
    c=8,
    plain=1,
    plain64=1,
)
def test_bias_norm_and_pooling_as_one_operation(form: str, case: dict):
    block = blocks.Block(
        case["rectify"], case["size"], NORM["k"], NORM["alpha"], 0.75, case["pool"], case["rectify_pooled"],
        round_down=False, operations=0,
    )  # fmt: skip
    x, bias = draw_array(*case["shape"], seed=0, scale=10), draw_array(case["shape"][-1], seed=1)
    y, dy, dx, dbias = value_and_gradients(
        form, lambda x, bias: blocks.run(x, bias, block)[0], x, bias, names=["norm_pool", "norm_pool_gradient"]
    )
    x = (x + bias).astype(np.float64)  # as rounded in float32
    constants = NORM | dict(kind="response_norm", size=case["size"], beta=0.75)
    pooling = dict(size=case["pool"][0], stride=case["pool"][1])
    rectified = np.maximum(x, 0) if case["rectify"] else x
    normed = formulas.norm(rectified, **constants)
    pooled = formulas.max_pool(normed, **pooling, lowest=float(np.finfo(np.float32).min))
    tolerance = 2e-6 if form != "plain64" else 1e-7  # the sum of x and bias is rounded
    check(y, np.maximum(pooled, 0) if case["rectify_pooled"] else pooled, tolerance)
    passed = np.where(pooled > 0, dy, 0) if case["rectify_pooled"] else dy
    expected = formulas.norm_gradient(rectified, formulas.max_pool_gradient(normed, passed, **pooling), **constants)
    expected = np.where(x > 0, expected, 0) if case["rectify"] else expected
    check(dx, expected, tolerance)
    check(dbias, expected.sum((0, 1, 2)), 10 * tolerance)


@pytest.mark.parametrize("form", ["c", "plain"], indirect=True)
def test_what_is_not_a_number_stays_so_in_a_block(form: str):
    block = LAYER_1._replace(rectify=True)
    x = draw_array(1, 9, 9, 8, seed=0)
    x[0, 4, 4, 3] = np.nan
    y = jax.jit(lambda x: blocks.run(x, jnp.zeros(8), block)[0])(x)
    # Around the pixel's window, and in the channels whose norm sees it.
    np.testing.assert_array_equal(np.isnan(y).any(axis=(0, 3)), np.pad(np.ones((2, 2), bool), 1))
    np.testing.assert_array_equal(np.isnan(y).any(axis=(0, 1, 2)), (np.arange(8) > 0) & (np.arange(8) < 6))


@pytest.mark.parametrize("form", ["c", "plain"], indirect=True)
def test_no_gradient_passes_where_a_block_rectifies_zeros(form: str):
    (dx,) = jax.jit(lambda x: jax.vjp(lambda x: blocks.run(x, jnp.zeros(8), LAYER_1)[0], x)[1](jnp.ones((1, 4, 4, 8))))(
        jnp.zeros((1, 9, 9, 8))
    )
    assert not dx.any()


def test_blocks_that_no_c_kernel_covers():
    if build.load().platform != "cpu":
        pytest.skip(build.load().line)
    x = jax.ShapeDtypeStruct((2, 9, 9, 8), jnp.float32)
    assert blocks.fits(x, LAYER_1)
    for change in (dict(beta=0.5), dict(pool=None), dict(round_down=True), dict(groups=2)):
        assert not blocks.fits(x, LAYER_1._replace(**change))
    assert not blocks.fits(x.update(dtype=jnp.bfloat16), LAYER_1)
    with build.plain_form():
        assert not blocks.fits(x, LAYER_1)


@pytest.mark.parametrize("form", ["c", "plain"], indirect=True)
def test_a_block_of_no_images(form: str):
    y, pull = jax.vjp(lambda x, bias: blocks.run(x, bias, LAYER_1)[0], jnp.zeros((0, 9, 9, 8)), jnp.ones(8))
    assert y.shape == (0, 4, 4, 8)
    dx, dbias = pull(y)
    assert dx.shape == (0, 9, 9, 8) and not dbias.any()
