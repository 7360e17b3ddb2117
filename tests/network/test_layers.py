import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from alexnet_jax.errors import UsageError
from alexnet_jax.network import layers

NORM = {"size": 5, "k": 2.0, "alpha": 2e-3, "beta": 0.75}


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def norm_by_loops(x: np.ndarray, *, size: int, k: float, alpha: float, beta: float) -> np.ndarray:
    out = np.empty(x.shape, np.float64)
    channels = x.shape[-1]
    for index in np.ndindex(*x.shape):
        *rest, c = index
        near = [x[(*rest, j)] for j in range(c - size // 2, c + size // 2 + 1) if 0 <= j < channels]
        out[index] = x[index] * (k + alpha * sum(float(v) ** 2 for v in near)) ** -beta
    return out


@pytest.mark.parametrize("channels", [1, 4, 7])
@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_response_norm_is_the_formula(channels: int, beta: float):
    x = random(2, 3, 2, channels, scale=20)
    constants = NORM | {"beta": beta}
    normalised = jax.jit(lambda x: layers.response_norm(x, **constants))(x)
    np.testing.assert_allclose(normalised, norm_by_loops(x, **constants), rtol=2e-6)


def test_spatial_norm_sums_over_a_clipped_square_of_one_map():
    x = random(2, 6, 5, 3, scale=20)
    expected = np.empty(x.shape, np.float64)
    for b, i, j, c in np.ndindex(*x.shape):
        square = x[b, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2, c].astype(np.float64)
        expected[b, i, j, c] = x[b, i, j, c] * (1 + 1e-2 * (square**2).sum()) ** -0.75
    actual = layers.spatial_norm(jnp.asarray(x), size=3, k=1.0, alpha=1e-2, beta=0.75)
    np.testing.assert_allclose(actual, expected, rtol=2e-6)


@pytest.mark.parametrize("operation", [layers.response_norm, layers.spatial_norm])
@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_norm_gradient_is_the_automatic_one(operation, beta: float):
    constants = NORM | {"beta": beta}
    axes = (3,) if operation is layers.response_norm else (1, 2)

    def plain(x):
        window = [5 if axis in axes else 1 for axis in range(4)]
        padding = [(2, 2) if axis in axes else (0, 0) for axis in range(4)]
        total = lax.reduce_window(x * x, 0.0, lax.add, window, (1,) * 4, padding)
        return x / (constants["k"] + constants["alpha"] * total) ** beta

    with jax.enable_x64(True):
        x, dy = (jnp.asarray(random(2, 7, 6, 9, seed=seed, scale=20), jnp.float64) for seed in (1, 2))
        (own,) = jax.jit(lambda x, dy: jax.vjp(lambda x: operation(x, **constants), x)[1](dy))(x, dy)
        (automatic,) = jax.jit(lambda x, dy: jax.vjp(plain, x)[1](dy))(x, dy)
        np.testing.assert_allclose(own, automatic, rtol=1e-10, atol=1e-13)


def test_an_even_norm_window_is_refused():
    with pytest.raises(UsageError, match="odd to have a centre, not 4"):
        layers.response_norm(jnp.ones((1, 2, 2, 3)), **NORM | {"size": 4})


@pytest.mark.parametrize(("height", "width"), [(3, 3), (6, 7), (9, 8)])
@pytest.mark.parametrize("window", [(3, 2), (2, 2), (3, 3), (3, 1)])
def test_max_pool_and_its_gradient_at_any_size(height: int, width: int, window: tuple[int, int]):
    size, stride = window
    x = np.random.default_rng(0).integers(0, 4, (1, height, width, 2)).astype(np.float32)  # many ties
    rows, columns = (int(np.ceil(max(n - size, 0) / stride)) + 1 for n in (height, width))
    out, dx = np.empty((1, rows, columns, 2), np.float32), np.zeros_like(x)
    dy = random(1, rows, columns, 2)
    for i, j, c in np.ndindex(rows, columns, 2):
        place = np.s_[0, i * stride : i * stride + size, j * stride : j * stride + size, c]
        out[0, i, j, c] = x[place].max()
        dx[place] += np.where(x[place] == x[place].max(), dy[0, i, j, c], 0)  # every tied position, undivided

    @jax.jit
    def both(x, dy):
        y, pull = jax.vjp(lambda x: layers.max_pool(x, size=size, stride=stride), x)
        return y, *pull(dy)

    actual, gradient = both(jnp.asarray(x), jnp.asarray(dy))
    np.testing.assert_array_equal(actual, out)
    np.testing.assert_allclose(gradient, dx, rtol=1e-5, atol=1e-5)


def test_sizes_of_the_2012_network():
    def conv(size, window, stride=1, padding=0):
        return layers.output_size(size, window=window, stride=stride, padding=padding)

    assert conv(224, 11, 4) == 55
    assert layers.overhang(224, window=11, stride=4) == (0, 3)
    assert layers.overhang(227, window=11, stride=4) == (0, 0)
    assert conv(55, 3, 2) == 27
    assert conv(27, 5, 1, 2) == 27
    assert conv(27, 3, 2) == 13
    assert conv(13, 3, 2) == 6


def test_dropout_masks_in_training_and_scales_at_test():
    x = jnp.ones((100, 200), jnp.float32)
    mask = layers.dropout_mask(jax.random.key(0), jnp.arange(100), 200, 0.7)
    kept = layers.dropout(x, 0.7, mask)
    assert set(np.unique(kept)) == {0.0, 1.0}
    assert abs(float(kept.mean()) - 0.7) < 0.01
    np.testing.assert_array_equal(layers.dropout(x, 0.7, None), np.full((100, 200), 0.7, np.float32))
