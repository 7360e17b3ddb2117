"""A network as an ONNX graph: from crops as bytes to probabilities, any number of crops at once.

The graph is written here, layer by layer as `Tower` has them. The converter jax2onnx 0.17 cannot be installed beside
this program: it needs an orbax-checkpoint before 0.11.37.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import PyTree

from alexnet_jax.data.preprocessing import LEAST_CONTRAST, Preprocessing
from alexnet_jax.errors import MissingPackageError, UsageError
from alexnet_jax.formats.onnx_layers import Graph, Walk
from alexnet_jax.network.tower import Tower

OPSET, IR_VERSION = 17, 8  # of 2022: every runtime since then reads the file
INPUT, OUTPUT = "crops", "probabilities"
LARGEST_FILE = 2**31 - 1  # bytes of a protocol buffer


def to_bytes(
    tower: Tower,
    params: PyTree[np.ndarray],
    batch_stats: PyTree[np.ndarray],
    preprocessing: Preprocessing,
    *,
    about: Mapping[str, str],
) -> bytes:
    """The file of a network: `crops` `uint8 [batch, size, size, 3]` to `probabilities` `float32 [batch, classes]`.

    All towers run in float32, also those that train in bfloat16.

    Args:
      tower: the network; its last layer tells classes apart.
      params, batch_stats: on the host.
      preprocessing: of the crops, part of the graph.
      about: metadata of the file.

    Raises:
      UsageError: the package is missing, or the network has an operation that is not known here.
    """
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as error:
        raise MissingPackageError("ONNX files need the package onnx", "onnx") from error
    graph = Graph()
    size, classes = preprocessing.crop_size, tower.num_classes
    walk = Walk(graph, tower, params, batch_stats)
    logits = walk.logits(_prepared(graph, preprocessing), (size, size, 3))
    graph.add("Softmax", logits, axis=1, output=OUTPUT)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "alexnet",
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", size, size, 3])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes])],
            graph.constants,
        ),
        producer_name="alexnet_jax",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(about))
    if (length := model.ByteSize()) > LARGEST_FILE:
        raise UsageError(
            f"the network takes {length / 2**30:.1f} GiB, and an ONNX file holds 2; export StableHLO",
            option="kind=stablehlo",
        )
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _prepared(graph: Graph, preprocessing: Preprocessing) -> str:
    """The crops as the network takes them, channels first."""
    from onnx import TensorProto

    x = graph.add("Cast", INPUT, to=TensorProto.FLOAT)
    if preprocessing.each_image:  # as `preprocessing.standardized`
        axes = [1, 2, 3]
        x = graph.add("Sub", x, graph.add("ReduceMean", x, axes=axes))
        deviation = graph.add("Sqrt", graph.add("ReduceMean", graph.add("Mul", x, x), axes=axes))
        floor = graph.constant(np.array(LEAST_CONTRAST), "least_contrast")
        return graph.add("Transpose", graph.add("Div", x, graph.add("Add", deviation, floor)), perm=[0, 3, 1, 2])
    x = graph.add("Sub", x, graph.constant(preprocessing.mean_crop[None], "mean_image"))
    if (preprocessing.pixel_scale != 1).any():
        x = graph.add("Mul", x, graph.constant(preprocessing.pixel_scale, "pixel_scale"))
    return graph.add("Transpose", x, perm=[0, 3, 1, 2])
