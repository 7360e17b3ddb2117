"""Wrong calls of the registered operations: an error names the operation and the value, and the process lives on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.network.native import build

NORM = dict(size=np.int64(5), k=np.float32(2), alpha=np.float32(0.01))
POOL = dict(size=np.int64(3), stride=np.int64(2))
FLAGS = dict(rectify=np.int64(0), rectify_pooled=np.int64(1))
BLOCK = NORM | dict(pool_size=np.int64(3), pool_stride=np.int64(2)) | FLAGS
CONVOLUTION = dict(stride=np.int64(1), pad=np.int64(1))
X, HALF, SMALL = (2, 9, 8, 6), (2, 4, 4, 6), (2, 9, 8, 5)
KERNEL, Y, BIAS = (3, 3, 6, 5), (2, 9, 8, 5), (1, 1, 1, 6)
GOOD = {
    "response_norm": ([X], X, NORM),
    "response_norm_gradient": ([X, X], X, NORM),
    "spatial_norm": ([X], X, NORM),
    "spatial_norm_gradient": ([X, X], X, NORM),
    "max_pool": ([X], HALF, POOL),
    "max_pool_gradient": ([X, HALF, HALF], X, POOL),
    "norm_pool": ([X, BIAS], HALF, BLOCK),
    "norm_pool_gradient": ([X, BIAS, HALF, HALF], X, BLOCK),
    "convolution": ([X, KERNEL], Y, CONVOLUTION),
    "convolution_input_gradient": ([Y, KERNEL], X, dict(pad=np.int64(1))),
    "convolution_kernel_gradient": ([X, Y], KERNEL, CONVOLUTION),
}


@pytest.fixture(autouse=True)
def _registered() -> None:
    if build.load().platform is None:
        pytest.skip(build.load().line)


def call(name: str, arguments: list, result: tuple[int, ...], attributes: dict, dtype: str = "float32") -> jax.Array:
    arrays = [a if isinstance(a, jax.Array) else jnp.ones(a, jnp.float32) for a in arguments]
    run = jax.ffi.ffi_call(build.target(name), jax.ShapeDtypeStruct(result, dtype))
    return jax.block_until_ready(run(*arrays, **attributes))


def check_error(message: str, name: str, *arguments, **options) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        call(name, *arguments, **options)
    assert f"alexnet_jax_{name}: {message}" in str(caught.value)
    assert np.isfinite(call(name, *GOOD[name])).all(), "the process works as before"


@pytest.mark.parametrize("name", build.OPERATIONS)
def test_every_array_must_be_float32_of_rank_4(name: str):
    arguments, result, attributes = GOOD[name]
    for i, shape in enumerate(arguments):
        for other, message in [
            (jnp.ones(shape, jnp.bfloat16), f"argument {i} has data type 16, expected 11 (float32)"),
            (jnp.ones(shape[1:]), f"argument {i} has rank 3, expected 4"),
            (jnp.ones((1, *shape)), f"argument {i} has rank 5, expected 4"),
        ]:
            check_error(message, name, [*arguments[:i], other, *arguments[i + 1 :]], result, attributes)
    check_error("result 0 has data type 4, expected 11", name, arguments, result, attributes, dtype="int32")
    check_error("result 0 has rank 3, expected 4", name, arguments, result[1:], attributes)
    check_error(f"{len(arguments) + 1} arguments, expected", name, [*arguments, X], result, attributes)
    check_error(f"{len(arguments) - 1} arguments, expected", name, arguments[1:], result, attributes)


@pytest.mark.parametrize("name", build.OPERATIONS)
def test_every_attribute_must_be_there_with_its_type(name: str):
    arguments, result, attributes = GOOD[name]
    for key in attributes:
        others = {other: value for other, value in attributes.items() if other != key}
        check_error(f"attribute {key} is missing, expected", name, arguments, result, others)
        check_error(f"attribute {key} has data type 4", name, arguments, result, others | {key: np.int32(7)})
        check_error(f"attribute {key} is no scalar", name, arguments, result, others | {key: "one"})


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("response_norm", "size", 4, "attribute size is 4, expected an odd number"),
        ("spatial_norm_gradient", "size", 2, "attribute size is 2, expected an odd number"),
        ("response_norm_gradient", "size", 0, "attribute size is 0, expected 1 to"),
        ("max_pool", "size", 0, "attribute size is 0, expected 1 to"),
        ("max_pool", "stride", 0, "attribute stride is 0, expected 1 to"),
        ("max_pool_gradient", "stride", -2, "attribute stride is -2, expected 1 to"),
        ("max_pool", "size", 20, "argument 0 has 9 x 8 pixels, which is too few"),
        ("norm_pool", "size", 4, "attribute size is 4, expected an odd number"),
        ("norm_pool", "rectify", 2, "attribute rectify is 2, expected 0 to 1"),
        ("norm_pool_gradient", "pool_stride", 0, "attribute pool_stride is 0, expected 1 to"),
        ("norm_pool_gradient", "pool_size", 20, "argument 0 has 9 x 8 pixels, which is too few"),
        ("convolution", "stride", 0, "attribute stride is 0, expected 1 to"),
        ("convolution", "pad", 3, "attribute pad is 3, expected 0 to 2"),
        ("convolution_input_gradient", "pad", -1, "attribute pad is -1, expected 0 to 2"),
        ("convolution_kernel_gradient", "stride", 2**40, f"attribute stride is {2**40}, expected 1 to"),
    ],
)
def test_attributes_have_bounds(name: str, key: str, value: int, message: str):
    arguments, result, attributes = GOOD[name]
    check_error(message, name, arguments, result, attributes | {key: np.int64(value)})


@pytest.mark.parametrize(
    ("name", "arguments", "result", "message"),
    [
        ("response_norm", [X], SMALL, "result 0 is [2, 9, 8, 5], expected [2, 9, 8, 6]"),
        ("spatial_norm_gradient", [X, SMALL], X, "argument 1 is [2, 9, 8, 5], expected [2, 9, 8, 6]"),
        ("max_pool", [X], (2, 3, 4, 6), "result 0 is [2, 3, 4, 6], expected [2, 4, 4, 6]"),
        ("max_pool_gradient", [X, HALF, X], X, "argument 2 is [2, 9, 8, 6], expected [2, 4, 4, 6]"),
        ("max_pool_gradient", [X, HALF, HALF], HALF, "result 0 is [2, 4, 4, 6], expected [2, 9, 8, 6]"),
        ("norm_pool", [X, (1, 1, 1, 5)], HALF, "argument 1 is [1, 1, 1, 5], expected [1, 1, 1, 6]"),
        ("norm_pool", [X, BIAS], X, "result 0 is [2, 9, 8, 6], expected [2, 4, 4, 6]"),
        ("norm_pool_gradient", [X, BIAS, X, HALF], X, "argument 2 is [2, 9, 8, 6], expected [2, 4, 4, 6]"),
        ("norm_pool_gradient", [X, BIAS, HALF, X], X, "argument 3 is [2, 9, 8, 6], expected [2, 4, 4, 6]"),
        ("norm_pool_gradient", [X, BIAS, HALF, HALF], HALF, "result 0 is [2, 4, 4, 6], expected [2, 9, 8, 6]"),
        ("convolution", [X, (3, 3, 5, 5)], Y, "argument 1 is [3, 3, 5, 5], expected [3, 3, 6, 5]"),
        ("convolution", [X, (3, 2, 6, 5)], Y, "argument 1 is [3, 2, 6, 5], expected [3, 3, 6, 5]"),
        ("convolution", [X, (0, 0, 6, 5)], Y, "the kernel has no rows"),
        ("convolution", [X, KERNEL], (1, 9, 8, 5), "result 0 is [1, 9, 8, 5], expected [2, 9, 8, 5]"),
        ("convolution_input_gradient", [Y, KERNEL], Y, "argument 1 is [3, 3, 6, 5], expected [3, 3, 5, 5]"),
        ("convolution_kernel_gradient", [X, (1, 9, 8, 5)], KERNEL, "argument 1 is [1, 9, 8, 5], expected [2, 9, 8, 5]"),
    ],
)
def test_shapes_must_fit_one_another(name: str, arguments: list, result: tuple, message: str):
    check_error(message, name, arguments, result, GOOD[name][2])


@pytest.mark.parametrize("name", build.OPERATIONS)
def test_an_empty_batch_and_no_channels_are_no_error(name: str):
    arguments, result, attributes = GOOD[name]

    def without(axis: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        shared = shape == KERNEL or (shape == BIAS and axis == 0)
        return shape if shared else (*shape[:axis], 0, *shape[axis + 1 :])

    y = call(name, [without(0, shape) for shape in arguments], without(0, result), attributes)
    assert y.shape == without(0, result)
    assert not y.any(), "the gradient of a kernel is 0"
    if name.startswith("convolution"):
        return
    assert call(name, [without(3, shape) for shape in arguments], without(3, result), attributes).size == 0


def test_a_convolution_of_no_channels_is_zero():
    assert not call("convolution", [(2, 9, 8, 0), (3, 3, 0, 5)], Y, CONVOLUTION).any()


@pytest.mark.parametrize(
    ("name", "shape", "attributes"),
    [
        ("spatial_norm", (1, 1, 1, 2**16), NORM | dict(size=np.int64(2**31 - 1))),
        ("response_norm", (2, 2, 2, 4), NORM | dict(size=np.int64(2**31 - 1))),
    ],
)
def test_a_lack_of_memory_is_an_error(name: str, shape: tuple, attributes: dict):
    with pytest.raises(jax.errors.JaxRuntimeError, match=rf"RESOURCE_EXHAUSTED: alexnet_jax_{name}: no memory for \d+"):
        call(name, [shape], shape, attributes)
    assert np.isfinite(call(name, *GOOD[name])).all(), "the process works as before"
