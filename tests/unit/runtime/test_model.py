import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import models

from moorage_api.errors import (
    BadModel,
    ChecksumMismatch,
    DownloadFailed,
    ModelRejected,
    UnsupportedOpset,
)
from moorage_runtime import model
from moorage_runtime.model import LoadedModel, Source
from moorage_runtime.session import Options


def load(source: Source, *, warmup: bool = False, told: list[str] | None = None) -> LoadedModel:
    heard: list[str] = [] if told is None else told
    return model.load(source, Options(intra_op_threads=1), warmup=warmup, tell=heard.append)


@pytest.mark.parametrize("warmup", [True, False])
def test_a_model_is_fetched_verified_loaded_and_known(tmp_path: Path, warmup: bool) -> None:
    raw = models.double()
    path = tmp_path / "model.onnx"
    path.write_bytes(raw)
    digest = hashlib.sha256(raw).hexdigest()
    told: list[str] = []
    loaded = load(Source(f"file:{path}", sha256=digest), warmup=warmup, told=told)
    assert told == ["fetching the model", "loading the model", "warming up"]
    assert loaded.output_names == {"y"}
    assert loaded.answers_rows
    assert (loaded.expected_s > 0) == warmup
    assert loaded.properties == {
        "sha256": digest,
        "producer": "moorage-tests 7",
        "opset": "ai.onnx 17",
        "execution_provider": "CPU",
    }
    (y,) = loaded.predictor.run({"x": np.ones((1, 2), "f4")}, None)
    assert y.array.tolist() == [[2, 2]]


def test_the_version_chooses_among_a_folders(tmp_path: Path) -> None:
    for version, raw in (("1", models.double()), ("2", models.identity("INT64", ["n"]))):
        (tmp_path / version).mkdir()
        (tmp_path / version / "model.onnx").write_bytes(raw)
    found = load(Source(str(tmp_path), version="2"))
    assert found.signature.inputs[0].datatype == "INT64"


def test_what_was_downloaded_is_gone_once_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    system: Any = fsspec.filesystem("memory")
    for raw, error in ((models.double(), None), (b"x", BadModel)):
        system.pipe("/bucket/model.onnx", raw)
        if error:
            with pytest.raises(error):
                load(Source("memory://bucket/model.onnx"))
        else:
            assert load(Source("memory://bucket/model.onnx")).answers_rows
        assert list(tmp_path.iterdir()) == []
    system.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("raw", "sha256", "error", "words"),
    [
        (None, None, DownloadFailed, "no such file or folder"),
        (b"", None, BadModel, "the file is empty"),
        (b"x", None, BadModel, "not an ONNX model"),
        (models.double()[:-20], None, BadModel, "truncated"),
        (models.double(), "0" * 64, ChecksumMismatch, "expected 0000"),
        # Bytes that are not the ones asked for are not even looked at.
        (b"x", "0" * 64, ChecksumMismatch, "expected 0000"),
        (models.identity(opset=99), None, UnsupportedOpset, "model needs opset 99"),
        (models.identity(ir_version=99), None, UnsupportedOpset, "needs ONNX IR version 99"),
    ],
    ids=["missing", "empty", "no model", "truncated", "checksum", "other bytes", "opset", "IR"],
)
def test_a_model_that_is_rejected_says_so_in_one_line(
    tmp_path: Path,
    raw: bytes | None,
    sha256: str | None,
    error: type[ModelRejected],
    words: str,
) -> None:
    path = tmp_path / "model.onnx"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(error, match=words) as caught:
        load(Source(str(path), sha256=sha256))
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
