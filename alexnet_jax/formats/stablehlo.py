"""A network as one StableHLO program with its parameters, in the file of `jax.export`: for CPUs, CUDA and TPUs."""

import dataclasses
import importlib.util
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import PyTree

from alexnet_jax.data.preprocessing import Preprocessing
from alexnet_jax.errors import MissingPackageError
from alexnet_jax.network.native import build
from alexnet_jax.network.tower import Tower

PLATFORMS = ("cpu", "cuda", "tpu")


def to_bytes(
    tower: Tower,
    params: PyTree[np.ndarray],
    batch_stats: PyTree[np.ndarray],
    preprocessing: Preprocessing,
    *,
    about: Mapping[str, str],
) -> bytes:
    """The file of a network: `crops` `uint8 [batch, size, size, 3]` to probabilities `float32 [batch, classes]`.

    The program runs on one device, on any number of crops. The plain form of all operations is in it, so that it needs
    no library of ours.

    Args:
      tower: the network; its last layer tells classes apart.
      params, batch_stats: on the host; they become constants of the program.
      preprocessing: of the crops, part of the program.
      about: facts for people, which the file holds as JSON in the place of the function's name: it has no other place.

    Raises:
      MissingPackageError: flatbuffers is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:  # `serialize` imports it, and JAX does not install it
        raise MissingPackageError("files .stablehlo need the package flatbuffers", "stablehlo")

    def alexnet(crops):
        variables = jax.tree.map(jnp.asarray, {"params": params, "batch_stats": batch_stats})
        logits: Any = tower.apply(variables, preprocessing.inputs(crops), train=False)
        return jax.nn.softmax(logits[:, : tower.num_classes])

    (batch,) = export.symbolic_shape("batch")
    side = preprocessing.crop_size
    with build.plain_form():
        exported = export.export(jax.jit(alexnet), platforms=PLATFORMS)(
            jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8)
        )
    return bytes(dataclasses.replace(exported, fun_name=json.dumps(dict(about))).serialize())
