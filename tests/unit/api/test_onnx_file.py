import tracemalloc
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.support import models

from moorage_api import onnx_file
from moorage_api.datatypes import BY_ONNX, DATATYPES
from moorage_api.errors import BadModel
from moorage_api.signature import TensorSpec

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").rglob("*.onnx"))


@cache
def some_models() -> list[bytes]:
    return [
        models.identity(),
        models.classifier(zipmap=True),
        models.classifier(zipmap=True, labels=[-1, 7]),
        models.lookup(),
        models.identity("BYTES", ["n"], metadata={"features": "a"}),
    ]


def spec_by_onnx(value: Any) -> TensorSpec:
    """What the `onnx` package says of an input or output that is a tensor."""
    kind = value.type.tensor_type
    shape = [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else -1
        for dim in kind.shape.dim
    ]
    whole = tuple(shape) if kind.HasField("shape") else (-1,)
    return TensorSpec(value.name, BY_ONNX[kind.elem_type].name, whole)


def assert_agrees(raw: bytes) -> None:
    model = onnx.load_from_string(raw)
    found = onnx_file.parse(raw)
    assert found.ir_version == model.ir_version
    assert found.opsets == {item.domain or "ai.onnx": item.version for item in model.opset_import}
    assert found.producer == f"{model.producer_name} {model.producer_version}".strip()
    assert found.metadata == {item.key: item.value for item in model.metadata_props}
    defaults = {item.name for item in model.graph.initializer}
    assert [spec.to_dict() for spec in found.signature.inputs] == [
        spec_by_onnx(item).to_dict() for item in model.graph.input if item.name not in defaults
    ]
    assert [spec.name for spec in found.signature.outputs] == [
        item.name for item in model.graph.output
    ]
    for spec, item in zip(found.signature.outputs, model.graph.output, strict=True):
        if item.type.WhichOneof("value") == "tensor_type":
            assert spec == spec_by_onnx(item)
            assert spec.name not in found.zipmaps
        else:
            assert spec.name in found.zipmaps


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_it_agrees_with_the_onnx_package_on_the_examples(path: Path) -> None:
    assert_agrees(path.read_bytes())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(DATATYPES)),
            st.none()
            | st.lists(st.integers(0, 2**40) | st.sampled_from(["n", "m", None]), max_size=4),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 10),
    st.integers(1, 30),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)
def test_it_agrees_with_the_onnx_package_on_generated_models(
    values: list[tuple[str, Any]], ir_version: int, opset: int, metadata: dict[str, str]
) -> None:
    nodes = [helper.make_node("Identity", [f"x{at}"], [f"é{at}"]) for at in range(len(values))]
    assert_agrees(
        models.build(
            nodes,
            [models.value(f"x{at}", *item) for at, item in enumerate(values)],
            [models.value(f"é{at}", *item) for at, item in enumerate(values)],
            ir_version=ir_version,
            opset=opset,
            metadata=metadata,
            domains=[helper.make_opsetid("com.example", 3)],
        )
    )


def test_an_input_with_a_default_is_no_input() -> None:
    table = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    thin = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph(
        [helper.make_node("Sum", ["x", "w", "s"], ["y"])],
        "graph",
        [models.value(name, "FP32", [1]) for name in "xws"],
        [models.value("y", "FP32", [1])],
        initializer=[table],
        sparse_initializer=[helper.make_sparse_tensor(thin, indices, [1])],
    )
    found = onnx_file.parse(helper.make_model(graph).SerializeToString())
    assert [spec.name for spec in found.signature.inputs] == ["x"]


@pytest.mark.parametrize(
    ("labels", "expected"), [(("no", "yes"), ("no", "yes")), ((-1, 7, 2**62), None)], ids=str
)
def test_a_zipmaps_output_is_a_table_with_its_classes(labels: Any, expected: Any) -> None:
    found = onnx_file.parse(models.classifier(zipmap=True, labels=labels))
    classes = expected or tuple(str(label) for label in labels)
    assert found.zipmaps == {"by_class"}
    assert found.signature.outputs[1] == TensorSpec("by_class", "FP32", (-1, len(labels)), classes)
    assert found.signature.is_batched


def test_a_classifier_without_zipmap_has_plain_scores() -> None:
    found = onnx_file.parse(models.classifier(zipmap=False))
    assert found.zipmaps == frozenset()
    assert found.signature.outputs[1] == TensorSpec("scores", "FP32", (-1, 2))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (helper.make_tensor_type_proto(TensorProto.COMPLEX64, [1]), "has ONNX element type 14"),
        (helper.make_tensor_type_proto(TensorProto.FLOAT8E4M3FN, [1]), "element type 17"),
        (helper.make_tensor_type_proto(TensorProto.INT4, [1]), "element type 22"),
        (
            helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [1])),
            "is a sequence; a model is served when",
        ),
        (
            helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [1])),
            "is a optional|is an optional",
        ),
        (
            helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, [1])),
            "is a map",
        ),
        (helper.make_sparse_tensor_type_proto(1, [1]), "is a sparse tensor"),
    ],
    ids=["complex", "float8", "int4", "sequence", "optional", "map", "sparse"],
)
@pytest.mark.parametrize("side", ["input", "output"])
def test_what_the_protocol_cannot_carry_is_refused_by_name(
    kind: Any, words: str, side: str
) -> None:
    odd, plain = helper.make_value_info("odd", kind), models.value("plain", "FP32", [1])
    ends = ([odd], [plain]) if side == "input" else ([plain], [odd])
    raw = models.build([helper.make_node("Foo", [ends[0][0].name], [ends[1][0].name])], *ends)
    with pytest.raises(BadModel, match=f"{side} 'odd' .*({words})"):
        onnx_file.parse(raw)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not an ONNX model: the file holds no graph"),
        (b"hello, this is no model", "not an ONNX model"),
        (b"<html><body>404</body></html>", "not an ONNX model"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "not an ONNX model"),
        (b"PK\3\4" + b"\0" * 100, "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not an ONNX model"),
        (b"\0" * 100, "not an ONNX model"),
        (b"\x08" + b"\xff" * 11, "a number at byte .* never ends"),
        (b"\x3a" + b"\xff" * 9 + b"\x01", "is it truncated"),
        (b"\x08\x08", "not an ONNX model: the file holds no graph"),
        (b"\x08\x08\x3a\x00", "its graph has no output"),
        (b"\x08\x08\x38\x05", "bytes were expected where a number is"),
        (b"\x0a\x01a", "a number was expected where bytes are"),
        (b"\x0b", "starts no protobuf field"),
    ],
    ids=lambda item: str(item)[:30],
)
def test_what_is_no_model_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(BadModel, match=words):
        onnx_file.parse(raw)


def test_a_truncated_model_is_refused_wherever_it_ends() -> None:
    for raw in some_models():
        for end in range(len(raw)):
            try:
                onnx_file.parse(raw[:end])
            except BadModel as error:
                said = str(error)
            else:
                # It can only end between two fields, after the graph.
                onnx.load_from_string(raw[:end])
                continue
            assert said.startswith("not an ONNX model")


def parse_within_bounds(raw: bytes) -> None:
    """Parse; a result or a sentence, in memory that goes with the size of the file."""
    said = ""
    tracemalloc.start()
    try:
        onnx_file.parse(raw)
    except BadModel as error:
        said = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert "\n" not in said
    assert peak < 200_000 + 200 * len(raw)


@given(st.binary(max_size=300))
def test_random_bytes_never_crash_it(raw: bytes) -> None:
    parse_within_bounds(raw)


@given(st.binary(max_size=300))
def test_random_bytes_in_place_of_the_graph_never_crash_it(raw: bytes) -> None:
    assert len(raw) < 2**14
    length = bytes([len(raw) & 0x7F | 0x80, len(raw) >> 7])
    parse_within_bounds(b"\x08\x08\x3a" + length + raw)


@given(st.data())
def test_a_damaged_model_never_crashes_it(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(some_models())))
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=5)):
        raw[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    insert = data.draw(st.binary(max_size=8))
    at = data.draw(st.integers(0, len(raw)))
    parse_within_bounds(bytes(raw[:at] + insert + raw[at:]))


def test_weights_are_stepped_over_and_not_copied() -> None:
    weights = helper.make_tensor("w", TensorProto.UINT8, [4_000_000], bytes(4_000_000), raw=True)
    raw = models.build(
        [helper.make_node("Identity", ["w"], ["y"])],
        [models.value("x", "FP32", ["n"])],
        [models.value("y", "UINT8", [4_000_000])],
        initializers=[weights],
    )
    tracemalloc.start()
    try:
        onnx_file.parse(memoryview(raw))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
