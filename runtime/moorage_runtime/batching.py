"""Lets requests that wait at the same time share a run of the model.

*Natural batching*: what has become ready in the same turn of the event loop runs together. It
needs no timer and costs a lone request nothing. A delay, where one is set, waits for more.

A quick model runs on the event loop itself; one whose runs take longer than a switch of threads is
worth runs in a thread of its own, so that the loop goes on reading requests, which then make the
next batch.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Final, TypeAlias

import numpy as np

from moorage_api.errors import ModelFailed, Overloaded
from moorage_api.tensors import Array, Tensor, bf16_to_float32
from moorage_runtime.predictor import Predictor

#: Runs that take longer than this, in seconds, leave the event loop.
INLINE_LIMIT_S: Final = 0.001
#: Most requests that wait; more are turned away.
QUEUE_LIMIT: Final = 1024
#: Relative and absolute tolerance of "the same answer" between a row alone and in a batch.
#: Kernels may add up in another order for another number of rows.
TOLERANCE: Final = (1e-3, 1e-5)

_log = logging.getLogger(__name__)

#: What must be equal for two requests to share a run: shapes of rows, and outputs wanted.
_Kind: TypeAlias = tuple[object, ...]


class _Waiting:
    """One request in the queue."""

    __slots__ = ("arrays", "future", "kind", "outputs", "rows")

    def __init__(
        self,
        arrays: Mapping[str, Array],
        outputs: Sequence[str] | None,
        rows: int,
        kind: _Kind,
        future: "asyncio.Future[list[Tensor]]",
    ) -> None:
        self.arrays = arrays
        self.outputs = outputs
        self.rows = rows
        self.kind = kind
        self.future = future


class Batcher:
    """The queue in front of one model.

    Parameters
    ----------
    predictor
        The model.
    max_batch_size
        Most rows in one run; a larger request runs alone.
    max_delay_s
        How long a request waits for others; 0 waits for none.
    shares
        Whether requests may share a run: `answers_rows(predictor, probe)`.
    expected_s
        How long a run is expected to take, until runs have been measured.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        max_batch_size: int,
        max_delay_s: float,
        shares: bool,
        expected_s: float = 0.0,
    ) -> None:
        self._predictor = predictor
        self._max_rows = max_batch_size if shares else 1
        self._delay = max_delay_s if shares else 0.0
        self._shares = shares
        self._open = any(-1 in spec.row_shape for spec in predictor.signature.inputs)
        self._loop = asyncio.get_running_loop()
        self._queue: list[_Waiting] = []
        self._rows = 0
        self._timer: asyncio.Handle | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._busy = False
        self._seconds = expected_s
        #: Runs of the model, and rows in them, since the start.
        self.runs = 0
        self.rows = 0
        self.run_seconds = 0.0

    def submit(
        self, arrays: Mapping[str, Array], outputs: Sequence[str] | None, rows: int | None
    ) -> "asyncio.Future[list[Tensor]]":
        """Queue a request.

        Parameters
        ----------
        arrays
            By input name; they fit the signature.
        outputs
            Names wanted; None wants all.
        rows
            How many rows it holds; None when the model does not answer rows.

        Returns
        -------
        future of the outputs
            It fails with `ModelFailed` when the model refuses the input.

        Raises
        ------
        Overloaded
            When too many requests wait.
        """
        if len(self._queue) >= QUEUE_LIMIT:
            self._drop_cancelled()
        if len(self._queue) >= QUEUE_LIMIT:
            raise Overloaded(f"{QUEUE_LIMIT} requests wait for the model already")
        future: asyncio.Future[list[Tensor]] = self._loop.create_future()
        kind: _Kind = () if outputs is None else tuple(outputs)
        if self._open:
            kind = (kind, tuple((name, array.shape[1:]) for name, array in sorted(arrays.items())))
        count = 1 if rows is None else rows
        self._queue.append(_Waiting(arrays, outputs, count, kind, future))
        self._rows += count
        if not self._busy:
            self._schedule()
        return future

    def close(self) -> None:
        """Give the thread back; nothing may be submitted afterwards."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    def _schedule(self) -> None:
        """See to it that the queue is looked at: soon when a batch is full, else in time."""
        if self._delay and self._rows < self._max_rows:
            if self._timer is None:
                self._timer = self._loop.call_later(self._delay, self._flush)
            return
        if self._delay and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Run what waits, here or in the thread."""
        self._timer = None
        if self._busy or not self._queue:
            return
        if self._seconds > INLINE_LIMIT_S:
            self._busy = True
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "moorage-model")
            batch = self._next()
            work = self._loop.run_in_executor(self._thread, self._compute, batch)
            work.add_done_callback(lambda done: self._after(batch, done))
            return
        while self._queue:
            batch = self._next()
            _deliver(batch, self._compute(batch))
            if self._seconds > INLINE_LIMIT_S and self._queue:
                self._schedule()
                return

    def _after(
        self, batch: list[_Waiting], done: "asyncio.Future[list[list[Tensor] | Exception]]"
    ) -> None:
        self._busy = False
        _deliver(batch, done.result())
        if self._queue:
            self._schedule()

    def _next(self) -> list[_Waiting]:
        """Take the next batch off the queue: the oldest request, and all that fit with it."""
        queue = self._queue
        if len(queue) == 1 or not self._shares:
            while queue:
                item = queue.pop(0)
                self._rows -= item.rows
                if not item.future.cancelled():
                    return [item]
            return []
        room = self._max_rows
        batch: list[_Waiting] = []
        rest: list[_Waiting] = []
        for item in queue:
            if item.future.cancelled():
                self._rows -= item.rows
            elif not batch or (item.kind == batch[0].kind and item.rows <= room):
                batch.append(item)
                room -= item.rows
                self._rows -= item.rows
            else:
                rest.append(item)
        self._queue = rest
        return batch

    def _drop_cancelled(self) -> None:
        """Take off the queue what nobody waits for any more."""
        if any(item.future.cancelled() for item in self._queue):
            self._queue = [item for item in self._queue if not item.future.cancelled()]
            self._rows = sum(item.rows for item in self._queue)

    def _compute(self, batch: list[_Waiting]) -> list[list[Tensor] | Exception]:
        """Run a batch; every request gets its outputs or its own error."""
        started = perf_counter()
        results: list[list[Tensor] | Exception]
        if len(batch) == 1:
            results = [self._alone(batch[0])]
        elif batch:
            results = self._together(batch)
        else:
            return []
        seconds = perf_counter() - started
        self.run_seconds += seconds
        # A slow average of recent runs: one slow run in many does not change where they happen.
        self._seconds += (seconds - self._seconds) * 0.2
        return results

    def _alone(self, item: _Waiting) -> list[Tensor] | Exception:
        self.runs += 1
        self.rows += item.rows
        try:
            return self._predictor.run(item.arrays, item.outputs)
        except Exception as error:  # noqa: BLE001 - it is the answer of this one request
            return error

    def _together(self, batch: list[_Waiting]) -> list[list[Tensor] | Exception]:
        rows = sum(item.rows for item in batch)
        try:
            arrays = {
                name: np.concatenate([item.arrays[name] for item in batch])
                for name in batch[0].arrays
            }
            outputs = self._predictor.run(arrays, batch[0].outputs)
        except ModelFailed:
            # One request's values are at fault; alone, the others get their answers.
            return [self._alone(item) for item in batch]
        except Exception as error:  # noqa: BLE001 - it is the answer of each request
            return [error] * len(batch)
        if any(len(tensor.array) != rows for tensor in outputs):
            return [self._alone(item) for item in batch]
        self.runs += 1
        self.rows += rows
        results: list[list[Tensor] | Exception] = []
        at = 0
        for item in batch:
            end = at + item.rows
            results.append(
                [Tensor(tensor.name, tensor.datatype, tensor.array[at:end]) for tensor in outputs]
            )
            at = end
        return results


def _deliver(batch: list[_Waiting], results: list[list[Tensor] | Exception]) -> None:
    for item, result in zip(batch, results, strict=True):
        if item.future.done():
            continue
        if isinstance(result, Exception):
            item.future.set_exception(result)
        else:
            item.future.set_result(result)


def answers_rows(predictor: Predictor, probe: Mapping[str, Array]) -> bool:
    """Find out whether rows of different requests may share a run.

    An open first dimension does not prove that rows are independent (it may be a sequence, or the
    graph may normalise over it), so three different rows run alone and together, and the answers
    must be the same.

    Parameters
    ----------
    predictor
        The model.
    probe
        An input that it can compute, one row where it computes one.

    Returns
    -------
    bool
        False also where the model refuses a single row, or the made-up rows.
    """
    if not predictor.signature.is_batched:
        return False
    if any(len(array) != 1 for array in probe.values()):
        # A request would be answered or not by how many others wait.
        _log.warning("the model refuses a single row; requests will not share runs")
        return False
    for whole_numbers in (True, False):
        random = np.random.default_rng(7)
        rows = [
            {name: _varied(array, random, whole_numbers) for name, array in probe.items()}
            for _ in range(3)
        ]
        try:
            return _same_together(predictor, rows)
        except ModelFailed:
            continue
    _log.warning("the model refuses made-up rows; requests will not share runs")
    return False


def _same_together(predictor: Predictor, rows: list[dict[str, Array]]) -> bool:
    alone = [predictor.run(row, None) for row in rows]
    together = predictor.run(
        {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}, None
    )
    for at, tensor in enumerate(together):
        if len(tensor.array) != len(rows) or not all(
            _same(tensor.datatype, tensor.array[i : i + 1], alone[i][at].array)
            for i in range(len(rows))
        ):
            _log.warning(
                "output %r of a row depends on the rows beside it; requests will not share runs",
                tensor.name,
            )
            return False
    return True


def _varied(array: Array, random: np.random.Generator, whole_numbers: bool) -> Array:
    """Return another row of the same shape and kind.

    Texts stay as the probe had them, and whole numbers too where the model refuses others: they may
    be categories or places in a table.
    """
    if array.dtype.kind == "f":
        return random.standard_normal(array.shape).astype(array.dtype)
    if array.dtype.kind in "iu" and whole_numbers:
        return random.integers(0, 3, array.shape).astype(array.dtype)
    return array.copy()


def _same(datatype: str, left: Array, right: Array) -> bool:
    if left.shape != right.shape:
        return False
    if left.dtype.kind == "f":
        relative, absolute = TOLERANCE
        return np.allclose(left, right, relative, absolute, equal_nan=True)
    if datatype == "BF16":
        return _same("FP32", bf16_to_float32(left), bf16_to_float32(right))
    return np.array_equal(left, right)
