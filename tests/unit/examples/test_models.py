"""The committed examples: their YAML, their models and their rows agree with each other.

Nothing is trained here; `python -m examples.train --check` says whether the files are what the
script makes.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
import pytest

from moorage_api import manifests, onnx_file, v2
from moorage_api.datatypes import DATATYPES
from moorage_api.v1alpha1 import ModelDeployment

FOLDER = Path(__file__).parents[3] / "examples"
NAMES = [
    "binary-classifier",
    "breast-cancer",
    "diabetes",
    "digits",
    "iris",
    "quadratic-predictor",
]
FILES = [*(f"{name}/model.onnx" for name in NAMES), "iris/model-2.onnx"]

#: Element types as ONNX Runtime names them.
ORT_TYPES = {
    "tensor(uint8)": "UINT8",
    "tensor(int64)": "INT64",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


@cache
def session_of(file: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(FOLDER / file, options, providers=["CPUExecutionProvider"])


def rows_of(file: str) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads((FOLDER / file).with_name("rows.json").read_bytes())
    return document


def feed_of(rows: dict[str, Any]) -> dict[str, Any]:
    """Read the rows as the server would: the body of a V2 request."""
    inputs = [{"name": name} | tensor for name, tensor in rows["inputs"].items()]
    request = v2.parse_request(orjson.dumps({"inputs": inputs}))
    return {tensor.name: tensor.array for tensor in request.tensors}


def score_of(file: str) -> float:
    """Score ONNX Runtime's answers on the held-out rows."""
    rows = rows_of(file)
    (answers,) = session_of(file).run([rows["truth_output"]], feed_of(rows))
    answers, truth = answers.reshape(-1), np.array(rows["truth"])
    if rows["metric"] == "accuracy":
        return float((answers == truth).mean())
    assert rows["metric"] == "r2"
    return float(1 - ((truth - answers) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def deployment_of(name: str) -> ModelDeployment:
    (resource,) = manifests.parse((FOLDER / f"{name}.yaml").read_text("utf-8"))
    return resource


def model_of(resource: ModelDeployment) -> Path:
    scheme, _, path = resource.spec.model.uri.partition(":")
    assert scheme == "file"
    return FOLDER / path


def test_every_model_is_known_to_these_tests() -> None:
    found = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.onnx")}
    assert found == set(FILES)


@pytest.mark.parametrize("name", NAMES)
def test_the_yaml_deploys_the_model_in_the_folder_of_its_name(name: str) -> None:
    resource = deployment_of(name)
    assert resource.metadata.name == name
    assert model_of(resource) == FOLDER / name / "model.onnx"
    assert model_of(resource).is_file()


def test_the_synthetic_models_are_served_at_endpoints_with_an_underscore() -> None:
    endpoints = {name: deployment_of(name).endpoint for name in NAMES}
    assert endpoints["binary-classifier"] == "binary_classifier"
    assert endpoints["quadratic-predictor"] == "quadratic_predictor"
    assert all(endpoints[name] == name for name in ("iris", "digits", "diabetes", "breast-cancer"))


def test_a_checksum_in_a_yaml_is_that_of_its_file() -> None:
    pinned = [item for item in map(deployment_of, NAMES) if item.spec.model.sha256]
    assert pinned
    for resource in pinned:
        digest = hashlib.sha256(model_of(resource).read_bytes()).hexdigest()
        assert resource.spec.model.sha256 == digest


@pytest.mark.parametrize("name", NAMES)
def test_the_model_scores_on_its_rows_what_they_say(name: str) -> None:
    rows = rows_of(f"{name}/model.onnx")
    assert 30 <= rows["score_rows"] == len(rows["truth"]) <= 150
    assert score_of(f"{name}/model.onnx") == pytest.approx(rows["score"], rel=0, abs=1e-6)


@pytest.mark.parametrize("file", FILES)
def test_the_readme_tells_the_measured_score_and_size(file: str) -> None:
    lines = (FOLDER / "README.md").read_text("utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(f"| `{file}` |"))
    *_, size, rows, score, _ = (cell.strip() for cell in line.split("|"))
    assert score.split()[1] == f"{score_of(file):.3f}"
    assert int(rows) == rows_of(file)["score_rows"]
    assert int(size.removesuffix(" kB")) == -(-(FOLDER / file).stat().st_size // 1000)


@pytest.mark.parametrize("file", FILES)
def test_the_rows_fit_the_signature_of_the_model(file: str) -> None:
    signature = onnx_file.parse((FOLDER / file).read_bytes()).signature
    rows = rows_of(file)
    assert list(rows["inputs"]) == [spec.name for spec in signature.inputs]
    for spec in signature.inputs:
        tensor = rows["inputs"][spec.name]
        assert tensor["datatype"] == spec.datatype
        assert tensor["shape"] == [rows["score_rows"], *spec.row_shape]
    assert rows["truth_output"] in [spec.name for spec in signature.outputs]


@pytest.mark.parametrize("file", FILES)
def test_the_file_declares_the_inputs_that_onnx_runtime_sees(file: str) -> None:
    signature = onnx_file.parse((FOLDER / file).read_bytes()).signature
    assert [
        (item.name, ORT_TYPES[item.type], len(item.shape)) for item in session_of(file).get_inputs()
    ] == [(spec.name, spec.datatype, len(spec.shape)) for spec in signature.inputs]
    assert signature.is_batched


@pytest.mark.parametrize("file", FILES)
def test_the_file_declares_the_outputs_that_onnx_runtime_gives(file: str) -> None:
    declared = onnx_file.parse((FOLDER / file).read_bytes())
    session = session_of(file)
    seen = {item.name: item for item in session.get_outputs()}
    specs = declared.signature.outputs
    assert [spec.name for spec in specs] == list(seen)
    answers = session.run(None, feed_of(rows_of(file)))
    for spec, answer in zip(specs, answers, strict=True):
        if spec.name in declared.zipmaps:
            assert seen[spec.name].type.startswith("seq(map(")
            assert {str(key) for row in answer for key in row} == set(spec.classes)
            assert spec.shape == (-1, len(spec.classes))
        else:
            assert ORT_TYPES[seen[spec.name].type] == spec.datatype
            assert answer.dtype == DATATYPES[spec.datatype].numpy
            assert len(seen[spec.name].shape) == len(spec.shape) == answer.ndim
            assert spec.row_shape == answer.shape[1:]


def test_both_versions_of_iris_have_the_same_inputs_and_outputs() -> None:
    first, second = (
        onnx_file.parse((FOLDER / "iris" / file).read_bytes())
        for file in ("model.onnx", "model-2.onnx")
    )
    assert first.signature == second.signature


def test_only_the_models_exported_with_zipmap_have_one() -> None:
    zipmaps = {
        name: onnx_file.parse((FOLDER / name / "model.onnx").read_bytes()).zipmaps for name in NAMES
    }
    assert {name for name in NAMES if zipmaps[name]} == {"breast-cancer", "binary-classifier"}


def test_text_that_training_never_saw_is_answered() -> None:
    feed = {
        "amount": np.array([[20], [900]], np.float32),
        "age": np.array([[40], [40]], np.int64),
        "country": np.array([["nowhere"], [""]], object),
    }
    (labels,) = session_of("binary-classifier/model.onnx").run(["output_label"], feed)
    assert labels.tolist() == ["ok", "fraud"]


def test_the_examples_stay_small() -> None:
    sizes = {path: path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    assert sum(size for path, size in sizes.items() if path.suffix == ".onnx") < 600_000
    kept = (size for path, size in sizes.items() if "__pycache__" not in path.parts)
    assert sum(kept) < 1_500_000
