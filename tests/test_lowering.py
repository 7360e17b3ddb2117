"""The training step as it is lowered for accelerators that are not here: what it moves, and in which type."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest
from jax import export

from alexnet_jax.data.batch import Batch
from alexnet_jax.experiment import summary
from alexnet_jax.experiment.build import build_tower
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.learning.step import TrainState
from alexnet_jax.network import sharding
from alexnet_jax.network.native import build
from tests import small

SIZE, BATCH, CLASSES = 67, 8, 6
BYTES = {"bf16": 2, "f32": 4}


def photometry(images, key, step):
    return images.astype(jnp.float32)


@functools.cache
def settings_of(bfloat16: bool) -> Settings:
    from tests.configs import tiny

    settings = read_settings(tiny.get_config())
    return dataclasses.replace(
        settings,
        batch_size=BATCH,
        dataset=dataclasses.replace(settings.dataset, crop_size=SIZE, classes=CLASSES),
        network=dataclasses.replace(settings.network, bfloat16=bfloat16, width=0.08),
    )


def step_of(data: int, tower: int, bfloat16: bool) -> tuple[Callable, tuple[TrainState, Batch, jax.Array]]:
    """The compiled step of a network of real structure, and shapes for its arguments."""
    settings = settings_of(bfloat16)
    mesh = sharding.make_mesh(data=data, tower=tower)
    steps = small.steps(build_tower(settings, CLASSES), mesh, image_size=SIZE, photometry=photometry)

    def placed(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    batch = Batch(
        jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8),
        jax.ShapeDtypeStruct((BATCH,), jnp.int32),
        jax.ShapeDtypeStruct((BATCH,), jnp.bool_),
    )
    batch = jax.tree.map(lambda leaf: placed(leaf, sharding.batch_sharding(mesh)), batch)
    key = placed(jax.eval_shape(lambda: jax.random.key(0)), sharding.replicated(mesh))
    return steps.train_step, (steps.target, batch, key)


@functools.cache
def lowered(platform: str, data: int, tower: int, bfloat16: bool) -> export.Exported:
    """For a platform whose devices need not exist, without native kernels."""
    step, arguments = step_of(data, tower, bfloat16)
    with build.plain_form():
        return export.export(step, platforms=[platform])(*arguments)


def operations(exported: export.Exported, name: str) -> list[tuple[list[str], list[str]]]:
    """Types of operands and results of every operation of that name, such as `8x13x13x6xbf16`."""
    found, lines = [], exported.mlir_module().splitlines()
    for number, line in enumerate(lines):
        if not re.search(rf"stablehlo\.{name}\b[\"( ]", line):
            continue
        if "({" in line:  # its region comes before its type
            line = next(later for later in lines[number:] if later.lstrip().startswith("})"))
        before, _, after = line.rpartition(" : ")[2].rpartition("->")
        found.append((re.findall(r"tensor<(.*?)>", before), re.findall(r"tensor<(.*?)>", after)))
    return found


def size(kind: str) -> int:
    """Bytes of a tensor type."""
    *shape, element = kind.split("x")
    return math.prod(map(int, shape)) * BYTES[element]


TWO_DEVICES = [("tpu", 1, 2, True), ("cuda", 2, 2, False)]


@pytest.mark.parametrize("case", TWO_DEVICES)
def test_towers_exchange_what_the_dry_run_says(case: tuple):
    exported, settings = lowered(*case), settings_of(case[-1])
    gathered = [operands for operands, _ in operations(exported, "all_gather")]
    scattered = [results for _, results in operations(exported, "reduce_scatter")]
    assert (len(gathered), len(scattered)) == (4, 4)
    rows = summary.rows_of(build_tower(settings, CLASSES), SIZE)
    # A tower sends its half of the gathered maps, and the other tower's half of the summed gradients: each as large as
    # the other. Shapes are those of a device, which has a part of the batch.
    sent = 2 * case[1] * sum(size(kind) for kinds in gathered + scattered for kind in kinds)
    assert sent == summary.exchanged_bytes(settings, rows)[0]
    others = {name for name in ("all_reduce", "all_to_all", "collective_permute") if operations(exported, name)}
    assert others == ({"all_reduce"} if case[1] > 1 else set()), "only gradients are summed, over the data axis"


def test_gradients_are_summed_over_the_data_axis_once():
    """The compiler does it, so this is seen in what it compiles for the CPU."""
    step, arguments = step_of(2, 1, False)
    text = step.lower(*arguments).compile().as_text()
    kinds = re.findall(r"= (.*?) all-reduce(?:-start)?\(", text)
    summed = sum(
        math.prod(int(n) for n in shape.split(",") if n) * 4
        for kind in kinds
        for shape in re.findall(r"f32\[([\d,]*)\]", kind)
    )
    settings = settings_of(False)
    gradients = summary.exchanged_bytes(settings, summary.rows_of(build_tower(settings, CLASSES), SIZE))[1]
    assert gradients <= summed <= gradients + 64, "beside them only the metrics are summed"


@pytest.mark.parametrize("case", TWO_DEVICES)
def test_a_tower_a_device_transposes_kernels_alone(case: tuple):
    shapes = [operands[0].split("x") for operands, _ in operations(lowered(*case), "transpose")]
    shapes = [shape for shape in shapes if len(shape) != 7]  # blocks of pixels: of images and conv1's kernel
    assert shapes and all(len(shape) == 3 and str(BATCH) not in shape[:2] for shape in shapes)


def test_two_towers_a_device_transpose_no_feature_map():
    exported = lowered("cuda", 1, 1, True)
    assert not [operands[0] for operands, _ in operations(exported, "transpose") if operands[0].count("x") == 5]
    assert not re.search(r"feature_group_count = [^1]|batch_group_count = [^1]", exported.mlir_module())
    assert len(operations(exported, "convolution")) == 2 * (5 + 5 + 4), "none for the gradient of the images"


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_the_first_convolution_runs_over_blocks_of_pixels(platform: str):
    """Three channels fill no tensor core; the images are rearranged once for both towers, and as they are: narrow."""
    exported = lowered(platform, 1, 1, True)
    kinds = {kind for operands, _ in operations(exported, "convolution") for kind in operands}
    assert f"{BATCH}x17x17x48xbf16" in kinds
    assert not kinds & {f"{BATCH}x{SIZE}x{SIZE}x3xbf16", "11x11x3x3xbf16"}, "no convolution sees three channels"


@pytest.mark.parametrize("case", [("tpu", 1, 2, True), ("cuda", 1, 1, True)])
def test_bfloat16_is_what_flows_and_float32_what_stays(case: tuple):
    exported = lowered(*case)
    types = {
        name: {
            kind.rpartition("x")[2] for operands, results in operations(exported, name) for kind in operands + results
        }
        for name in ("convolution", "dot_general", "all_gather", "reduce_scatter", "rsqrt", "exponential", "log")
    }
    sums = [operands[0] for operands, _ in operations(exported, "reduce")]
    assert not [kind for kind in sums if kind.endswith("bf16")], "biases' gradients are summed in float32"
    if case[2] == 1:
        del types["all_gather"], types["reduce_scatter"]
    wide = {"rsqrt", "exponential", "log"}  # response norm, softmax
    logits = [results for operands, results in operations(exported, "dot_general") if "bf16" not in str(operands)]
    assert len(logits) == 3 * case[1] * (3 - case[2]), "the logits, and both gradients of their layer"
    assert types == {name: {"f32"} if name in wide else {"bf16"} for name in types} | {"dot_general": {"bf16", "f32"}}
    state, metrics = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    kinds = {leaf.dtype for leaf in jax.tree.leaves((state.params, state.opt_state.velocity, metrics))}
    assert kinds == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("case", [*TWO_DEVICES, ("cuda", 1, 1, True)])
def test_the_state_is_donated_and_nothing_asks_the_host(case: tuple):
    text = lowered(*case).mlir_module()
    _, arguments = step_of(*case[1:])
    donated = text.count("tf.aliasing_output") + text.count("jax.buffer_donor")
    assert donated == len(jax.tree.leaves(arguments[0]))
    assert not re.search("infeed|outfeed|callback|stablehlo.send|stablehlo.recv", text)
