"""Counters and histograms that cost the request path a list index, and their Prometheus form.

prometheus_client's own instruments take a lock for each update. Each process here has one thread
that counts, so plain numbers do; prometheus_client renders them when somebody asks, and is
imported only then.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Reads a gauge: yields label values and the value that they have now.
Reader: TypeAlias = "Callable[[], Iterable[tuple[Sequence[str], float]]]"

#: The content type of what `render` returns.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: Upper bounds in seconds, from 100 microseconds to a minute.
LATENCY_BOUNDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
#: Upper bounds of batch sizes, in rows.
SIZE_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Series:
    """Observations of one label set: how many fell at or below each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)


class Histogram:
    """A family of `Series` by label values.

    Parameters
    ----------
    name, about
        As Prometheus shows them; a unit is part of the name.
    labels
        Label names.
    bounds
        Upper bounds of the buckets, ascending.
    """

    def __init__(
        self, name: str, about: str, labels: Sequence[str], bounds: Sequence[float] = LATENCY_BOUNDS
    ) -> None:
        self.name = name
        self.about = about
        self.labels = tuple(labels)
        self.bounds = tuple(bounds)
        self._series: dict[tuple[str, ...], Series] = {}

    def series(self, *values: str) -> Series:
        """Return the series of these label values, made at the first call."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Series(self.bounds)
        return found

    def forget(self, *leading: str) -> None:
        """Drop every series whose first labels have these values: of a deployment that is gone."""
        for key in [key for key in self._series if key[: len(leading)] == leading]:
            del self._series[key]

    def collect(self) -> "Iterator[Metric]":
        """Yield the family in prometheus_client's form."""
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(self.name, self.about, labels=self.labels)
        for values, series in list(self._series.items()):
            buckets: list[tuple[str, float]] = []
            running = 0
            for bound, count in zip((*self.bounds, float("inf")), series.counts, strict=True):
                running += count
                buckets.append(("+Inf" if bound == float("inf") else str(bound), running))
            family.add_metric(values, buckets, series.total)
        yield family


class Counter:
    """A family of counts by label values."""

    def __init__(self, name: str, about: str, labels: Sequence[str]) -> None:
        self.name = name
        self.about = about
        self.labels = tuple(labels)
        self._counts: dict[tuple[str, ...], float] = {}

    def add(self, amount: float, *values: str) -> None:
        """Add to the count of these label values."""
        self._counts[values] = self._counts.get(values, 0) + amount

    def get(self, *values: str) -> float:
        """Return the count of these label values."""
        return self._counts.get(values, 0)

    def collect(self) -> "Iterator[Metric]":
        """Yield the family in prometheus_client's form."""
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily(self.name, self.about, labels=self.labels)
        for values, count in list(self._counts.items()):
            family.add_metric(values, count)
        yield family


class Gauge:
    """Values that are asked for when somebody looks."""

    def __init__(self, name: str, about: str, labels: Sequence[str], read: Reader) -> None:
        self.name = name
        self.about = about
        self.labels = tuple(labels)
        self._read = read

    def collect(self) -> "Iterator[Metric]":
        """Yield the family in prometheus_client's form."""
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(self.name, self.about, labels=self.labels)
        for values, value in self._read():
            family.add_metric(values, value)
        yield family


class Collector(Protocol):
    """Anything with metric families to show."""

    def collect(self) -> "Iterator[Metric]":
        """Yield the families."""


def render(collectors: Iterable[Collector]) -> bytes:
    """Return the text exposition of `collectors`, with the process's own CPU, memory and GC."""
    from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    for collector in (*collectors, PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    return generate_latest(registry)
