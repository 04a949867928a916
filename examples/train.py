"""Trains the example models and writes everything in this folder that follows from them.

`python -m examples.train` rewrites the ONNX files, the held-out rows, the table in README.md and
the checksums in the YAML files; `--check` trains in memory and names each file that would change.
This is the only place that needs scikit-learn: what is served is the ONNX files alone. It fetches
nothing; the data come with scikit-learn or from the two formulas below.
"""

import argparse
import hashlib
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import orjson
from numpy.typing import NDArray
from onnx import TensorProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn import datasets
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from threadpoolctl import threadpool_limits

from moorage_api import onnx_file
from moorage_api.datatypes import DATATYPES
from moorage_api.signature import TensorSpec

Array: TypeAlias = NDArray[Any]

FOLDER: Final = Path(__file__).parent
#: Every split, initial weight and made-up row hangs on this.
SEED: Final = 20240117
#: Operator sets of early 2022, so that runtimes of the last years load the files. skl2onnx declares
#: lower ones where its operators allow.
OPSETS: Final = {"": 17, "ai.onnx.ml": 3}
#: Digits kept of each learned number. Summation order differs between processors and moves the
#: last ones; rounding lets the same library versions write the same bytes on most of them.
DIGITS: Final = 5

_LEARNED: Final = ("mean_", "scale_", "coef_", "intercept_", "coefs_", "intercepts_")
_TABLE: Final = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- end -->)", re.DOTALL)
_SHA256: Final = re.compile(r'(?<=sha256: ")[0-9a-f]{64}(?=")')


@dataclass(frozen=True)
class Example:
    """A trained model with the rows that it has not seen.

    Parameters
    ----------
    file
        Path of the ONNX file in this folder; the part before the slash is the deployment's name.
    task, data, estimator
        For the table.
    model
        The exported model.
    inputs
        Held-out rows by input name, each of shape (rows, …).
    truth
        What is true of them, shape (rows,).
    expected
        scikit-learn's answers on them by output name. That of a ZipMap is a table of shape
        (rows, classes).
    truth_output
        The output that `truth` is compared with.
    metric
        "accuracy" or "r2".
    tolerance
        Largest difference from `expected` in numbers, relative to max(1, number). Labels are equal.
    """

    file: str
    task: str
    data: str
    estimator: str
    model: onnx.ModelProto
    inputs: dict[str, Array]
    truth: Array
    expected: dict[str, Array]
    truth_output: str
    metric: str = "accuracy"
    tolerance: float = 1e-5

    @property
    def name(self) -> str:
        """Name of the deployment."""
        return self.file.partition("/")[0]

    @cached_property
    def content(self) -> bytes:
        """The ONNX file."""
        data: bytes = self.model.SerializeToString(deterministic=True)
        return data

    @cached_property
    def declared(self) -> onnx_file.OnnxFile:
        """What the gateway and the runtime will read from the file."""
        return onnx_file.parse(self.content)


def iris() -> Example:
    """Train a classifier of one table: the plainest case, outputs without ZipMap."""
    return _iris(
        "iris/model.onnx",
        "scaling, logistic regression",
        make_pipeline(StandardScaler(), LogisticRegression()),
    )


def iris_2() -> Example:
    """Train a second version of `iris`: another estimator, the same inputs and outputs."""
    return _iris(
        "iris/model-2.onnx",
        "random forest of 20 trees",
        RandomForestClassifier(n_estimators=20, max_depth=4, random_state=SEED),
    )


def _iris(file: str, words: str, estimator: Any) -> Example:
    rows, truth = datasets.load_iris(return_X_y=True)
    seen, held, seen_truth, held_truth = _split(rows.astype(np.float32), truth, 45, stratify=truth)
    _fit(estimator, seen, seen_truth)
    model = _export(
        "iris",
        estimator,
        [("input", FloatTensorType([None, 4]))],
        options={"zipmap": False},
        final_types=_label_and_probabilities(3),
    )
    return Example(
        file,
        task="which of 3 species of iris",
        data="scikit-learn's `load_iris`: 150 flowers, 4 measures in cm",
        estimator=words,
        model=model,
        inputs={"input": held},
        truth=held_truth,
        expected={"label": estimator.predict(held), "probabilities": estimator.predict_proba(held)},
        truth_output="label",
    )


def breast_cancer() -> Example:
    """Train a classifier with skl2onnx's defaults: its output names, and a ZipMap."""
    rows, truth = datasets.load_breast_cancer(return_X_y=True)
    seen, held, seen_truth, held_truth = _split(rows.astype(np.float32), truth, 114, stratify=truth)
    estimator = make_pipeline(StandardScaler(), LogisticRegression(C=0.5))
    _fit(estimator, seen, seen_truth)
    return Example(
        "breast-cancer/model.onnx",
        task="is a tumour benign (1) or malignant (0)",
        data="scikit-learn's `load_breast_cancer`: 569 tumours, 30 measures",
        estimator="scaling, logistic regression",
        model=_export("breast-cancer", estimator, [("input", FloatTensorType([None, 30]))]),
        inputs={"input": held},
        truth=held_truth,
        expected={
            "output_label": estimator.predict(held),
            "output_probability": estimator.predict_proba(held),
        },
        truth_output="output_label",
    )


def digits() -> Example:
    """Train a classifier of images, which takes raw pixels and scales them in its graph."""
    images, truth = datasets.load_digits(return_X_y=True)
    images = images.astype(np.uint8).reshape(-1, 8, 8)
    seen, held, seen_truth, held_truth = _split(images, truth, 150, stratify=truth)
    estimator = MLPClassifier(
        (32,), alpha=0.01, learning_rate_init=0.005, tol=1e-3, random_state=SEED
    )
    _fit(estimator, _flat(seen), seen_truth)
    model = _export(
        "digits",
        estimator,
        [("scaled", FloatTensorType([None, 64]))],
        options={"zipmap": False},
        final_types=_label_and_probabilities(10),
    )
    return Example(
        "digits/model.onnx",
        task="which digit an image of 8 x 8 pixels shows",
        data="scikit-learn's `load_digits`: 1797 images, pixels from 0 to 16",
        estimator="neural network, one hidden layer of 32",
        model=_with_image_front(model),
        inputs={"image": held},
        truth=held_truth,
        expected={
            "label": estimator.predict(_flat(held)),
            "probabilities": estimator.predict_proba(_flat(held)),
        },
        truth_output="label",
    )


def diabetes() -> Example:
    """Train a regression in double precision."""
    rows, truth = datasets.load_diabetes(return_X_y=True, scaled=False)
    seen, held, seen_truth, held_truth = _split(rows, truth, 100)
    estimator = make_pipeline(StandardScaler(), Ridge(alpha=10.0))
    _fit(estimator, seen, seen_truth)
    model = _export(
        "diabetes",
        estimator,
        [("input", DoubleTensorType([None, 10]))],
        final_types=[("prediction", DoubleTensorType([None, 1]))],
    )
    return Example(
        "diabetes/model.onnx",
        task="how far the disease is after a year, on a scale from 25 to 346",
        data="scikit-learn's `load_diabetes(scaled=False)`: 442 patients, 10 measures",
        estimator="scaling, ridge regression",
        model=model,
        inputs={"input": held},
        truth=held_truth,
        expected={"prediction": estimator.predict(held)[:, None]},
        truth_output="prediction",
        metric="r2",
        tolerance=1e-12,
    )


def binary_classifier() -> Example:
    """Train a classifier of three inputs of different types, with text in and text out."""
    amount, age, country, truth = _transactions(1500)
    table = np.empty((len(truth), 3), object)
    table[:, 0], table[:, 1], table[:, 2] = amount, age, country
    seen, held, seen_truth, held_truth = _split(table, truth, 150, stratify=truth)
    columns = ColumnTransformer(
        [
            ("amount", StandardScaler(), [0]),
            ("age", StandardScaler(), [1]),
            ("country", OneHotEncoder(handle_unknown="ignore"), [2]),
        ]
    )
    estimator = make_pipeline(columns, LogisticRegression())
    _fit(estimator, seen, seen_truth)
    model = _export(
        "binary-classifier",
        estimator,
        [
            ("amount", FloatTensorType([None, 1])),
            ("age", Int64TensorType([None, 1])),
            ("country", StringTensorType([None, 1])),
        ],
    )
    return Example(
        "binary-classifier/model.onnx",
        task="is a transaction ok or fraud",
        data="synthetic: 1500 made-up transactions",
        estimator="scaling and one-hot encoding, logistic regression",
        model=model,
        inputs={
            "amount": held[:, :1].astype(np.float32),
            "age": held[:, 1:2].astype(np.int64),
            "country": held[:, 2:],
        },
        truth=held_truth,
        expected={
            "output_label": estimator.predict(held),
            "output_probability": estimator.predict_proba(held),
        },
        truth_output="output_label",
    )


def quadratic_predictor() -> Example:
    """Train a regression of one number on one number."""
    chance = np.random.default_rng(SEED)
    x = chance.uniform(-5, 5, (400, 1)).round(3).astype(np.float32)
    y = 0.5 * x[:, 0] ** 2 - 2 * x[:, 0] + 3 + chance.normal(0, 1, len(x))
    seen, held, seen_truth, held_truth = _split(x, y.round(3).astype(np.float32), 100)
    estimator = make_pipeline(PolynomialFeatures(2, include_bias=False), LinearRegression())
    _fit(estimator, seen, seen_truth)
    model = _export(
        "quadratic-predictor",
        estimator,
        [("x", FloatTensorType([None, 1]))],
        final_types=[("y", FloatTensorType([None, 1]))],
    )
    return Example(
        "quadratic-predictor/model.onnx",
        task="y of a noisy parabola at x",
        data="synthetic: 400 points of 0.5 x² - 2 x + 3, with noise of deviation 1",
        estimator="polynomial features, linear regression",
        model=model,
        inputs={"x": held},
        truth=held_truth,
        expected={"y": estimator.predict(held)[:, None]},
        truth_output="y",
        metric="r2",
    )


EXAMPLES: Final[tuple[Callable[[], Example], ...]] = (
    iris,
    iris_2,
    breast_cancer,
    digits,
    diabetes,
    binary_classifier,
    quadratic_predictor,
)


def build() -> dict[Path, bytes]:
    """Train everything.

    Returns
    -------
    content of each file that follows from the training, by path in this folder
    """
    files: dict[Path, bytes] = {}
    table: list[str] = []
    with threadpool_limits(1):
        examples = [train() for train in EXAMPLES]
    for example in examples:
        score = measure(example)
        files[Path(example.file)] = example.content
        # Later versions of a model are measured on the rows of the first.
        files.setdefault(Path(example.name, "rows.json"), _render_rows(example, score))
        table.append(_render_line(example, score))
    head = (
        "| file | task | data | estimator | inputs | outputs | size | held-out rows | score |",
        "|---|---|---|---|---|---|---|---|---|",
    )
    readme = (FOLDER / "README.md").read_text("utf-8")
    lines = "".join(f"{line}\n" for line in (*head, *table))
    files[Path("README.md")] = _TABLE.sub(lambda _: lines, readme).encode()
    for name in {example.name: None for example in examples}:
        digest = hashlib.sha256(files[Path(name, "model.onnx")]).hexdigest()
        text = (FOLDER / f"{name}.yaml").read_text("utf-8")
        files[Path(f"{name}.yaml")] = _SHA256.sub(digest, text).encode()
    return files


def measure(example: Example) -> float:
    """Score ONNX Runtime's answers on the held-out rows.

    Raises
    ------
    ValueError
        When they are not scikit-learn's.
    """
    session = ort.InferenceSession(example.content, providers=["CPUExecutionProvider"])
    specs = example.declared.signature.outputs
    names = [spec.name for spec in specs]
    if set(names) != set(example.expected):
        raise ValueError(f"{example.file}: has the outputs {names}")
    answers = dict(zip(names, session.run(names, example.inputs), strict=True))
    for spec in specs:
        answer, wanted = answers[spec.name], example.expected[spec.name]
        if spec.classes:
            answer = np.array([_values(row, spec.classes) for row in answer])
        if answer.shape != wanted.shape:
            raise ValueError(f"{example.file}: {spec.name} has shape {answer.shape}")
        if answer.dtype.kind != "f":
            agrees = bool((answer == wanted).all())
        else:
            bound = example.tolerance * np.maximum(1, np.abs(wanted))
            agrees = bool((np.abs(answer - wanted) <= bound).all())
        if not agrees:
            raise ValueError(f"{example.file}: {spec.name} differs from scikit-learn's answers")
    judge = accuracy_score if example.metric == "accuracy" else r2_score
    return float(judge(example.truth, answers[example.truth_output].reshape(-1)))


def main() -> None:
    """Run the command: exit 0 when all is written or nothing would change, else 1."""
    parser = argparse.ArgumentParser(description="Train the example models.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing, name what would change"
    )
    check = parser.parse_args().check
    changed = [
        (path, content)
        for path, content in build().items()
        if not (FOLDER / path).is_file() or (FOLDER / path).read_bytes() != content
    ]
    for path, content in changed:
        print(f"{'differs' if check else 'written'}: {path}")
        if not check:
            (FOLDER / path).parent.mkdir(exist_ok=True)
            (FOLDER / path).write_bytes(content)
    if not changed:
        print("nothing changes")
    sys.exit(1 if check and changed else 0)


def _transactions(count: int) -> tuple[Array, Array, Array, Array]:
    """Make up transactions: amounts, ages, countries, and whether each is "ok" or "fraud".

    The countries are codes that ISO 3166 leaves to its users, so that no real one is judged.
    """
    chance = np.random.default_rng(SEED)
    risks = {"XA": -1.5, "XB": -0.5, "XC": 0.5, "XD": 2.0}
    amount = chance.lognormal(4.5, 0.8, count).round(2).astype(np.float32)
    age = chance.integers(18, 90, count)
    country = chance.choice(list(risks), count, p=[0.4, 0.3, 0.2, 0.1])
    risk = np.array([risks[code] for code in country])
    logit = 0.03 * (amount - 130) + 0.04 * (45 - age) + 1.5 * risk
    is_fraud = chance.random(count) < 1 / (1 + np.exp(-logit))
    return amount, age, country, np.where(is_fraud, "fraud", "ok")


def _split(
    rows: Array, truth: Array, held: int, *, stratify: Array | None = None
) -> tuple[Array, Array, Array, Array]:
    """Return (rows to learn from, rows held out, truth of the first, truth of the second)."""
    seen, kept, seen_truth, kept_truth = train_test_split(
        rows, truth, test_size=held, random_state=SEED, stratify=stratify
    )
    return seen, kept, seen_truth, kept_truth


def _fit(estimator: Any, rows: Array, truth: Array) -> None:
    """Fit in double precision, and round what was learned to `DIGITS` digits."""
    estimator.fit(rows.astype(np.float64) if rows.dtype == np.float32 else rows, truth)
    for part in _parts(estimator):
        for name in _LEARNED:
            value = getattr(part, name, None)
            if isinstance(value, list):
                setattr(part, name, [_rounded(item) for item in value])
            elif value is not None:
                setattr(part, name, _rounded(np.asarray(value))[()])


def _parts(estimator: Any) -> list[Any]:
    """Return an estimator, or what a pipeline or a column transformer is made of."""
    if isinstance(estimator, Pipeline):
        return [part for _, step in estimator.steps for part in _parts(step)]
    if isinstance(estimator, ColumnTransformer):
        return [part for _, step, _ in estimator.transformers_ for part in _parts(step)]
    return [estimator]


def _rounded(values: Array) -> Array:
    """Round each number to `DIGITS` significant decimal digits."""
    flat = [float(f"{value:.{DIGITS - 1}e}") for value in values.reshape(-1).tolist()]
    return np.array(flat, values.dtype).reshape(values.shape)


def _export(
    name: str, estimator: Any, inputs: Sequence[tuple[str, Any]], **settings: Any
) -> onnx.ModelProto:
    """Convert to ONNX: the same estimator always gives the same bytes."""
    # Without a name skl2onnx draws one by chance; the operator sets come in the order of a set.
    model: onnx.ModelProto = convert_sklearn(
        estimator, name, list(inputs), target_opset=OPSETS, **settings
    )
    opsets = sorted(model.opset_import, key=lambda opset: opset.domain)
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    return model


def _label_and_probabilities(classes: int) -> list[tuple[str, Any]]:
    return [
        ("label", Int64TensorType([None])),
        ("probabilities", FloatTensorType([None, classes])),
    ]


def _flat(images: Array) -> Array:
    """Do as `_with_image_front`: uint8 (rows, 8, 8) from 0 to 16 to float32 (rows, 64) to 1."""
    return images.reshape(len(images), 64).astype(np.float32) * np.float32(1 / 16)


def _with_image_front(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put cast, scaling and flattening before a model whose input is `scaled`, FP32 [N, 64]."""
    graph = model.graph
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [None, 8, 8])
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], "front_cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "sixteenth"], ["shades"], "front_scale"),
        # A size of 0 copies the input's, so that the number of rows stays open.
        helper.make_node("Reshape", ["shades", "row_shape"], ["scaled"], "front_flatten"),
        *graph.node,
    ]
    constants = [
        helper.make_tensor("sixteenth", TensorProto.FLOAT, [], [1 / 16]),
        helper.make_tensor("row_shape", TensorProto.INT64, [2], [0, 64]),
        *graph.initializer,
    ]
    whole = helper.make_graph(nodes, graph.name, [image], list(graph.output), constants)
    graph.CopyFrom(whole)
    onnx.checker.check_model(model, full_check=True)
    return model


def _values(row: dict[Any, float], classes: Sequence[str]) -> list[float]:
    """Return the values of a ZipMap's row in the order of its classes, which are keys as text."""
    by_text = {str(key): value for key, value in row.items()}
    return [by_text[name] for name in classes]


def _render_rows(example: Example, score: float) -> bytes:
    """Return rows.json: a line for each key, floats in the shortest form of their type."""
    inputs = {}
    for spec in example.declared.signature.inputs:
        array = example.inputs[spec.name]
        kind = DATATYPES[spec.datatype].numpy
        if array.dtype != kind:
            raise ValueError(f"{example.file}: {spec.name} is {kind}, its rows are {array.dtype}")
        data = np.ascontiguousarray(array).reshape(-1)
        inputs[spec.name] = {
            "datatype": spec.datatype,
            "shape": list(array.shape),
            "data": data.tolist() if spec.datatype == "BYTES" else data,
        }
    document = {
        "inputs": inputs,
        "truth": example.truth.tolist() if example.truth.dtype.kind == "U" else example.truth,
        "truth_output": example.truth_output,
        "metric": example.metric,
        "score": round(score, 6),
        "score_rows": len(example.truth),
    }
    lines = [
        b'"%s": %s' % (key.encode(), orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
        for key, value in document.items()
    ]
    return b"{\n" + b",\n".join(lines) + b"\n}\n"


def _render_line(example: Example, score: float) -> str:
    """Return an example's line in the table of README.md."""
    signature, zipmaps = example.declared.signature, example.declared.zipmaps
    cells = (
        f"`{example.file}`",
        example.task,
        example.data,
        example.estimator,
        "<br>".join(_words(spec) for spec in signature.inputs),
        "<br>".join(
            _words(spec) + (" (ZipMap)" if spec.name in zipmaps else "")
            for spec in signature.outputs
        ),
        f"{math.ceil(len(example.content) / 1000)} kB",
        str(len(example.truth)),
        f"{'accuracy' if example.metric == 'accuracy' else 'R²'} {score:.3f}",
    )
    return f"| {' | '.join(cells)} |"


def _words(spec: TensorSpec) -> str:
    shape = ", ".join("N" if size == -1 else str(size) for size in spec.shape)
    return f"`{spec.name}` {spec.datatype} [{shape}]"


if __name__ == "__main__":
    main()
