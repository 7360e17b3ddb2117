import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.errors import UsageError
from alexnet_jax.network import blocks, layers
from alexnet_jax.network.convolution import local_convolution


def test_an_even_norm_window_is_refused():
    with pytest.raises(UsageError, match="odd to have a centre, not 4"):
        layers.response_norm(jnp.ones((1, 2, 2, 3)), size=4, k=2.0, alpha=2e-3, beta=0.75)


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_of_a_relu_is_that_of_jax_and_keeps_the_result_alone(dtype: str):
    x = jnp.asarray([-np.inf, -2, -1e-30, -0.0, 0.0, 1e-30, 3, np.inf], dtype)
    (y, pull), (expected, expected_pull) = jax.vjp(layers.relu, x), jax.vjp(jax.nn.relu, x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(pull(x + 5)[0], expected_pull(x + 5)[0])
    kept = jax.tree.leaves(pull)
    assert [np.array_equal(array, y) for array in kept] == [True]


def test_a_bias_is_added_in_the_type_of_the_maps_and_its_gradient_is_summed_in_its_own():
    x, bias = jnp.zeros((3, 500, 2), "bfloat16"), jnp.asarray([1 + 2**-12, -3.0])
    y, pull = jax.vjp(blocks.add_bias, x, bias)
    assert y.dtype == "bfloat16"
    np.testing.assert_array_equal(y[0, 0].astype("float32"), [1, -3])
    dx, gradient = pull(jnp.ones_like(y))
    assert (dx.dtype, gradient.dtype) == ("bfloat16", "float32")
    np.testing.assert_array_equal(gradient, [1500, 1500])  # a sum in bfloat16 stops at 256


def test_dropout_masks_in_training_and_scales_at_test():
    x = jnp.ones((100, 200), jnp.float32)
    mask = layers.dropout_mask(jax.random.key(0), jnp.arange(100), 200, 0.7)
    kept = layers.dropout(x, 0.7, mask)
    assert set(np.unique(kept)) == {0.0, 1.0}
    assert abs(float(kept.mean()) - 0.7) < 0.01
    np.testing.assert_array_equal(layers.dropout(x, 0.7, None), np.full((100, 200), 0.7, np.float32))


def test_the_sum_over_a_window_is_taken_in_float32():
    x = jnp.ones((1, 4, 4, 1), "bfloat16")
    kernel = jnp.ones((1, 1, 16, 1), "bfloat16").at[0, 0, 0].set(256)
    y = local_convolution(x, kernel, window=4, stride=1, padding=[(0, 0)] * 2)
    assert float(y[0, 0, 0, 0]) == 272  # 271, rounded once; in bfloat16 256 + 1 stays 256
