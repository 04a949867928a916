from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from moorage_serving import metrics

LABELS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=6)


def shown(*collectors: metrics.Collector) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Render and read back as Prometheus would: value by sample name and labels."""
    text = metrics.render(collectors).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_histogram_is_shown_with_running_buckets_sum_and_count() -> None:
    histogram = metrics.Histogram("wait_seconds", "Waiting.", ["model"], [0.1, 1.0])
    for value in (0.05, 0.1, 0.5, 1.0, 7):
        histogram.series("m").observe(value)
    found = shown(histogram)
    assert found["wait_seconds_bucket", (("le", "0.1"), ("model", "m"))] == 2
    assert found["wait_seconds_bucket", (("le", "1.0"), ("model", "m"))] == 4
    assert found["wait_seconds_bucket", (("le", "+Inf"), ("model", "m"))] == 5
    assert found["wait_seconds_count", (("model", "m"),)] == 5
    assert found["wait_seconds_sum", (("model", "m"),)] == pytest.approx(8.65)


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0.001, 100), min_size=1, unique=True))
def test_every_observation_is_in_the_buckets_that_hold_it(
    values: list[float], bounds: list[float]
) -> None:
    histogram = metrics.Histogram("h", "H.", [], sorted(bounds))
    series = histogram.series()
    for value in values:
        series.observe(value)
    (family,) = histogram.collect()
    buckets = {s.labels["le"]: s.value for s in family.samples if s.name == "h_bucket"}
    for bound in bounds:
        assert buckets[str(bound)] == sum(value <= bound for value in values)
    assert buckets["+Inf"] == series.count == len(values)


def test_label_values_have_series_of_their_own_that_can_be_forgotten() -> None:
    histogram = metrics.Histogram("h", "H.", ["deployment", "status"])
    for labels in (("a", "200"), ("a", "500"), ("b", "200")):
        histogram.series(*labels).observe(1)
    assert histogram.series("a", "200") is histogram.series("a", "200")
    histogram.forget("a", "500")
    assert histogram.series("a", "200").count == 1
    histogram.forget("a")
    (family,) = histogram.collect()
    assert {sample.labels["deployment"] for sample in family.samples} == {"b"}
    assert histogram.series("a", "200").count == 0


@given(st.dictionaries(st.tuples(LABELS, LABELS), st.integers(0, 10**9), max_size=4))
def test_counters_are_shown_with_whatever_labels(counts: dict[tuple[str, str], int]) -> None:
    counter = metrics.Counter("runs", "Runs \\ of\nmodels.", ["a", "b"])
    for labels, count in counts.items():
        counter.add(count, *labels)
        counter.add(1, *labels)
        assert counter.get(*labels) == count + 1
    found = {key: value for key, value in shown(counter).items() if key[0] == "runs_total"}
    assert found == {
        ("runs_total", (("a", a), ("b", b))): count + 1 for (a, b), count in counts.items()
    }
    assert counter.get("never", "seen") == 0


def test_a_gauge_is_read_when_somebody_looks() -> None:
    waiting = 3.0

    def read() -> Iterable[tuple[list[str], float]]:
        yield ["q"], waiting

    gauge = metrics.Gauge("waiting", "Waiting.", ["queue"], read)
    assert shown(gauge)["waiting", (("queue", "q"),)] == 3
    waiting = 0.5
    assert shown(gauge)["waiting", (("queue", "q"),)] == 0.5


def test_the_process_itself_is_shown_too() -> None:
    names = {name for name, _ in shown()}
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "python_info"} <= names


def test_bounds_are_ascending() -> None:
    for bounds in (metrics.LATENCY_BOUNDS, metrics.SIZE_BOUNDS):
        assert list(bounds) == sorted(set(bounds))
