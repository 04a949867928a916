"""The prediction log between the request path and the store: a bounded queue and one thread.

The request path appends to a deque and goes on. The thread gathers what came, writes it in
batches, and when the database is away keeps trying while the queue holds what it can. What does
not fit is dropped and counted by reason. (A durable spool takes this place in a later release;
the request path will not notice.)
"""

import logging
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from moorage_api import uuid7
from moorage_api.errors import Conflict, StoreUnavailable
from moorage_gateway.prediction_log import Batch, PredictionStore, Record
from moorage_serving import metrics

#: Memory that waiting records may hold.
MAX_BYTES: Final = 256 * 1024 * 1024
#: Most records in one write.
MAX_BATCH: Final = 5000
#: How long the thread lets records gather before it writes, in seconds.
GATHER_S: Final = 0.02
#: Waits between attempts while the database is away, in seconds.
BACKOFF_S: Final = (0.1, 30.0)

_log = logging.getLogger(__name__)


class BufferedLog:
    """A `PredictionLog` in front of a `PredictionStore`.

    Parameters
    ----------
    store
        Where records go.
    max_bytes
        Memory that waiting records may hold.
    on_trouble
        Is called whenever `trouble` changes, with what it is now, in the thread that writes.
    """

    def __init__(
        self,
        store: PredictionStore,
        *,
        max_bytes: int = MAX_BYTES,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._on_trouble = on_trouble
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[Record, int]] = deque()
        # Each is written by one thread alone; their difference is what is held.
        self._bytes_in = 0
        self._bytes_out = 0
        self._in_hand = 0
        self._something = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moorage-log", daemon=True)
        self._source = uuid.uuid4().bytes
        self._sequence = 0
        self._written = 0
        self._dropped = metrics.Counter(
            "moorage_prediction_log_dropped", "Predictions that were not stored.", ("reason",)
        )
        #: Why nothing can be stored now; empty while all is well.
        self.trouble = ""

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def append(self, record: Record) -> None:
        """Take a record; see `PredictionLog.append`."""
        size = record.nbytes
        if self._bytes_in - self._bytes_out + size > self._max_bytes:
            self._dropped.add(1, "buffer_full")
            return
        self._bytes_in += size
        self._waiting.append((record, size))
        if not self._something.is_set():
            self._something.set()

    def close(self, timeout_s: float) -> int:
        """Write what waits and stop; what is not written in time is counted and told.

        Returns
        -------
        how many records were dropped since the start, for whatever reason
        """
        self._closing.set()
        self._something.set()
        self._thread.join(timeout_s)
        lost = self.pending
        if lost:
            self._dropped.add(lost, "shutdown")
            _log.error("predictions were not stored before the end", extra={"lost": lost})
        return sum(map(self.dropped, ("buffer_full", "refused", "shutdown")))

    @property
    def pending(self) -> int:
        """How many records are not stored yet."""
        return len(self._waiting) + self._in_hand

    @property
    def written(self) -> int:
        """How many records have been stored."""
        return self._written

    def dropped(self, reason: str) -> int:
        """Return how many records were dropped: "buffer_full", "refused" or "shutdown"."""
        return int(self._dropped.get(reason))

    def collectors(self) -> list[metrics.Collector]:
        """Return what is counted here."""
        written = metrics.Counter(
            "moorage_prediction_log_written", "Predictions that were stored.", ()
        )
        written.add(self._written)
        pending = metrics.Gauge(
            "moorage_prediction_log_pending",
            "Predictions that wait to be stored.",
            (),
            lambda: [((), self.pending)],
        )
        return [written, self._dropped, pending]

    def _run(self) -> None:
        if not self._persist(self._prepare):
            return
        while True:
            self._something.wait()
            # Let some gather; on closing, go on at once.
            self._closing.wait(GATHER_S)
            self._something.clear()
            while items := self._take():
                self._write([record for record, _ in items])
                self._bytes_out += sum(size for _, size in items)
            if self._closing.is_set():
                return

    def _prepare(self) -> None:
        """Have the tables made; any trouble is waited out, for nothing is stored without them."""
        try:
            self._store.prepare()
        except (StoreUnavailable, Conflict):
            raise
        except Exception as error:
            raise StoreUnavailable(f"the database cannot be prepared: {error!r}") from error

    def _take(self) -> list[tuple[Record, int]]:
        items: list[tuple[Record, int]] = []
        waiting = self._waiting
        while waiting and len(items) < MAX_BATCH:
            self._in_hand += 1
            items.append(waiting.popleft())
        return items

    def _write(self, records: Sequence[Record]) -> None:
        """Store records; one that the database refuses is found by halving and set aside."""
        self._sequence += 1
        batch = Batch(self._source, self._sequence, records)
        try:
            if not self._persist(lambda: self._store.write(batch)):
                return
        except Exception as error:  # noqa: BLE001 - one record must not keep the others out
            if len(records) > 1:
                half = len(records) // 2
                self._write(records[:half])
                self._write(records[half:])
                return
            self._dropped.add(1, "refused")
            _log.exception(
                "a prediction cannot be stored",
                extra={"id": uuid7.text(records[0].id), "error": str(error)},
            )
        else:
            self._written += len(records)
        self._in_hand -= len(records)

    def _persist(self, action: Callable[[], None]) -> bool:
        """Do it, again and again while the database is away; False when closing came first.

        Raises
        ------
        MoorageError
            When the database refuses what it is given; trying again would not help.
        """
        delay, longest = BACKOFF_S
        while True:
            last = self._closing.is_set()
            try:
                action()
            except (StoreUnavailable, Conflict) as error:
                # A schema newer than this program (Conflict) may be rolled back.
                if str(error) != self.trouble:
                    self._tell(str(error))
                    _log.warning("predictions cannot be stored; trying again: %s", error)
            else:
                if self.trouble:
                    self._tell("")
                    _log.warning("predictions are stored again")
                return True
            if last:
                return False
            self._closing.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
            delay = min(delay * 2, longest)

    def _tell(self, trouble: str) -> None:
        self.trouble = trouble
        self._on_trouble(trouble)
