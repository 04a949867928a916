"""One model from its address to being ready: fetched, verified, loaded, probed, warmed up."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moorage_api.signature import Signature
from moorage_runtime import batching, session, storage
from moorage_runtime.predictor import Predictor
from moorage_runtime.session import OnnxPredictor, Options


@dataclass(frozen=True, slots=True)
class Source:
    """Which model is wanted; see `storage.fetch` and `storage.verify`."""

    uri: str
    version: str = ""
    sha256: str | None = None
    registry: str = ""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that has answered a probe.

    Parameters
    ----------
    predictor
        The model itself.
    signature
        What it takes and gives.
    output_names
        Of all its outputs.
    answers_rows
        Whether requests may share a run.
    expected_s
        How long a run of one row takes, in seconds.
    properties
        What else is known of it, as text: sha256, producer, opset, execution provider.
    """

    predictor: Predictor
    signature: Signature
    output_names: frozenset[str]
    answers_rows: bool
    expected_s: float
    properties: dict[str, str]


def load(
    source: Source, options: Options, *, warmup: bool, tell: Callable[[str], None]
) -> LoadedModel:
    """Bring a model up.

    Parameters
    ----------
    source
        Which model.
    options
        How it is run.
    warmup
        Whether to run it some more times after the probe.
    tell
        Is told what is being done now, in a word.

    Raises
    ------
    ModelRejected
        When it cannot be fetched, is not the one expected, or cannot be loaded and run.
    """
    with tempfile.TemporaryDirectory(prefix="moorage-model-") as folder:
        tell("fetching the model")
        path = storage.fetch(
            source.uri, Path(folder), version=source.version, registry=source.registry
        )
        tell("loading the model")
        digest = storage.verify(path, source.sha256)
        predictor = OnnxPredictor(path, options)
    tell("warming up")
    answers_rows = batching.answers_rows(predictor, predictor.probe)
    seconds = session.warm_up(predictor) if warmup else 0.0
    opsets = ", ".join(f"{domain} {number}" for domain, number in predictor.file.opsets.items())
    return LoadedModel(
        predictor,
        predictor.signature,
        frozenset(spec.name for spec in predictor.signature.outputs),
        answers_rows,
        seconds,
        {
            "sha256": digest,
            "producer": predictor.file.producer,
            "opset": opsets,
            "execution_provider": ", ".join(predictor.providers),
        },
    )
