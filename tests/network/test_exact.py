"""The faster forms of operations against their plain ones: values and gradients in float64, at any geometry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from jax import lax

from alexnet_jax.network import layers

few = settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
sizes = some.integers(3, 12)


def draw(*shape: int, seed: int, levels: int = 0) -> jax.Array:
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(0, levels, shape) if levels else rng.standard_normal(shape), jnp.float64)


@functools.partial(jax.jit, static_argnums=0)
def values_and_gradients(operation, *arguments):
    """The result, the gradients for a random gradient of the result, and that one."""
    y, pull = jax.vjp(operation, *arguments)
    dy = jax.random.normal(jax.random.key(3), y.shape, y.dtype)
    return y, *pull(dy), dy


def both(own, plain, *arguments):
    return zip(values_and_gradients(own, *arguments), values_and_gradients(plain, *arguments), strict=True)


@few
@given(height=sizes, width=sizes, size=some.integers(1, 4), stride=some.integers(1, 4), ties=some.booleans())
@example(height=13, width=8, size=3, stride=2, ties=False)  # as in 2012; the last column's window is cut
@example(height=8, width=13, size=3, stride=2, ties=True)
@example(height=9, width=7, size=4, stride=3, ties=False)
@example(height=10, width=11, size=2, stride=4, ties=False)
def test_max_pool_and_its_gradient(height, width, size, stride, ties):
    with jax.enable_x64(True):
        x = draw(2, height, width, 2, seed=0, levels=3 if ties else 0) - 3  # mostly below what a border might add
        y, dx, dy = values_and_gradients(lambda x: layers.max_pool(x, size=size, stride=stride), x)
        pixels, shares, expected = np.asarray(x), np.asarray(dy), np.zeros(x.shape)
        for i, j in np.ndindex(*y.shape[1:3]):
            place = np.s_[:, i * stride : i * stride + size, j * stride : j * stride + size]
            if pixels[place].size:
                maximum = pixels[place].max((1, 2), keepdims=True)
                np.testing.assert_array_equal(y[:, i : i + 1, j : j + 1], maximum)
                expected[place] += (pixels[place] == maximum) * shares[:, i : i + 1, j : j + 1]
        np.testing.assert_allclose(dx, expected, rtol=1e-12, atol=1e-12)


@few
@given(
    shape=some.tuples(sizes, sizes, some.integers(1, 9)),
    size=some.sampled_from([1, 3, 5, 7]),
    spatial=some.booleans(),
    beta=some.sampled_from([0.75, 0.5]),
)
@example(shape=(5, 4, 9), size=5, spatial=False, beta=0.75)
@example(shape=(7, 6, 2), size=5, spatial=True, beta=0.75)
def test_a_norm_and_its_gradient(shape, size, spatial, beta):
    axes = (1, 2) if spatial else (3,)

    def plain(x):
        window = [size if axis in axes else 1 for axis in range(4)]
        padding = [(size // 2, size // 2) if axis in axes else (0, 0) for axis in range(4)]
        return x / (2 + 0.01 * lax.reduce_window(x * x, 0.0, lax.add, window, (1,) * 4, padding)) ** beta

    norm = layers.spatial_norm if spatial else layers.response_norm
    with jax.enable_x64(True):
        x = 10 * draw(2, *shape, seed=0)
        for actual, expected in both(lambda x: norm(x, size=size, k=2.0, alpha=0.01, beta=beta), plain, x):
            np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)
