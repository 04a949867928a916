"""The buffered log, over a real SQLite store in which troubles can be arranged."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moorage_api import uuid7
from moorage_api.errors import Conflict, InvalidRequest, StoreUnavailable
from moorage_api.signature import Signature, TensorSpec
from moorage_api.tensors import Tensor
from moorage_gateway import log_buffer, store
from moorage_gateway.log_buffer import BufferedLog
from moorage_gateway.prediction_log import Batch, ModelIdentity, PredictionStore, Query, Record
from moorage_serving import metrics

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 1)),))
IDENTITY = ModelIdentity("default", "m", "stable", "m", "1", "0" * 64, SIGNATURE)

Trouble = Callable[[Batch | None], None]


def record_of(number: int, *, kib: int = 0) -> Record:
    x = np.full((1, 2), number, np.float32)
    y = np.zeros((max(1, kib * 256), 1), np.float32)
    return Record(
        uuid7.build((1_780_000_000_000 + number) * 1_000_000, bytes(8)),
        IDENTITY,
        "v2",
        200,
        [Tensor("x", "FP32", x)],
        [Tensor("y", "FP32", y)],
        1,
    )


class TroubledStore:
    """A real store; before each write, and before preparing, `trouble` may raise."""

    def __init__(self, real: PredictionStore) -> None:
        self._real = real
        self.trouble: Trouble = lambda _: None
        self.attempts: list[Batch | None] = []
        self.attempted = threading.Semaphore(0)

    def prepare(self) -> None:
        self._before(None)
        self._real.prepare()

    def write(self, batch: Batch) -> None:
        self._before(batch)
        self._real.write(batch)

    def _before(self, batch: Batch | None) -> None:
        self.attempts.append(batch)
        self.attempted.release()
        self.trouble(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def numbers(self) -> list[int]:
        """Which records are stored, in the order of their making."""
        rows = self._real.page(Query(limit=1000)).rows
        return sorted(
            int(row.timestamp.timestamp() * 1000 - 1_780_000_000_000 + 0.5) for row in rows
        )


@pytest.fixture
def troubled(tmp_path: Path) -> Iterator[TroubledStore]:
    found = TroubledStore(store.connect(f"sqlite:///{tmp_path / 'p.db'}"))
    yield found
    found.close()


@pytest.fixture
def log(troubled: TroubledStore, deadline_s: float, monkeypatch: Any) -> Iterator[BufferedLog]:
    """A log that is not started; it tries again without a wait worth the name."""
    monkeypatch.setattr(log_buffer, "BACKOFF_S", (0.001, 0.002))
    monkeypatch.setattr(log_buffer, "GATHER_S", 0.001)
    made = BufferedLog(troubled)
    yield made
    # So that a test that fails leaves no thread behind.
    troubled.trouble = lambda _: None
    if made._thread.is_alive():
        made.close(deadline_s)


@pytest.fixture
def until(deadline_s: float) -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end, "it did not come to pass"
            time.sleep(0.001)

    return wait


def refuse(*numbers: int) -> Trouble:
    """Refuse every batch with one of these records."""
    ids = {record_of(number).id for number in numbers}

    def trouble(batch: Batch | None) -> None:
        if batch is not None and any(record.id in ids for record in batch.records):
            raise InvalidRequest("not this one")

    return trouble


def away(_: Batch | None) -> None:
    raise StoreUnavailable("the database is away")


def test_what_is_appended_is_stored(
    log: BufferedLog, troubled: TroubledStore, deadline_s: float
) -> None:
    log.start()
    for number in range(100):
        log.append(record_of(number))
    log.close(deadline_s)
    assert troubled.numbers() == list(range(100))
    assert (log.written, log.pending, log.trouble) == (100, 0, "")


def test_what_was_appended_before_the_start_is_stored_in_few_batches(
    log: BufferedLog, troubled: TroubledStore, deadline_s: float, monkeypatch: Any
) -> None:
    monkeypatch.setattr(log_buffer, "MAX_BATCH", 40)
    for number in range(100):
        log.append(record_of(number))
    assert log.pending == 100
    log.start()
    log.close(deadline_s)
    sizes = [len(batch.records) for batch in troubled.attempts if batch]
    assert sizes == [40, 40, 20]
    assert troubled.numbers() == list(range(100))


def test_nothing_is_lost_or_stored_twice_while_the_database_is_away(
    log: BufferedLog, troubled: TroubledStore, until: Any, deadline_s: float
) -> None:
    log.start()
    log.append(record_of(0))
    until(lambda: log.written == 1)
    troubled.trouble = away
    log.append(record_of(1))
    until(lambda: log.trouble == "the database is away")
    for number in range(2, 20):
        log.append(record_of(number))
    for _ in range(3):
        assert troubled.attempted.acquire(timeout=deadline_s)
    assert log.pending == 19
    troubled.trouble = lambda _: None
    until(lambda: not log.pending)
    assert log.trouble == ""
    log.close(deadline_s)
    assert troubled.numbers() == list(range(20))


def test_a_write_whose_commit_is_in_doubt_is_tried_as_the_same_batch(
    log: BufferedLog, troubled: TroubledStore, until: Any, deadline_s: float
) -> None:
    failed: list[Batch] = []

    def commit_then_break(batch: Batch | None) -> None:
        if batch is not None and not failed:
            failed.append(batch)
            troubled._real.write(batch)
            raise StoreUnavailable("the connection broke while committing")

    troubled.trouble = commit_then_break
    log.start()
    log.append(record_of(0))
    until(lambda: log.written == 1)
    log.close(deadline_s)
    again = troubled.attempts[-1]
    assert again is not None
    assert (again.source, again.sequence) == (failed[0].source, failed[0].sequence)
    assert troubled.numbers() == [0]


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(StoreUnavailable("not yet"), id="away"),
        pytest.param(Conflict("a newer schema"), id="a newer schema, which may be rolled back"),
        pytest.param(ValueError("a surprise"), id="something unexpected"),
    ],
)
def test_a_database_that_is_not_there_at_the_start_is_waited_for(
    log: BufferedLog, troubled: TroubledStore, until: Any, deadline_s: float, error: Exception
) -> None:
    def not_yet(batch: Batch | None) -> None:
        if batch is None and len(troubled.attempts) < 3:
            raise error

    troubled.trouble = not_yet
    log.start()
    log.append(record_of(0))
    until(lambda: log.written == 1)
    log.close(deadline_s)
    assert troubled.attempts[:3] == [None, None, None]
    assert troubled.numbers() == [0]


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param([0], id="the first"),
        pytest.param([20], id="one in the middle"),
        pytest.param([39], id="the last"),
        pytest.param([3, 4, 27], id="three"),
        pytest.param(list(range(40)), id="all"),
    ],
)
def test_a_record_that_is_refused_is_set_aside_and_the_others_are_stored(
    log: BufferedLog,
    troubled: TroubledStore,
    deadline_s: float,
    caplog: pytest.LogCaptureFixture,
    refused: list[int],
) -> None:
    troubled.trouble = refuse(*refused)
    for number in range(40):
        log.append(record_of(number))
    log.start()
    log.close(deadline_s)
    assert troubled.numbers() == [number for number in range(40) if number not in refused]
    assert log.dropped("refused") == len(refused)
    assert log.dropped("shutdown") == 0
    assert log.pending == 0
    told = [record for record in caplog.records if "cannot be stored" in record.message]
    assert {getattr(record, "id", "") for record in told} == {
        uuid7.text(record_of(number).id) for number in refused
    }


def test_the_database_going_away_amid_the_halving_loses_nothing(
    log: BufferedLog, troubled: TroubledStore, until: Any, deadline_s: float
) -> None:
    refusing = refuse(5)

    def trouble(batch: Batch | None) -> None:
        if len(troubled.attempts) in (4, 5, 7):
            raise StoreUnavailable("away for a moment")
        refusing(batch)

    troubled.trouble = trouble
    for number in range(16):
        log.append(record_of(number))
    log.start()
    until(lambda: not log.pending)
    log.close(deadline_s)
    assert troubled.numbers() == [number for number in range(16) if number != 5]
    assert log.dropped("refused") == 1


def test_an_unexpected_error_does_not_end_the_thread(
    log: BufferedLog, troubled: TroubledStore, until: Any, deadline_s: float
) -> None:
    def break_once(batch: Batch | None) -> None:
        if batch is not None and not log.dropped("refused"):
            raise ZeroDivisionError("a bug in the store")

    troubled.trouble = break_once
    log.start()
    log.append(record_of(0))
    until(lambda: log.dropped("refused") == 1)
    log.append(record_of(1))
    until(lambda: log.written == 1)
    log.close(deadline_s)
    assert troubled.numbers() == [1]


def test_what_does_not_fit_the_buffer_is_counted_and_never_waits(
    troubled: TroubledStore, until: Any, deadline_s: float, monkeypatch: Any
) -> None:
    monkeypatch.setattr(log_buffer, "BACKOFF_S", (0.001, 0.002))
    size = record_of(0).nbytes
    log = BufferedLog(troubled, max_bytes=3 * size)
    troubled.trouble = away
    log.start()
    for number in range(5):
        log.append(record_of(number))
    assert log.pending == 3
    assert log.dropped("buffer_full") == 2
    # What has been stored makes room again.
    troubled.trouble = lambda _: None
    until(lambda: log.written == 3)
    until(lambda: log._bytes_in == log._bytes_out)
    for number in range(5, 8):
        log.append(record_of(number))
    log.close(deadline_s)
    assert troubled.numbers() == [0, 1, 2, 5, 6, 7]
    assert log.dropped("buffer_full") == 2


def test_large_records_fill_the_buffer_by_their_size(troubled: TroubledStore) -> None:
    log = BufferedLog(troubled, max_bytes=64 * 1024)
    for number in range(4):
        log.append(record_of(number, kib=30))
    assert (log.pending, log.dropped("buffer_full")) == (2, 2)


def test_closing_counts_what_could_not_be_stored(
    log: BufferedLog,
    troubled: TroubledStore,
    until: Any,
    deadline_s: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    log.start()
    log.append(record_of(0))
    until(lambda: log.written == 1)
    troubled.trouble = away
    for number in range(1, 8):
        log.append(record_of(number))
    until(lambda: bool(log.trouble))
    log.close(deadline_s)
    # It ended by itself, not because waiting for it ended.
    assert not log._thread.is_alive()
    assert log.dropped("shutdown") == 7
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [getattr(record, "lost", None) for record in errors] == [7]


def test_closing_before_the_database_was_ever_there_counts_everything(
    log: BufferedLog, troubled: TroubledStore, deadline_s: float
) -> None:
    troubled.trouble = away
    log.start()
    for number in range(4):
        log.append(record_of(number))
    log.close(deadline_s)
    assert log.dropped("shutdown") == 4
    assert troubled.attempts.count(None) == len(troubled.attempts)


def test_closing_makes_a_last_attempt_without_waiting_out_the_pause(
    troubled: TroubledStore, until: Any, deadline_s: float, monkeypatch: Any
) -> None:
    """The pause here is longer than the test may take."""
    monkeypatch.setattr(log_buffer, "BACKOFF_S", (10 * deadline_s, 10 * deadline_s))
    log = BufferedLog(troubled)
    log.start()
    log.append(record_of(0))
    until(lambda: log.written == 1)
    troubled.trouble = away
    log.append(record_of(1))
    until(lambda: bool(log.trouble))
    troubled.trouble = lambda _: None
    log.close(deadline_s)
    assert troubled.numbers() == [0, 1]
    assert log.dropped("shutdown") == 0


def test_metrics_tell_what_was_stored_what_waits_and_what_was_lost(
    log: BufferedLog, troubled: TroubledStore, deadline_s: float
) -> None:
    troubled.trouble = refuse(1)
    for number in range(3):
        log.append(record_of(number))
    before = metrics.render(log.collectors()).decode()
    log.start()
    log.close(deadline_s)
    after = metrics.render(log.collectors()).decode()
    assert "moorage_prediction_log_pending 3.0" in before
    assert "moorage_prediction_log_pending 0.0" in after
    assert "moorage_prediction_log_written_total 2.0" in after
    assert 'moorage_prediction_log_dropped_total{reason="refused"} 1.0' in after


def test_whoever_asked_hears_of_trouble_when_it_begins_changes_and_ends(
    troubled: TroubledStore, until: Any, deadline_s: float, monkeypatch: Any
) -> None:
    monkeypatch.setattr(log_buffer, "BACKOFF_S", (0.001, 0.002))
    heard: list[str] = []
    log = BufferedLog(troubled, on_trouble=heard.append)
    troubled.trouble = away
    log.start()
    for _ in range(3):
        assert troubled.attempted.acquire(timeout=deadline_s)
    assert heard == ["the database is away"]

    def full(_: Batch | None) -> None:
        raise StoreUnavailable("the disk is full")

    troubled.trouble = full
    until(lambda: len(heard) == 2)
    troubled.trouble = lambda _: None
    log.append(record_of(0))
    until(lambda: log.written == 1)
    assert log.close(deadline_s) == 0
    assert heard == ["the database is away", "the disk is full", ""]


def test_closing_returns_how_many_were_dropped_for_whatever_reason(
    troubled: TroubledStore, until: Any, deadline_s: float, monkeypatch: Any
) -> None:
    monkeypatch.setattr(log_buffer, "BACKOFF_S", (0.001, 0.002))
    log = BufferedLog(troubled, max_bytes=2 * record_of(0).nbytes)
    troubled.trouble = refuse(0)
    log.append(record_of(0))
    log.start()
    until(lambda: log.dropped("refused") == 1 and not log.pending)
    troubled.trouble = away
    # The refused one's memory is free a moment after it is counted.
    until(lambda: log._bytes_in == log._bytes_out)
    for number in range(1, 6):
        log.append(record_of(number))
    assert log.close(deadline_s) == 6
    assert [log.dropped(reason) for reason in ("refused", "buffer_full", "shutdown")] == [1, 3, 2]


def test_trouble_is_told_once_and_its_end_too(
    log: BufferedLog,
    troubled: TroubledStore,
    until: Any,
    deadline_s: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    troubled.trouble = away
    log.start()
    for _ in range(4):
        assert troubled.attempted.acquire(timeout=deadline_s)
    troubled.trouble = lambda _: None
    log.append(record_of(0))
    until(lambda: log.written == 1)
    log.close(deadline_s)
    assert [record.message for record in caplog.records] == [
        "predictions cannot be stored; trying again: the database is away",
        "predictions are stored again",
    ]
