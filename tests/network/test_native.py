"""The CPU's own operations in float32 against JAX's plain ones in float64, at any geometry, and how they are built."""

import ctypes
import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as some
from jax.sharding import PartitionSpec

from alexnet_jax.network import forward as forwards
from alexnet_jax.network import layers, native, sharding
from alexnet_jax.network.convolution import convolution
from alexnet_jax.network.tower import TOWER, make_tower
from tests.conftest import ROOT

few = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
NORM = dict(k=2.0, alpha=0.01, beta=0.75)


def draw(*shape: int, seed: int, levels: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, levels, shape) if levels else rng.standard_normal(shape)).astype(np.float32)


def values_and_gradients(operation, *arguments):
    """The result, and the gradients for a given gradient of the result."""

    @jax.jit
    def run(*arguments):
        y, pull = jax.vjp(operation, *arguments)
        dy = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return y, *pull(dy)

    return run(*arguments), run.lower(*arguments).as_text()


def check(operation, *arguments: np.ndarray, names: list[str], tolerance: float) -> None:
    """Root mean square of the difference, relative to that of what is expected; and that C served at all."""
    found, text = values_and_gradients(operation, *arguments)
    for name in names:
        assert f"@alexnet_jax_{name}(" in text
    with jax.enable_x64(True):
        expected, text = values_and_gradients(operation, *(jnp.asarray(a, jnp.float64) for a in arguments))
        assert "@alexnet_jax_" not in text, "a test of C against C"
    for own, plain in zip(found, expected, strict=True):
        assert own.shape == plain.shape
        plain = np.asarray(plain)
        assert np.isfinite(own).all()
        assert np.sqrt(np.mean((own - plain) ** 2)) <= tolerance * np.sqrt(np.mean(plain**2))


@few
@given(
    images=some.integers(1, 9),
    height=some.integers(6, 15),
    width=some.integers(6, 15),
    channels=some.integers(1, 40),
    maps=some.integers(1, 70),
    window=some.sampled_from([1, 2, 3, 4, 5]),
    stride=some.integers(1, 3),
    before=some.integers(0, 4),
    after=some.integers(0, 3),
)
@example(images=2, height=27, width=27, channels=48, maps=128, window=5, stride=1, before=2, after=2)  # conv2
@example(images=13, height=13, width=13, channels=64, maps=48, window=3, stride=1, before=1, after=1)  # conv3
@example(images=3, height=56, width=60, channels=3, maps=48, window=11, stride=4, before=0, after=3)  # conv1
@example(images=5, height=6, width=9, channels=17, maps=33, window=3, stride=1, before=0, after=2)
@example(images=1, height=7, width=6, channels=5, maps=7, window=5, stride=1, before=4, after=0)
@example(images=4, height=9, width=9, channels=1, maps=1, window=3, stride=2, before=2, after=1)
def test_a_convolution_and_its_gradients(images, height, width, channels, maps, window, stride, before, after):
    before = min(before, window - 1)
    x = draw(images, height, width, channels, seed=0)
    kernel = draw(window, window, channels, maps, seed=1)
    convolve = functools.partial(convolution, stride=stride, padding=[(before, after), (before, after)])
    # Winograd's transforms round more than a sum does, but no more than some hundred of its terms.
    check(convolve, x, kernel, names=["convolution", "convolution_gradient"], tolerance=5e-6)


def test_a_convolution_mapped_twice_and_one_of_nothing():
    x, kernel = map(jnp.asarray, (draw(2, 3, 1, 7, 6, 4, seed=0), draw(2, 3, 3, 4, 5, seed=1)))
    convolve = functools.partial(convolution, stride=1, padding=[(1, 1)] * 2)
    both = jax.jit(jax.vmap(jax.vmap(convolve, in_axes=(0, None))))
    assert "@alexnet_jax_convolution(" in both.lower(x, kernel).as_text()
    for i, j in np.ndindex(2, 3):
        np.testing.assert_allclose(both(x, kernel)[i, j], convolve(x[i, j], kernel[i]), rtol=1e-5, atol=1e-5)
    (gradient,) = jax.vjp(functools.partial(convolve, x[0, 0, :0]), kernel[0])[1](jnp.zeros((0, 7, 6, 5)))
    assert not gradient.any()


def test_a_convolution_that_cuts_the_image():
    x, kernel = map(jnp.asarray, (draw(2, 8, 8, 16, seed=0), draw(3, 3, 16, 4, seed=1)))
    cut = jax.jit(functools.partial(convolution, stride=1, padding=[(-1, 0)] * 2))
    np.testing.assert_allclose(
        cut(x, kernel), convolution(x[:, 1:, 1:], kernel, stride=1, padding=[(0, 0)] * 2), rtol=1e-4, atol=1e-4
    )


@few
@given(
    shape=some.tuples(some.integers(1, 5), some.integers(1, 9), some.integers(1, 9), some.integers(1, 40)),
    size=some.sampled_from([1, 3, 5, 7]),
    spatial=some.booleans(),
)
@example(shape=(2, 27, 27, 128), size=5, spatial=False)
@example(shape=(2, 27, 27, 128), size=5, spatial=True)
@example(shape=(1, 2, 1, 2000), size=5, spatial=False)  # more channels than a block holds
@example(shape=(1, 2, 3, 2), size=7, spatial=True)  # a window larger than the map
def test_a_norm_and_its_gradient(shape, size, spatial):
    norm, name = (layers.spatial_norm, "spatial_norm") if spatial else (layers.response_norm, "response_norm")
    normalise = functools.partial(norm, size=size, **NORM)
    check(normalise, 10 * draw(*shape, seed=0), names=[name, f"{name}_gradient"], tolerance=1e-6)


@few
@given(
    shape=some.tuples(some.integers(1, 5), some.integers(4, 12), some.integers(4, 12), some.integers(1, 40)),
    size=some.integers(1, 4),
    stride=some.integers(1, 4),
    ties=some.booleans(),
)
@example(shape=(2, 13, 8, 48), size=3, stride=2, ties=True)
@example(shape=(2, 8, 13, 5), size=3, stride=2, ties=False)
def test_max_pool_and_its_gradient(shape, size, stride, ties):
    assume(all((layers.output_size(n, window=size, stride=stride) - 1) * stride < n for n in shape[1:3]))
    pool = functools.partial(layers.max_pool, size=size, stride=stride)
    x = draw(*shape, seed=0, levels=3 if ties else 0) - 3
    check(pool, x, names=["max_pool", "max_pool_gradient"], tolerance=1e-6)


def test_the_whole_network_and_its_gradient_at_full_size():
    tower = make_tower("original", num_classes=6, width=0.25, he_init=True)
    mesh = sharding.make_mesh(data=1, tower=1, devices=jax.devices()[:1])
    params = jax.jit(lambda key: forwards.init_params(tower, key, 224))(jax.random.key(0))
    images = 20 * draw(2, 224, 224, 3, seed=0)

    @jax.jit
    def loss_and_gradient(params, images):
        forward = forwards.make_forward(tower, mesh)
        return jax.value_and_grad(lambda params: jnp.sin(forward(params, {}, images)[0]).sum())(params)

    loss, gradient = loss_and_gradient(params, images)
    assert "@alexnet_jax_convolution(" in loss_and_gradient.lower(params, images).as_text()
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (params, images))
        expected_loss, expected = loss_and_gradient(*wide)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-4)
    for own, plain in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        own, plain = np.asarray(own), np.asarray(plain)
        assert np.linalg.norm(own - plain) < 1e-4 * np.linalg.norm(plain)


def test_a_window_beyond_the_border_has_the_lowest_number():
    pooled = jax.jit(functools.partial(layers.max_pool, size=1, stride=2))(draw(1, 4, 3, 5, seed=0))
    assert pooled.shape == (1, 3, 2, 5)
    assert (pooled[:, 2] == np.finfo(np.float32).min).all()


def test_a_window_of_what_is_below_all_numbers():
    x = jnp.full((1, 3, 3, 2), -jnp.inf)
    y, pull = jax.vjp(jax.jit(functools.partial(layers.max_pool, size=3, stride=2)), x)
    assert (y == -jnp.inf).all()
    assert (pull(jnp.ones_like(y))[0] == 1).all()


@pytest.mark.parametrize("place", [0, 4, 8])
def test_what_is_not_a_number_goes_through_pooling(place: int):
    x = np.zeros((1, 3, 3, 20), np.float32)
    x.reshape(9, 20)[place, 7] = np.nan
    pooled = jax.jit(functools.partial(layers.max_pool, size=3, stride=2))(x)
    np.testing.assert_array_equal(np.isnan(pooled[0, 0, 0]), np.arange(20) == 7)


def test_what_is_not_a_number_stays_at_its_pixel_in_a_norms_gradient():
    x = draw(1, 1, 90, 4, seed=0)
    x[0, 0, 3, 2] = np.nan
    norm = functools.partial(layers.response_norm, size=5, **NORM)
    (gradient,) = jax.jit(lambda x: jax.vjp(norm, x)[1](jnp.ones_like(x)))(x)
    np.testing.assert_array_equal(np.isnan(gradient).any(axis=(0, 1, 3)), np.arange(90) == 3)


def test_gradients_have_the_same_bits_however_the_threads_take_turns():
    x, dy = draw(37, 13, 13, 24, seed=0), draw(37, 13, 13, 40, seed=1)
    kernel = draw(3, 3, 24, 40, seed=2)

    @jax.jit
    def gradient(x, kernel, dy):
        return jax.vjp(functools.partial(convolution, stride=1, padding=[(1, 1)] * 2), x, kernel)[1](dy)

    first = gradient(x, kernel, dy)
    for _ in range(30):
        for a, b in zip(first, gradient(x, kernel, dy), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layout_of", [(1, 2), (2, 2)])
def test_images_that_all_towers_have_get_the_sum_of_their_gradients(layout_of: tuple[int, int]):
    mesh = sharding.make_mesh(data=layout_of[0], tower=layout_of[1])
    division = native.Division(mesh, sharding.DATA) if layout_of[0] > 1 else None
    x, kernels = draw(4, 9, 8, 3, seed=0), draw(2, 3, 3, 3, 5, seed=1)

    def loss(x, kernels, convolve):
        def one_tower(x, kernels):
            return convolve(x, kernels[0])[None]

        specs = PartitionSpec(), PartitionSpec(TOWER)
        both = jax.shard_map(one_tower, mesh=mesh, in_specs=specs, out_specs=specs[1], axis_names={TOWER})
        return jnp.sin(both(x, kernels)).sum()

    def by_lax(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    own = functools.partial(convolution, stride=1, padding=[(1, 1)] * 2, division=division)
    x = jax.device_put(x, sharding.batch_sharding(mesh))
    kernels = jax.device_put(kernels, sharding.param_sharding(mesh))
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
    assert "@alexnet_jax_convolution_gradient(" in gradient.lower(x, kernels, own).as_text()
    for a, b in zip(gradient(x, kernels, own), gradient(x, kernels, by_lax), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("compiler", "told"),
    [("/nowhere/cc", "No such file or directory: '/nowhere/cc'"), ("false", "in C: 'false' ended with status 1")],
)
def test_without_a_compiler_the_plain_form_runs_after_one_warning(monkeypatch, compiler: str, told: str):
    x = draw(2, 6, 6, 4, seed=0)
    expected = layers.max_pool(jnp.asarray(x), size=3, stride=2)
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(native, "_known", functools.cache(native._known.__wrapped__))

    def pool():
        run = jax.jit(functools.partial(layers.max_pool, size=3, stride=2))
        assert "@alexnet_jax_" not in run.lower(x).as_text()
        np.testing.assert_array_equal(run(x), expected)

    with pytest.warns(UserWarning, match=f"twice as long.*{told}.*install gcc or clang, or name one in CC"):
        pool()
    pool()  # warnings are errors


@pytest.fixture
def builds(monkeypatch, tmp_path: Path) -> list[str]:
    """What the compiler was asked to make, with an empty folder for what is kept."""
    made: list[str] = []
    told = native._told

    def telling(command: list[str]) -> str:
        made.extend([command[-1]] if "-o" in command else [])
        return told(command)

    monkeypatch.setattr(native, "_told", telling)
    monkeypatch.setattr(native, "_kept_in", lambda: tmp_path / "kept")
    return made


def test_a_library_is_built_once_and_a_damaged_one_again(builds: list[str], monkeypatch, tmp_path: Path):
    for _ in range(2):
        assert isinstance(native._library()["serve_max_pool"], ctypes._CFuncPtr)
        assert len(builds) == 1
    (kept,) = (tmp_path / "kept").iterdir()
    damaged = tmp_path / "damaged" / kept.name  # elsewhere, for what is open under a name is not read again
    damaged.parent.mkdir()
    damaged.write_bytes(b"not a library")
    monkeypatch.setattr(native, "_kept_in", lambda: damaged.parent)
    native._library()
    assert len(builds) == 2
    assert list(damaged.parent.iterdir()) == [damaged]
    assert damaged.stat().st_size == kept.stat().st_size


def test_a_library_that_cannot_be_kept_is_built_all_the_same(builds: list[str], tmp_path: Path):
    (tmp_path / "kept").write_text("a file where a folder would be")
    native._library()
    assert len(builds) == 1


def test_a_change_of_the_sources_is_another_library(builds: list[str], monkeypatch, tmp_path: Path):
    native._library()
    changed = tmp_path / "maps.c"
    changed.write_text((native.FOLDER / "maps.c").read_text() + "\n// changed\n")
    (tmp_path / "work.h").write_text((native.FOLDER / "work.h").read_text())
    monkeypatch.setattr(native, "SOURCES", [changed, native.FOLDER / "convolution.c"])
    native._library()
    assert len(builds) == 2


def test_the_sources_compile_without_a_warning_for_any_width_of_registers(tmp_path: Path):
    """Without AVX-512 and AVX, blocks of other sizes are built; their results are those of a plain sum."""
    if sys.platform != "linux" or not Path("/proc/cpuinfo").read_text().count(" avx512f "):
        pytest.skip("needs a processor with AVX-512 for all three")
    program = """
import functools, sys
import jax, numpy as np
from alexnet_jax.network import native
from alexnet_jax.network.convolution import convolution
native.FLAGS += sys.argv[1:]
rng = np.random.default_rng(0)
x, kernel = rng.standard_normal((3, 9, 8, 7)), rng.standard_normal((3, 3, 7, 50))
def both(x, kernel):
    y, pull = jax.vjp(functools.partial(convolution, stride=1, padding=[(1, 1)] * 2), x, kernel)
    return y, *pull(jax.numpy.cos(y))
own = jax.jit(both)(x.astype(np.float32), kernel.astype(np.float32))
with jax.enable_x64(True):
    plain = jax.jit(both)(x, kernel)
print(*(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(map(np.asarray, own), map(np.asarray, plain))))
"""
    for flags in (["-mno-avx512f"], ["-mno-avx"], []):
        told = subprocess.run(
            [sys.executable, "-c", program, *flags, "-Wall", "-Wextra", "-Werror"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stderr == ""
        assert max(map(float, told.stdout.split())) < 2e-5, flags
