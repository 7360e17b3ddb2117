"""The faster forms of operations against their plain ones: values and gradients in float64, at any geometry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from jax import lax

from alexnet_jax.network import layers

few = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
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
def test_the_gradient_of_max_pool(height, width, size, stride, ties):
    with jax.enable_x64(True):
        x = draw(2, height, width, 2, seed=0, levels=3 if ties else 0)
        y, dx, dy = values_and_gradients(lambda x: layers.max_pool(x, size=size, stride=stride), x)
        pixels, shares, expected = np.asarray(x), np.asarray(dy), np.zeros(x.shape)
        for i, j in np.ndindex(*y.shape[1:3]):
            place = np.s_[:, i * stride : i * stride + size, j * stride : j * stride + size]
            if pixels[place].size:
                at_maximum = pixels[place] == pixels[place].max((1, 2), keepdims=True)
                expected[place] += at_maximum * shares[:, i : i + 1, j : j + 1]
        np.testing.assert_allclose(dx, expected, rtol=1e-12, atol=1e-12)


@few
@given(
    shape=some.tuples(sizes, sizes, some.integers(1, 9)),
    size=some.sampled_from([1, 3, 5, 7]),
    spatial=some.booleans(),
    beta=some.sampled_from([0.75, 0.5]),
)
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
