"""The nodes and constants of an ONNX graph, added one by one."""

from typing import Any, TypeAlias

import numpy as np

Names: TypeAlias = tuple[str, ...]  # of tensors


class Graph:
    """Nodes and constants of a graph, in order of computation.

    Attributes:
      nodes, constants: as `onnx.helper.make_graph` takes them.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Adds a node of one output, and returns the output's name."""
        from onnx import helper

        output = output or f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def split(self, x: str, count: int) -> Names:
        """Equal parts of the channels."""
        from onnx import helper

        outputs = tuple(f"split{len(self.nodes)}_{i}" for i in range(count))
        self.nodes.append(helper.make_node("Split", [x], outputs, name=f"split{len(self.nodes)}", axis=1))
        return outputs

    def constant(self, array: np.ndarray, name: str = "") -> str:
        """Adds an array, of float32 where it holds fractions, and returns its name."""
        from onnx import numpy_helper

        name = name or f"constant{len(self.constants)}"
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name
