"""A convolution a tower against the grouped one of `vmap`, in float64: values and both gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from alexnet_jax.network.convolution import convolution


def plain(x, kernel, *, stride, padding):
    """JAX's own."""
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("shared", [True, False], ids=["one image", "an image a tower"])
@pytest.mark.parametrize(
    ("size", "window", "stride", "padding"), [(9, 3, 1, (1, 1)), (11, 5, 2, (2, 3)), (13, 11, 4, (0, 2))]
)
def test_it_is_that_of_lax(size: int, window: int, stride: int, padding: tuple[int, int], shared: bool):
    with jax.enable_x64(True):
        rng = np.random.default_rng(size)
        x = jnp.asarray(rng.normal(size=(2, size, size, 3) if shared else (2, 2, size, size, 3)))
        kernel = jnp.asarray(rng.normal(size=(2, window, window, 3, 4)))
        axes = (None if shared else 0, 0)

        def loss(x, kernel, convolve):
            one = functools.partial(convolve, stride=stride, padding=(padding, padding))
            return jnp.sum(jnp.sin(jax.vmap(one, in_axes=axes)(x, kernel)))

        expected = jax.value_and_grad(functools.partial(loss, convolve=plain), (0, 1))(x, kernel)
        found = jax.value_and_grad(functools.partial(loss, convolve=convolution), (0, 1))(x, kernel)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
