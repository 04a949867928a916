"""ONNX models made on the spot, a few nodes each, for tests of whatever reads or runs models."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from moorage_api.datatypes import DATATYPES

#: The operator set that the models ask for, unless a test says otherwise.
OPSET = 17

Shape = Sequence[int | str | None] | None


def value(name: str, datatype: str, shape: Shape) -> Any:
    """Declare an input or output; a text or None in `shape` is an open dimension."""
    return helper.make_tensor_value_info(
        name, DATATYPES[datatype].onnx, None if shape is None else list(shape)
    )


def build(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    initializers: Sequence[Any] = (),
    opset: int = OPSET,
    ir_version: int = 8,
    domains: Sequence[Any] = (),
    metadata: dict[str, str] | None = None,
) -> bytes:
    """Serialize a model of these parts."""
    graph = helper.make_graph(
        list(nodes), "graph", list(inputs), list(outputs), initializer=list(initializers)
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), *domains],
        ir_version=ir_version,
        producer_name="moorage-tests",
        producer_version="7",
    )
    if metadata:
        helper.set_model_props(model, metadata)
    return bytes(model.SerializeToString())


def identity(datatype: str = "FP32", shape: Shape = ("n", 2), **options: Any) -> bytes:
    """A model that gives `y` = `x`."""
    return build(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", datatype, shape)],
        [value("y", datatype, shape)],
        **options,
    )


def double(shape: Shape = ("n", 2)) -> bytes:
    """A model that gives `y` = `x` + `x`, each row by itself, in FP32."""
    return build(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [value("x", "FP32", shape)],
        [value("y", "FP32", shape)],
    )


def affine(weights: "np.ndarray[Any, Any]") -> bytes:
    """A model that gives `y` = `x` @ weights, each row by itself, in FP32."""
    return build(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", "FP32", ["n", weights.shape[0]])],
        [value("y", "FP32", ["n", weights.shape[1]])],
        initializers=[onnx.numpy_helper.from_array(weights.astype(np.float32), "w")],
    )


def running_sum() -> bytes:
    """A model whose rows lean on the rows before them."""
    axis = onnx.numpy_helper.from_array(np.array(0, np.int64), "axis")
    return build(
        [helper.make_node("CumSum", ["x", "axis"], ["y"])],
        [value("x", "FP32", ["n", 2])],
        [value("y", "FP32", ["n", 2])],
        initializers=[axis],
    )


def lookup(size: int = 3) -> bytes:
    """A model that refuses any index beyond its table: `y` = table[x], INT64 [n, 1] to FP32."""
    table = onnx.numpy_helper.from_array(np.arange(size, dtype=np.float32) * 10, "table")
    return build(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [value("x", "INT64", ["n", 1])],
        [value("y", "FP32", ["n", 1])],
        initializers=[table],
    )


def two_by_two() -> bytes:
    """A model with two inputs and two outputs: `sum` and `difference` of `a` and `b`."""
    return build(
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Sub", ["a", "b"], ["difference"]),
        ],
        [value("a", "FP32", ["n", 1]), value("b", "FP32", ["n", 1])],
        [value("sum", "FP32", ["n", 1]), value("difference", "FP32", ["n", 1])],
    )


def identities(datatypes: Sequence[str]) -> bytes:
    """A model with an input and an output of each datatype: `y_FP32` = `x_FP32` and so on."""
    return build(
        [helper.make_node("Identity", [f"x_{name}"], [f"y_{name}"]) for name in datatypes],
        [value(f"x_{name}", name, ["n", 2]) for name in datatypes],
        [value(f"y_{name}", name, ["n", 2]) for name in datatypes],
    )


def classifier(*, zipmap: bool, labels: Sequence[str] | Sequence[int] = ("no", "yes")) -> bytes:
    """A linear classifier of two features as exporters write it, with or without a ZipMap."""
    text = isinstance(labels[0], str)
    key = "classlabels_strings" if text else "classlabels_int64s"
    linear_key = "classlabels_strings" if text else "classlabels_ints"
    count = len(labels)
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            coefficients=[float(at) for at in range(2 * count)],
            intercepts=[0.0] * count,
            multi_class=0,
            post_transform="SOFTMAX",
            **{linear_key: list(labels)},  # type: ignore[arg-type] # onnx types only its own
        )
    ]
    label = value("label", "BYTES" if text else "INT64", ["n"])
    if zipmap:
        nodes.append(
            helper.make_node(
                "ZipMap",
                ["scores"],
                ["by_class"],
                domain="ai.onnx.ml",
                **{key: list(labels)},  # type: ignore[arg-type] # as above
            )
        )
        kind = helper.make_map_type_proto(
            TensorProto.STRING if text else TensorProto.INT64,
            helper.make_tensor_type_proto(TensorProto.FLOAT, []),
        )
        scores = helper.make_value_info("by_class", helper.make_sequence_type_proto(kind))
    else:
        scores = value("scores", "FP32", ["n", count])
    return build(
        nodes,
        [value("x", "FP32", ["n", 2])],
        [label, scores],
        domains=[helper.make_opsetid("ai.onnx.ml", 3)],
    )


def product(left: Shape = ("n", 3), right: Shape = ("m", "k")) -> bytes:
    """A model that gives `y` = `a` @ `b` in FP32: b has as many rows as a has columns."""
    return build(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        [value("a", "FP32", left), value("b", "FP32", right)],
        [value("y", "FP32", ["n", "k"])],
    )


def reshape(to: Sequence[int], shape: Shape = ("n",), datatype: str = "FP32") -> bytes:
    """A model that gives `y` = `x` in another shape, of which -1 is whatever is left."""
    return build(
        [helper.make_node("Reshape", ["x", "to"], ["y"])],
        [value("x", datatype, shape)],
        [value("y", datatype, [None] * len(to))],
        initializers=[onnx.numpy_helper.from_array(np.array(to, np.int64), "to")],
    )
