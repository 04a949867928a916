"""Pages of a prediction store: complete, in order, and what was asked for.

Held by SQLite and PostgreSQL alike.
"""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.predictions import (
    NOON,
    NOON_MS,
    identity,
    iris,
    make_id,
    read_all,
    read_pages,
    write,
)

from moorage_api import uuid7
from moorage_api.errors import InvalidRequest
from moorage_gateway import store as prediction_store
from moorage_gateway.prediction_log import (
    PredictionStore,
    Query,
    Record,
)

TRAFFIC = [
    replace(
        iris(
            # Several in the same millisecond.
            number // 3,
            number=number,
            rows=1 + number % 3,
            of=identity(
                namespace=("default", "lab")[number % 2],
                deployment=("iris", "wine")[number // 2 % 2],
                model=("iris", "wine", "iris")[number % 3],
                version=str(number % 4),
            ),
        ),
        protocol=("predict", "v2", "v1", "seldon")[number % 4],
        status=(200, 200, 400, 200, 503)[number % 5],
    )
    for number in range(60)
]


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
)
def store_of_traffic(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PredictionStore]:
    """A store that holds `TRAFFIC`, for reading."""
    with ExitStack() as stack:
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("postgresql").database())
        else:
            url = f"sqlite:///{tmp_path_factory.mktemp('traffic')}/predictions.db"
        store = stack.enter_context(closing(prediction_store.connect(url)))
        store.prepare()
        write(store, *TRAFFIC)
        yield store


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"namespace": "lab"},
        {"deployment": "wine"},
        {"namespace": "default", "deployment": "iris"},
        {"model": "iris"},
        {"model": "iris", "version": "2"},
        {"version": "3"},
        {"protocol": "v1"},
        {"status": 503},
        {"status": 200},
        {"failed": True},
        {"failed": False},
        {"failed": True, "deployment": "iris", "protocol": "predict"},
        {"failed": True, "status": 200},
        {"since": NOON + timedelta(milliseconds=4), "until": NOON + timedelta(milliseconds=9)},
        {"model": "wine", "until": NOON + timedelta(milliseconds=9), "status": 400},
        {"deployment": "nowhere"},
        {"namespace": "default", "deployment": "iris", "version": "3"},
        {"protocol": "none"},
    ],
    ids=lambda wanted: "-".join(f"{key}={value}" for key, value in wanted.items()) or "all",
)
def test_pages_hold_what_is_wanted_newest_first(
    store_of_traffic: PredictionStore, wanted: dict[str, Any]
) -> None:
    def is_wanted(record: Record) -> bool:
        return all(
            {
                "namespace": record.identity.namespace == value,
                "deployment": record.identity.deployment == value,
                "model": record.identity.model == value,
                "version": record.identity.version == value,
                "protocol": record.protocol == value,
                "status": record.status == value,
                "failed": (record.status >= 400) == value,
                "since": key == "since" and _time_of(record) >= value,
                "until": key == "until" and _time_of(record) < value,
            }[key]
            for key, value in wanted.items()
        )

    expected = [
        (uuid7.text(record.id), row)
        for record in sorted(TRAFFIC, key=lambda record: record.id, reverse=True)
        if is_wanted(record)
        for row in range(record.rows or 0)
    ]

    for limit in (4, len(expected) or 1, 1000):
        pages = list(read_pages(store_of_traffic, Query(**wanted, limit=limit)))
        shown = [(row.request_id, row.row) for page in pages for row in page.rows]
        assert shown == expected
        assert [len(page.rows) for page in pages[:-1]] == [limit] * (len(pages) - 1)
        assert len(pages) == max(1, -(-len(expected) // limit))


def _time_of(record: Record) -> datetime:
    return NOON + timedelta(milliseconds=uuid7.milliseconds(record.id) - NOON_MS)


@pytest.mark.parametrize("wanted", [{}, {"namespace": "lab"}, {"failed": True}], ids=str)
def test_pages_neither_lose_nor_double_rows_while_new_ones_come(
    store: PredictionStore, wanted: dict[str, Any]
) -> None:
    write(store, *TRAFFIC)
    before = [(row.request_id, row.row) for row in read_all(store, **wanted)]
    later = itertools.count(1000)

    def write_more() -> None:
        number = next(later)
        record = TRAFFIC[number % len(TRAFFIC)]
        write(store, replace(record, id=make_id(number)))

    pages = read_pages(store, Query(**wanted, limit=5), write_more)
    shown = [(row.request_id, row.row) for page in pages for row in page.rows]

    assert shown == before


def test_pages_go_through_many_model_versions(store: PredictionStore) -> None:
    records = [
        iris(number % 5, number=number, rows=2, of=identity(version=str(number % 20)))
        for number in range(40)
    ]
    write(store, *records)

    shown = [(row.request_id, row.row) for row in read_all(store, deployment="iris", limit=7)]

    assert shown == [
        (uuid7.text(record.id), row)
        for record in sorted(records, key=lambda record: record.id, reverse=True)
        for row in range(2)
    ]


def test_since_is_included_and_until_is_not(store: PredictionStore) -> None:
    write(store, *(iris(number) for number in range(3)))

    def shown(since_us: int | None, until_us: int | None) -> list[float]:
        since, until = (
            None if time is None else NOON + timedelta(microseconds=time)
            for time in (since_us, until_us)
        )
        return [row.inputs["input[0]"] for row in read_all(store, since=since, until=until)]

    assert shown(0, 3000) == [2, 1, 0]
    assert shown(1000, 2000) == [1]
    assert shown(1000, 1000) == []
    assert shown(1, 2001) == [2, 1]
    assert shown(999, 1001) == [1]
    assert shown(None, 1000) == [0]
    assert shown(2000, None) == [2]


def test_times_of_any_zone_and_far_away_are_understood(store: PredictionStore) -> None:
    write(store, iris())
    always = {
        "since": datetime(1, 1, 1, tzinfo=UTC),
        "until": datetime.max.replace(tzinfo=UTC),
    }

    assert len(read_all(store, **always)) == 1
    assert read_all(store, until=always["since"]) == []
    assert read_all(store, since=always["until"]) == []
    assert len(read_all(store, since=NOON.astimezone())) == 1


@pytest.mark.parametrize("deployment", ["", "nowhere"])
def test_a_time_without_a_zone_is_refused(store: PredictionStore, deployment: str) -> None:
    with pytest.raises(InvalidRequest, match="no time zone"):
        store.page(Query(deployment=deployment, since=NOON.replace(tzinfo=None)))


@pytest.mark.parametrize("deployment", ["", "nowhere"])
def test_a_forged_cursor_is_refused(store: PredictionStore, deployment: str) -> None:
    write(store, iris(), iris(1))
    cursor = store.page(Query(limit=1)).cursor
    swapped = "B" if cursor[5] != "B" else "C"
    forged = [
        "x",
        "?",
        "é",
        "\ud800",
        "A" * 38,
        cursor[:-1],
        cursor + "A",
        cursor[:5] + swapped + cursor[6:],
        cursor[::-1],
    ]

    for after in forged:
        with pytest.raises(InvalidRequest, match="not the cursor of a page"):
            store.page(Query(deployment=deployment, after=after))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_without_rows_is_refused(store: PredictionStore, limit: int) -> None:
    with pytest.raises(InvalidRequest, match="at least 1 row"):
        store.page(Query(limit=limit))


@pytest.mark.parametrize("field", ["namespace", "deployment", "model", "version", "protocol"])
def test_a_filter_that_no_database_takes_finds_nothing_or_is_refused(
    store: PredictionStore, field: str
) -> None:
    write(store, iris())

    for value in ("nul\0", "\ud800"):
        with suppress(InvalidRequest):
            assert read_all(store, **{field: value}) == []


def test_counts_the_rows_of_every_deployment(store: PredictionStore) -> None:
    assert list(store.count()) == []

    write(
        store,
        iris(rows=3),
        iris(1, of=identity(version="2")),
        iris(2, rows=2, of=identity(namespace="lab")),
    )

    assert list(store.count()) == [("default/iris", 4), ("lab/iris", 2)]
