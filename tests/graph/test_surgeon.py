"""New nodes and constants become protos that onnx accepts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, helper, numpy_helper

from onnxlrp.graph.surgeon import constant_proto, node_proto


def test_a_node_keeps_its_names_and_the_types_of_its_attributes() -> None:
    body = helper.make_graph([], "body", [], [])
    tensor = numpy_helper.from_array(np.zeros(1, np.float32))
    given = {"axis": 1, "alpha": 0.5, "mode": "add", "perm": [1, 0], "value": tensor, "body": body}
    node = node_proto("Op", "n", ["a", "", "b"], ["y"], given)
    assert (node.op_type, node.name, list(node.input), list(node.output)) == ("Op", "n", ["a", "", "b"], ["y"])
    kinds = {a.name: a.type for a in node.attribute}
    assert kinds == {
        "axis": AttributeProto.INT,
        "alpha": AttributeProto.FLOAT,
        "mode": AttributeProto.STRING,
        "perm": AttributeProto.INTS,
        "value": AttributeProto.TENSOR,
        "body": AttributeProto.GRAPH,
    }
    assert {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name != "value"} == {
        **{k: v for k, v in given.items() if k != "value"},
        "mode": b"add",
    }


@pytest.mark.parametrize(
    "value",
    [np.asarray(3, np.int64), np.float32(0.5), np.arange(6.0).reshape(2, 3).T, np.zeros((0,), np.int64)],
    ids=["scalar", "float", "not contiguous", "empty"],
)
def test_a_constant_keeps_its_value_type_and_shape(value: np.ndarray) -> None:
    array = np.asarray(value)
    proto = constant_proto("c", array)
    onnx.checker.check_tensor(proto)
    back = numpy_helper.to_array(proto)
    assert (proto.name, back.dtype, back.shape) == ("c", array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)
