import os
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as npst
from onnx import helper
from tests.support import models

from moorage_api.datatypes import DATATYPES
from moorage_api.errors import BadModel, InvalidTensor, ModelFailed, UnsupportedOpset
from moorage_api.signature import TensorSpec
from moorage_runtime import session
from moorage_runtime.session import OnnxPredictor, Options

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").rglob("*.onnx"))
ONE_THREAD = Options(intra_op_threads=1)


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Load a serialized model; without a clock the time stands still."""

    def load(
        raw: bytes, options: Options = ONE_THREAD, clock: Callable[[], float] = float
    ) -> OnnxPredictor:
        path = tmp_path / "model.onnx"
        path.write_bytes(raw)
        return OnnxPredictor(path, options, clock)

    return load


VALUES: dict[str, Any] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**53 + 1],
    "FP16": [np.nan, 65504],
    "BF16": [0x7FC0, 0x3F81],
    "FP32": [-np.inf, 1e-45],
    "FP64": [np.nan, 5e-324],
    "BYTES": ["é\0x", ""],
}


def same(left: Any, right: Any) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype == object:
        return bool((left == right).all())
    return bool(left.tobytes() == right.tobytes())


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_goes_through_the_model_bit_by_bit(load: Any, datatype: str) -> None:
    predictor = load(models.identity(datatype, ["n"]))
    assert predictor.signature.inputs == (TensorSpec("x", datatype, (-1,)),)
    assert predictor.signature.outputs == (TensorSpec("y", datatype, (-1,)),)
    tries: list[Any] = [VALUES[datatype], VALUES[datatype][:1], []]
    for values in tries:
        given_ = np.array(values, DATATYPES[datatype].numpy)
        (y,) = predictor.run({"x": given_}, None)
        assert (y.name, y.datatype) == ("y", datatype)
        assert same(y.array, given_)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_rank_0_goes_through_the_model(load: Any, datatype: str) -> None:
    predictor = load(models.identity(datatype, []))
    assert predictor.signature.inputs[0].shape == ()
    assert not predictor.signature.is_batched
    given_ = np.array(VALUES[datatype][1], DATATYPES[datatype].numpy)
    (y,) = predictor.run({"x": given_}, ["y"])
    assert same(y.array, given_)


def test_every_datatype_that_has_an_array_goes_through_beside_bf16(load: Any) -> None:
    names = [name for name in DATATYPES if name != "BYTES"]
    predictor = load(models.identities(names))
    arrays = {f"x_{name}": np.array([VALUES[name]], DATATYPES[name].numpy) for name in names}
    for name, y in zip(names, predictor.run(arrays, None), strict=True):
        assert same(y.array, arrays[f"x_{name}"])


@pytest.mark.parametrize("datatype", ["INT64", "UINT64"])
def test_64_bit_integers_leave_as_a_type_that_orjson_knows(load: Any, datatype: str) -> None:
    predictor = load(models.identity(datatype, ["n"]))
    (y,) = predictor.run({"x": np.array([1], DATATYPES[datatype].numpy)}, None)
    assert y.array.dtype.num == DATATYPES[datatype].numpy.num


@cache
def open_identity() -> OnnxPredictor:
    path = Path(os.environ["MOORAGE_TEST_FOLDER"]) / "open.onnx"
    path.write_bytes(models.identity("FP32", ["a", "b", None]))
    return OnnxPredictor(path, ONE_THREAD)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=npst.arrays("<f4", npst.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=4)))
def test_open_dimensions_take_any_size(
    tmp_path_factory: pytest.TempPathFactory, array: Any
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOORAGE_TEST_FOLDER", str(tmp_path_factory.getbasetemp()))
        predictor = open_identity()
    assert same(predictor.run({"x": array}, None)[0].array, array)


def test_an_array_from_a_request_may_be_read_only(load: Any) -> None:
    x = np.frombuffer(np.ones((1, 2), "<f4").tobytes(), "<f4").reshape(1, 2)
    assert load(models.double()).run({"x": x}, None)[0].array.tolist() == [[2, 2]]


def test_several_inputs_and_outputs_are_kept_apart(load: Any) -> None:
    predictor = load(models.two_by_two())
    arrays = {"b": np.array([[1]], "<f4"), "a": np.array([[5]], "<f4")}
    assert [(y.name, y.array.item()) for y in predictor.run(arrays, None)] == [
        ("sum", 6), ("difference", 4),
    ]  # fmt: skip
    assert [y.name for y in predictor.run(arrays, ["difference", "sum"])] == ["difference", "sum"]
    assert [y.name for y in predictor.run(arrays, ["sum"])] == ["sum"]


def test_an_unknown_output_is_refused_by_name(load: Any) -> None:
    with pytest.raises(InvalidTensor, match=r"output 'z': expected one of the outputs \['y'\]"):
        load(models.double()).run({"x": np.zeros((1, 2), "f4")}, ["z"])


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(("no", "yes"), ("no", "yes")), ((3, -1, 7), ("3", "-1", "7"))],
    ids=["text", "numbers"],
)
def test_a_zipmap_gives_the_table_that_the_classifier_gives_without(
    load: Any, labels: Any, classes: tuple[str, ...]
) -> None:
    x = np.array([[1, 2], [0.5, -1], [0, 0]], "<f4")
    label, table = load(models.classifier(zipmap=True, labels=labels)).run({"x": x}, None)
    plain_label, scores = load(models.classifier(zipmap=False, labels=labels)).run({"x": x}, None)
    assert same(label.array, plain_label.array)
    assert same(table.array, scores.array)
    zipped = load(models.classifier(zipmap=True, labels=labels))
    assert zipped.signature.outputs[1] == TensorSpec("by_class", "FP32", (-1, len(labels)), classes)
    assert zipped.run({"x": x[:0]}, None)[1].array.shape == (0, len(labels))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_examples_load_and_answer_rows(path: Path) -> None:
    predictor = OnnxPredictor(path, ONE_THREAD)
    assert predictor.signature.is_batched
    rows = {name: np.concatenate([array] * 3) for name, array in predictor.probe.items()}
    for tensor, spec in zip(predictor.run(rows, None), predictor.signature.outputs, strict=True):
        assert tensor.array.shape[0] == 3
        assert tensor.array.dtype == DATATYPES[spec.datatype].numpy
        assert len(spec.shape) == tensor.array.ndim


def test_an_output_of_unknown_rank_gets_the_rank_of_the_probe(load: Any) -> None:
    raw = models.build(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [models.value("x", "FP32", ["n", 3])],
        [models.value("y", "FP32", None)],
    )
    assert load(raw).signature.outputs[0].shape == (-1, 3)


def test_a_model_with_no_input_answers(load: Any) -> None:
    constant = helper.make_tensor("c", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    node = helper.make_node("Constant", [], ["y"], value=constant)
    predictor = load(models.build([node], [], [models.value("y", "FP32", [2])]))
    assert predictor.run({}, None)[0].array.tolist() == [1, 2]
    assert not predictor.signature.is_batched


def test_values_that_the_graph_refuses_are_the_requests_fault(load: Any) -> None:
    predictor = load(models.lookup(3))
    assert predictor.run({"x": np.array([[2]])}, None)[0].array.tolist() == [[20]]
    with pytest.raises(ModelFailed, match="the model could not compute this input: ") as caught:
        predictor.run({"x": np.array([[3]])}, None)
    words = str(caught.value)
    assert "\n" not in words
    assert "ONNXRuntimeError" not in words
    assert "onnxruntime/" not in words
    assert "indices element out of data bounds" in words


def test_the_probe_finds_a_size_that_the_graph_takes(load: Any) -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[5, 5])
    predictor = load(
        models.build(
            [pool],
            [models.value("x", "FP32", ["n", 1, "h", "w"])],
            [models.value("y", "FP32", ["n", 1, None, None])],
        )
    )
    assert predictor.probe["x"].shape == (1, 1, 8, 8)


def test_the_probe_finds_values_that_the_graph_takes(load: Any) -> None:
    one = onnx.numpy_helper.from_array(np.array(1, np.int64), "one")
    table = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "table")
    nodes = [
        helper.make_node("Sub", ["one", "x"], ["at"]),
        helper.make_node("Gather", ["table", "at"], ["y"]),
    ]
    predictor = load(
        models.build(
            nodes,
            [models.value("x", "INT64", ["n"])],
            [models.value("y", "FP32", ["n"])],
            initializers=[one, table],
        )
    )
    assert predictor.probe["x"].tolist() == [1]


def weights(*shape: int) -> Any:
    return onnx.numpy_helper.from_array(np.ones(shape, np.float32), "w")


def audio() -> bytes:
    """A model of samples that slides a kernel of 16 over them."""
    axes = onnx.numpy_helper.from_array(np.array([0, 1], np.int64), "axes")
    return models.build(
        [
            helper.make_node("Unsqueeze", ["x", "axes"], ["channel"]),
            helper.make_node("Conv", ["channel", "w"], ["y"]),
        ],
        [models.value("x", "FP32", ["t"])],
        [models.value("y", "FP32", [1, 1, "u"])],
        initializers=[axes, weights(1, 1, 16)],
    )


def image() -> bytes:
    """A model of images that says of none of their dimensions what it has to be."""
    return models.build(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [models.value("x", "FP32", ["n", "c", "h", "w"])],
        [models.value("y", "FP32", [None] * 4)],
        initializers=[weights(2, 3, 20, 20)],
    )


def table(features: int, *, bias: bool = False) -> bytes:
    """A model of rows that does not say how many features they have."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"])]
    nodes += [helper.make_node("Add", ["z", "b"] if bias else ["z", "z"], ["y"])]
    zeros = onnx.numpy_helper.from_array(np.zeros(7, np.float32), "b")
    return models.build(
        nodes,
        [models.value("x", "FP32", ["n", None])],
        [models.value("y", "FP32", ["n", 7])],
        initializers=[weights(features, 7), *[zeros] * bias],
    )


def pairs() -> bytes:
    """A model with two inputs of one even length, which the file does not say."""
    to = onnx.numpy_helper.from_array(np.array([2, -1], np.int64), "to")
    return models.build(
        [
            helper.make_node("Concat", ["a", "b"], ["both"], axis=1),
            helper.make_node("Reshape", ["both", "to"], ["halves"]),
            helper.make_node("Reshape", ["a", "to"], ["z"]),
            helper.make_node("Add", ["both", "both"], ["y"]),
        ],
        [models.value("a", "FP32", ["n", 1]), models.value("b", "FP32", ["m", 1])],
        [models.value("y", "FP32", ["k", 2]), models.value("z", "FP32", ["i", "j"])],
        initializers=[to],
    )


def bridge() -> bytes:
    """A model whose second input has to fit between the first and the third."""
    return models.build(
        [
            helper.make_node("MatMul", ["a", "b"], ["ab"]),
            helper.make_node("MatMul", ["ab", "c"], ["y"]),
        ],
        [
            models.value("a", "FP32", [2, 3]),
            models.value("b", "FP32", ["m", "k"]),
            models.value("c", "FP32", [5, 4]),
        ],
        [models.value("y", "FP32", [2, 4])],
    )


@pytest.mark.parametrize(
    ("raw", "shapes"),
    [
        (audio(), [(16,)]),
        (bridge(), [(2, 3), (3, 5), (5, 4)]),
        (models.identity("FP32", None), [(1,)]),
        (models.reshape([2, -1]), [(2,)]),
        (models.product(), [(1, 3), (3, 1)]),
        (models.product(["n", "d"], ["d", "k"]), [(1, 1), (1, 1)]),
        (models.product(["n", 3], ["n", "n"]), [(3, 3), (3, 3)]),
        (models.product(["n", 8], ["k", "n"]), [(8, 8), (8, 8)]),
        # A name that lies.
        (models.reshape([1, 8], ["n", "n"]), [(1, 8)]),
        (table(5), [(1, 5)]),
        (table(97), [(1, 97)]),
        # So large a size only ONNX Runtime's words tell.
        (table(1300, bias=True), [(1, 1300)]),
        (models.reshape([4, 3, -1], ["a", "b"]), [(1, 12)]),
        (models.reshape([3, 2], ["n", 2]), [(3, 2)]),
        (pairs(), [(2, 1), (2, 1)]),
    ],
    ids=["audio", "bridge", "no rank", "halves", "product",
         "named product", "square", "transposed", "lying names",
         "features", "many features", "very many features", "blocks", "three rows", "pairs"],
)  # fmt: skip
def test_the_probe_finds_sizes_that_are_unlike_each_other(
    load: Any, capfd: pytest.CaptureFixture[str], raw: bytes, shapes: list[tuple[int, ...]]
) -> None:
    predictor = load(raw)
    assert [array.shape for array in predictor.probe.values()] == shapes
    # The tries that failed are nobody's business.
    assert capfd.readouterr().err == ""


def test_an_image_of_open_dimensions_finds_its_channels(load: Any) -> None:
    rows, channels, height, width = load(image()).probe["x"].shape
    assert (rows, channels) == (1, 3)
    assert min(height, width) >= 20


@pytest.mark.parametrize(
    "raw",
    [models.double(), models.two_by_two(), models.identity("FP32", ["n", None, "w"])],
    ids=["double", "two", "open"],
)
def test_an_ordinary_model_computes_the_first_probe(load: Any, raw: bytes) -> None:
    def ask() -> float:
        raise AssertionError("it searches")

    for array in load(raw, clock=ask).probe.values():
        assert array.shape in [(1, 2), (1, 1), (1, 1, 1)]
        assert not array.any()


@pytest.mark.parametrize(
    ("raw", "inputs"),
    [
        (models.product(), [(-1, 3), (3, -1)]),
        (models.reshape([3, 2], ["n", 2]), [(3, 2)]),
        (models.reshape([2, -1]), [(-1,)]),
        (models.product(["n", 8], ["k", "n"]), [(-1, 8), (8, -1)]),
        (pairs(), [(-1, 1), (-1, 1)]),
        (models.product(["n", "d"], ["m", "k"]), [(-1, -1), (-1, -1)]),
    ],
    ids=["product", "three rows", "even", "transposed", "even pairs", "one row works"],
)
def test_a_first_dimension_that_takes_one_size_only_is_no_open_one(
    load: Any, raw: bytes, inputs: list[tuple[int, ...]]
) -> None:
    signature = load(raw).signature
    assert [spec.shape for spec in signature.inputs] == inputs
    assert signature.is_batched == all(shape[0] == -1 for shape in inputs)


def failing(shape: list[Any], *names: str) -> bytes:
    """A model that refuses everything: it looks beyond the end of a table."""
    far = onnx.numpy_helper.from_array(np.array(5, np.int64), "far")
    nodes = [helper.make_node("Add", list(names), ["sum"])] if len(names) > 1 else []
    return models.build(
        [
            *nodes,
            helper.make_node("Add", ["sum" if nodes else names[0], "far"], ["at"]),
            helper.make_node("Gather", ["far_table", "at"], ["y"]),
        ],
        [models.value(name, "INT64", shape) for name in names],
        [models.value("y", "INT64", None)],
        initializers=[far, onnx.numpy_helper.from_array(np.zeros(1, np.int64), "far_table")],
    )


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (
            failing(["n", None], "x"),
            r"^the model loads and fails on every probe: "
            r"tried x \[1, 1\]; x \[1, 8\]; x \[1, 32\]; x \[1, 64\] and \d{3} more; "
            r"to the first ONNX Runtime says: .*indices element out of data bounds, idx=5 .*; "
            r"if an open dimension takes only one size, export the model with that size fixed$",
        ),
        # Dimensions of one name have one size.
        (
            failing(["n", "n"], "a", "b"),
            r": tried a \[1, 1\], b \[1, 1\]; a \[2, 2\], b \[2, 2\]; a \[8, 8\], b ",
        ),
        (failing([2, 3], "x"), r"^the model loads and fails on a probe of x \[2, 3\]: .*idx=5 "),
    ],
    ids=["open", "named", "fixed"],
)
def test_a_search_in_vain_says_what_was_tried(load: Any, raw: bytes, words: str) -> None:
    with pytest.raises(BadModel, match=words) as caught:
        load(raw)
    assert "\n" not in str(caught.value)


def test_the_search_ends_when_its_time_is_over(load: Any) -> None:
    # Fewer shapes than it takes to come to 97.
    clock = count(0, session._SEARCH_S / 10)
    with pytest.raises(BadModel, match=r"\[1, 64\] and \d{1,2} more; "):
        load(table(97), clock=lambda: next(clock))
    assert next(clock) < 2 * session._SEARCH_S


def test_the_search_tries_no_shape_that_is_too_large(load: Any) -> None:
    half = session._MOST_ELEMENTS // 2
    # Only two of these are no larger than the limit, and one more would do.
    raw = models.reshape([3, -1], ["n", half, "m"], "INT8")
    with pytest.raises(
        BadModel, match=rf": tried x \[1, {half}, 1\]; x \[1, {half}, 2\]; x \[2, {half}, 1\]; to"
    ):
        load(raw)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not an ONNX model: the file is empty"),
        (b"<html>not found</html>", "not an ONNX model"),
        (models.double()[:-9], "not an ONNX model: .*truncated"),
        (
            models.build(
                [helper.make_node("NoSuchOperator", ["x"], ["y"])],
                [models.value("x", "FP32", ["n"])],
                [models.value("y", "FP32", ["n"])],
            ),
            "NoSuchOperator",
        ),
        (
            models.build(
                [helper.make_node("Identity", ["nowhere"], ["y"])],
                [models.value("x", "FP32", ["n"])],
                [models.value("y", "FP32", ["n"])],
            ),
            "nowhere",
        ),
        (
            models.build(
                [helper.make_node("Foo", ["x"], ["y"], domain="com.example")],
                [models.value("x", "FP32", ["n"])],
                [models.value("y", "FP32", ["n"])],
                domains=[helper.make_opsetid("com.example", 1)],
            ),
            "com.example",
        ),
        (models.identities(["BF16", "BYTES"]), "^takes BYTES beside BF16"),
        (models.identity("FP32", [1, 2**50]), r"input 'x', FP32 \[1, .* does not fit into memory"),
        (models.identity("FP32", [2**40, 2**40]), "does not fit into memory"),
    ],
    ids=[
        "empty",
        "html",
        "truncated",
        "operator",
        "dangling",
        "domain",
        "bf16 and text",
        "too large",
        "far too large",
    ],
)
def test_a_model_that_cannot_be_served_is_one_line(load: Any, raw: bytes, words: str) -> None:
    with pytest.raises(BadModel, match=words) as caught:
        load(raw)
    assert "\n" not in str(caught.value)
    assert "[ONNXRuntimeError]" not in str(caught.value)


def test_external_data_that_is_not_there_is_one_line(load: Any, tmp_path: Path) -> None:
    model = onnx.load_from_string(models.affine(np.ones((64, 64))))
    onnx.save(
        model, str(tmp_path / "model.onnx"), save_as_external_data=True, location="w.bin",
        size_threshold=0,
    )  # fmt: skip
    assert OnnxPredictor(tmp_path / "model.onnx", ONE_THREAD).probe
    (tmp_path / "w.bin").unlink()
    with pytest.raises(BadModel, match=r"w\.bin"):
        OnnxPredictor(tmp_path / "model.onnx", ONE_THREAD)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"opset": 99}, r"^model needs opset 99, this runtime has \d+$"),
        (
            {"domains": [helper.make_opsetid("ai.onnx.ml", 99)]},
            r"^model needs opset 99 of ai\.onnx\.ml, this runtime has \d+$",
        ),
        ({"ir_version": 99}, r"^model needs ONNX IR version 99, this runtime has \d+$"),
    ],
    ids=["opset", "ml opset", "IR version"],
)
def test_a_model_newer_than_the_runtime_says_which_version_it_needs(
    load: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnsupportedOpset, match=words):
        load(models.identity(**options))


def test_warming_up_tells_how_long_a_run_takes(load: Any) -> None:
    assert session.warm_up(load(models.double())) > 0


def test_threads_can_be_set(load: Any) -> None:
    x = {"x": np.ones((1, 2), "f4")}
    assert load(models.double(), Options(2, 2)).run(x, None)[0].array.tolist() == [[2, 2]]
    assert load(models.double(), Options()).providers == ["CPU"]
    assert 1 <= session.cpu_limit() <= (os.cpu_count() or 1)
