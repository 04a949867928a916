"""The predictor over ONNX Runtime, for its CPU and its GPU package alike."""

import ctypes
import math
import mmap
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from moorage_api import onnx_file
from moorage_api.datatypes import DATATYPES
from moorage_api.errors import BadModel, InvalidTensor, ModelFailed, UnsupportedOpset
from moorage_api.onnx_file import OnnxFile
from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Array, Tensor
from moorage_runtime.probe_shapes import FIRST_SIZES, Dimension, Place, Sizes, tries

#: Sizes that are read off the model and off ONNX Runtime's words are at most this, and so many.
_LARGEST_HINT: Final = 4096
_MOST_HINTS: Final = 16
#: The search for a probe ends after so many shapes, or when it has taken so long beyond the first
#: few. Each holds at most so many elements, or as many as the smallest possible.
_MOST_SHAPES: Final = 1000
_SEARCH_S: Final = 2.0
_MOST_ELEMENTS: Final = 16 * 1024**2
#: So many of them an error names.
_SHOWN_SHAPES: Final = 4
#: Values that are tried, in case the graph divides by its input.
_PROBE_VALUES: Final = (0, 1)
#: Runs after the probe when warm-up is asked for: first at one row, where most requests are.
WARMUP_RUNS: Final = 3

#: How a `ModelFailed` begins.
_REFUSED: Final = "the model could not compute this input: "
#: A whole number in a sentence.
_NUMBER: Final = re.compile(r"(?<![\w.])\d{1,4}(?!\w|\.\d)")

_LONG: Final = {"INT64": np.dtype(np.int64), "UINT64": np.dtype(np.uint64)}
_BF16_ONNX: Final = DATATYPES["BF16"].onnx

# ONNX Runtime says these only in words (model_load_utils.h, model.cc).
_NEWER_OPSET: Final = re.compile(
    r"Opset (\d+) is under development.*domain (\S+) is till opset (\d+)", re.DOTALL
)
_NEWER_IR: Final = re.compile(
    r"Unsupported model IR version: (\d+), max supported IR version: (\d+)"
)


@dataclass(frozen=True, slots=True)
class Options:
    """How a session is made.

    Parameters
    ----------
    intra_op_threads
        Threads within one operator; 0 takes the CPUs that this process may use.
    inter_op_threads
        Operators side by side.
    """

    intra_op_threads: int = 0
    inter_op_threads: int = 1


@dataclass(frozen=True, slots=True)
class _Probe:
    """An input filled with one value.

    Parameters
    ----------
    sizes
        Of the open dimensions.
    value
        What all of it is filled with.
    """

    sizes: Sizes
    value: int


class OnnxPredictor:
    """A loaded ONNX model that has answered a probe.

    Parameters
    ----------
    path
        The ONNX file; external data is looked for beside it.
    options
        Threads.
    clock
        Seconds from any start; the search for a probe ends by it.

    Raises
    ------
    UnsupportedOpset
        When the file is newer than this runtime.
    BadModel
        When it cannot be loaded, or cannot compute a probe.
    """

    def __init__(
        self, path: Path, options: Options = Options(), clock: Callable[[], float] = monotonic
    ) -> None:
        self.file = _declared(path)
        self._session = _load(path, options)
        signature = self.file.signature
        self._names = [spec.name for spec in signature.outputs]
        self._outputs = {
            spec.name: (spec.datatype, self._conversion(spec)) for spec in signature.outputs
        }
        self._has_bf16 = any(
            spec.datatype == "BF16" for spec in (*signature.inputs, *signature.outputs)
        )
        if self._has_bf16 and any(spec.datatype == "BYTES" for spec in signature.inputs):
            raise BadModel("takes BYTES beside BF16, which ONNX Runtime's Python interface cannot")
        found = self._find_probe(clock)
        #: An input that the model has computed, one row of it where it answers rows.
        self.probe = self._arrays(found)
        self.signature = self._learned(found)

    @property
    def providers(self) -> list[str]:
        """ONNX Runtime's execution providers of this session, the preferred first."""
        return [name.removesuffix("ExecutionProvider") for name in self._session.get_providers()]

    def run(self, arrays: Mapping[str, Array], outputs: Sequence[str] | None) -> list[Tensor]:
        """Compute outputs; see `Predictor.run`."""
        names = self._names if outputs is None else list(outputs)
        try:
            kinds = [self._outputs[name] for name in names]
        except KeyError as error:
            expected = f"one of the outputs {self._names}"
            raise InvalidTensor(error.args[0], expected, "an unknown name", "output") from None
        try:
            values = (
                self._run_bf16(names, arrays)
                if self._has_bf16
                else self._session.run(names, arrays)
            )
        except _RUN_ERRORS as error:
            raise ModelFailed(_REFUSED + _words(error)) from error
        return [
            Tensor(name, datatype, value if convert is None else convert(value))
            for name, (datatype, convert), value in zip(names, kinds, values, strict=True)
        ]

    def _conversion(self, spec: TensorSpec) -> Callable[[Any], Array] | None:
        """Return what makes an array of our kind out of ONNX Runtime's output, None for nothing."""
        if spec.name in self.file.zipmaps:
            return partial(_table, spec.classes)
        if spec.datatype in _LONG:
            # It gives 64-bit integers as numpy's `long long`, another type than int64 to whoever
            # looks at type numbers, orjson among them.
            return partial(np.ndarray.view, dtype=_LONG[spec.datatype])
        return None

    def _run_bf16(self, names: list[str], arrays: Mapping[str, Array]) -> list[Any]:
        """Run with OrtValues, because numpy has no bfloat16 for ONNX Runtime to map it to."""
        kinds = {spec.name: spec.datatype for spec in self.file.signature.inputs}
        feed = {
            name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
                np.asarray(array, order="C"), _BF16_ONNX
            )
            if kinds[name] == "BF16"
            else ort.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))
            for name, array in arrays.items()
        }
        return [
            _bf16_bits(value) if self._outputs[name][0] == "BF16" else value.numpy()
            for name, value in zip(
                names, self._session.run_with_ort_values(names, feed), strict=True
            )
        ]

    def _find_probe(self, clock: Callable[[], float]) -> _Probe:
        """Search for sizes of the open dimensions and a value that the model computes."""
        open_ = self._open_dimensions()
        failures: list[str] = []
        tried: dict[tuple[int, ...], Sizes] = {}
        end: float | None = None
        most = _MOST_ELEMENTS
        large = 0
        for count, sizes in enumerate(tries(open_, lambda: self._hints(failures))):
            if count == 0:
                most = max(most, self._elements(sizes))
            elif count == len(FIRST_SIZES):
                end = clock() + _SEARCH_S
            if end is not None and (len(tried) + large >= _MOST_SHAPES or clock() >= end):
                break
            key = tuple(sizes.values())
            if key in tried:
                continue
            if self._elements(sizes) > most:
                large += 1
                continue
            tried[key] = sizes
            for value in _PROBE_VALUES:
                probe = _Probe(sizes, value)
                failure = self._failure(probe)
                if failure is None:
                    return probe
                failures.append(failure)
        raise BadModel(self._in_vain(list(tried.values()), failures[0]))

    def _in_vain(self, tried: Sequence[Sizes], words: str) -> str:
        """Say that no shape worked."""
        inputs = self.file.signature.inputs
        shown = "; ".join(
            ", ".join(f"{spec.name} {list(_shape(spec, sizes))}" for spec in inputs)
            for sizes in tried[:_SHOWN_SHAPES]
        )
        if not tried[0]:
            of = f" of {shown}" if shown else ""
            return f"the model loads and fails on a probe{of}: {words}"
        rest = len(tried) - _SHOWN_SHAPES
        more = f" and {rest} more" if rest > 0 else ""
        return (
            f"the model loads and fails on every probe: tried {shown}{more}; "
            f"to the first ONNX Runtime says: {words}; "
            "if an open dimension takes only one size, export the model with that size fixed"
        )

    def _open_dimensions(self) -> dict[Place, Dimension]:
        """Return which dimension each open place is: places of one name have one size."""
        declared = {item.name: item.shape for item in self._session.get_inputs()}
        found: dict[Place, Dimension] = {}
        for spec in self.file.signature.inputs:
            shape = declared.get(spec.name) or ()
            names = shape if len(shape) == len(spec.shape) else spec.shape
            for axis, (extent, name) in enumerate(zip(spec.shape, names, strict=True)):
                if extent == -1:
                    place = (spec.name, axis)
                    found[place] = name if isinstance(name, str) and name else place
        return found

    def _hints(self, failures: Iterable[str]) -> list[int]:
        """Return sizes that open dimensions may need: of other dimensions, and in words."""
        signature = self.file.signature
        said = Counter(int(word) for words in failures for word in _NUMBER.findall(words))
        sizes = (
            *(size for spec in signature.inputs for size in spec.shape),
            *(size for size, _ in said.most_common()),
            *(size for spec in signature.outputs for size in spec.shape),
        )
        return list(dict.fromkeys(s for s in sizes if 1 < s <= _LARGEST_HINT))[:_MOST_HINTS]

    def _elements(self, sizes: Sizes) -> int:
        return sum(math.prod(_shape(spec, sizes)) for spec in self.file.signature.inputs)

    def _arrays(self, probe: _Probe) -> dict[str, Array]:
        return {
            spec.name: _filled(spec, _shape(spec, probe.sizes), probe.value)
            for spec in self.file.signature.inputs
        }

    def _failure(self, probe: _Probe) -> str | None:
        """Return ONNX Runtime's words when the model does not compute a probe."""
        try:
            self.run(self._arrays(probe), None)
        except ModelFailed as error:
            return str(error).removeprefix(_REFUSED)
        return None

    def _learned(self, probe: _Probe) -> Signature:
        """Return the file's signature, with what only the probe could tell."""
        fixed = self._fixed_rows(probe)
        inputs = tuple(
            replace(spec, shape=(probe.sizes[spec.name, 0], *spec.row_shape))
            if (spec.name, 0) in fixed
            else spec
            for spec in self.file.signature.inputs
        )
        return Signature(inputs, self._with_ranks())

    def _fixed_rows(self, probe: _Probe) -> set[Place]:
        """Return the first dimensions that are declared open and take one size only.

        Where there is one, the model does not answer rows. The factor of a matrix product is an
        example: its rows are as many as the other factor's columns.
        """
        signature = self.file.signature
        if not signature.is_batched or all(probe.sizes[s.name, 0] == 1 for s in signature.inputs):
            return set()

        def is_fixed(places: set[Place]) -> bool:
            size = probe.sizes[next(iter(places))]
            return all(
                other == size
                or self._failure(replace(probe, sizes=probe.sizes | dict.fromkeys(places, other)))
                is not None
                for other in (1, size + 1, 2 * size)
            )

        open_ = self._open_dimensions()
        groups: dict[int, set[Dimension]] = {}
        for spec in signature.inputs:
            place = (spec.name, 0)
            groups.setdefault(probe.sizes[place], set()).add(open_[place])
        fixed: set[Place] = set()
        for dimensions in groups.values():
            # Those of one size may have to be alike; each by itself may have to be as it is.
            together = {place for place, of in open_.items() if of in dimensions}
            if is_fixed(together):
                each = [{p for p, of in open_.items() if of == one} for one in dimensions]
                fixed.update(*(places for places in each if is_fixed(places)))
        return fixed

    def _with_ranks(self) -> tuple[TensorSpec, ...]:
        """Return the file's outputs, with the ranks that only the probe could tell."""
        declared = {item.name: item.shape for item in self._session.get_outputs()}
        outputs: list[TensorSpec] = []
        for tensor, spec in zip(
            self.run(self.probe, None), self.file.signature.outputs, strict=True
        ):
            shape = spec.shape
            if tensor.array.ndim != len(shape):
                inferred = declared.get(spec.name) or ()
                known = len(inferred) == tensor.array.ndim
                shape = tuple(
                    size if known and isinstance(size, int) else -1
                    for size in (inferred if known else tensor.array.shape)
                )
            outputs.append(TensorSpec(spec.name, spec.datatype, shape, spec.classes))
        return tuple(outputs)


def _table(classes: Sequence[str], rows: list[dict[Any, float]]) -> Array:
    """Turn a ZipMap's list of maps into a table, one column a class."""
    if not rows:
        return np.empty((0, len(classes)), np.float32)
    # The maps' keys are strings or integers, in an order of their own.
    kind = type(next(iter(rows[0])))
    keys = [kind(label) for label in classes]
    return np.array([[row[key] for key in keys] for row in rows], np.float32)


def warm_up(predictor: OnnxPredictor) -> float:
    """Run the probe again, so that no request pays for first-run allocations.

    Returns
    -------
    seconds that the last run took
    """
    started = perf_counter()
    for _ in range(WARMUP_RUNS):
        started = perf_counter()
        predictor.run(predictor.probe, None)
    return perf_counter() - started


def cpu_limit() -> int:
    """Return how many CPUs this process may use: its affinity, or its cgroup's quota if less."""
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = _cgroup_quota()
    return min(usable, max(1, math.ceil(quota))) if quota else usable


def _cgroup_quota() -> float | None:
    """Return the CPU quota of cgroup v2 or v1 in CPUs, None where there is none."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        folder = Path("/sys/fs/cgroup/cpu")
        limit_us = int((folder / "cpu.cfs_quota_us").read_text())
        period_us = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return limit_us / period_us if limit_us > 0 else None


def _declared(path: Path) -> OnnxFile:
    if not path.stat().st_size:
        raise BadModel("not an ONNX model: the file is empty")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        return onnx_file.parse(view)


def _load(path: Path, options: Options) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.intra_op_threads or cpu_limit()
    settings.inter_op_num_threads = options.inter_op_threads
    if options.inter_op_threads > 1:
        settings.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    # What it would log as an error, it also raises; a probe may fail many times.
    settings.log_severity_level = 4
    try:
        return ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    except _LOAD_ERRORS as error:
        words = str(error)
        if found := _NEWER_OPSET.search(words):
            domain = "" if found[2] == "ai.onnx" else f" of {found[2]}"
            raise UnsupportedOpset(
                f"model needs opset {found[1]}{domain}, this runtime has {found[3]}"
            ) from error
        if found := _NEWER_IR.search(words):
            raise UnsupportedOpset(
                f"model needs ONNX IR version {found[1]}, this runtime has {found[2]}"
            ) from error
        raise BadModel(_words(error)) from error


def _errors(*names: str) -> tuple[type[Exception], ...]:
    """Return ONNX Runtime's exception classes, which lie in its extension module, by name."""
    state = ort.capi.onnxruntime_pybind11_state
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


_LOAD_ERRORS: Final[tuple[type[Exception], ...]] = (
    *_errors(
        "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NoSuchFile",
        "NotImplemented", "RuntimeException", "EPFail",
    ),
    RuntimeError,
    ValueError,
)  # fmt: skip
_RUN_ERRORS: Final[tuple[type[Exception], ...]] = (
    *_errors("Fail", "InvalidArgument", "NotImplemented", "RuntimeException", "EPFail"),
    RuntimeError,
    ValueError,
)


def _words(error: Exception) -> str:
    """Return ONNX Runtime's message on one line, without its tag and source path."""
    words = " ".join(str(error).split())
    words = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", words)
    words = re.sub(r"/\S*/onnxruntime/\S+:\d+ ", "", words)
    return words[:500]


def _shape(spec: TensorSpec, sizes: Sizes) -> tuple[int, ...]:
    """Return the shape of an input with its open dimensions at these sizes."""
    return tuple(
        sizes[spec.name, axis] if extent == -1 else extent for axis, extent in enumerate(spec.shape)
    )


def _filled(spec: TensorSpec, shape: tuple[int, ...], value: int) -> Array:
    """Return an array of `value` for an input."""
    fill: Any = value
    if spec.datatype == "BYTES":
        fill = str(value)
    elif spec.datatype == "BF16":
        fill = 0x3F80 if value else 0
    try:
        return np.full(shape, fill, DATATYPES[spec.datatype].numpy)
    except (MemoryError, ValueError) as error:
        raise BadModel(f"input {spec.name!r}, {spec}, does not fit into memory: {error}") from error


def _bf16_bits(value: Any) -> Array:
    """Copy the bits of a bfloat16 OrtValue on the CPU into a uint16 array."""
    shape = tuple(value.shape())
    count = math.prod(shape)
    bits = (ctypes.c_uint16 * count).from_address(value.data_ptr()) if count else ()
    return np.array(bits, np.uint16).reshape(shape)
