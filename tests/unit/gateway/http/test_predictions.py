"""`/predictions`: the record, read back."""

from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def filled(gateway: Any, signatures: Any) -> Any:
    """A record of twelve predictions: ten by one deployment, one an error, one by another."""
    await gateway.serve("m", signatures["scalar"], lambda t: t)
    await gateway.serve("other", signatures["vector"], namespace="crm", endpoint="o")
    for number in range(9):
        await gateway.client.post("/predict/m", json={"input": number})
    await gateway.client.post("/v1/models/m:predict", json={"instances": ["x"]})
    await gateway.client.post("/v1/models/m:predict", json={"instances": [9]})
    await gateway.client.post("/predict/o", json={"input": [10]})
    await gateway.stored(12)
    return gateway


async def found(gateway: Any, query: str = "") -> list[dict[str, Any]]:
    answer = await gateway.client.get(f"/predictions{query}")
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["predictions"]
    return rows


async def test_pages_hold_everything_once_newest_first(filled: Any) -> None:
    seen: list[str] = []
    after = ""
    sizes = []
    while True:
        answer = (await filled.client.get(f"/predictions?limit=5&after={quote(after)}")).json()
        sizes.append(len(answer["predictions"]))
        seen += [row["prediction_id"] for row in answer["predictions"]]
        after = answer["next"]
        if after is None:
            break
    assert sizes == [5, 5, 2]
    assert seen == [row["prediction_id"] for row in await found(filled)]
    assert seen == sorted(set(seen), reverse=True)


async def test_a_row_says_everything(filled: Any) -> None:
    row = (await found(filled, "?protocol=v1&failed=false"))[0]
    timings = row.pop("timing_ms")
    assert 0 < timings["runtime"] <= timings["total"]
    assert row.pop("timestamp").endswith("+00:00")
    assert row.pop("prediction_id")
    assert row == {
        "row": 0,
        "namespace": "default",
        "deployment": "m",
        "variant": "stable",
        "model_name": "m",
        "version": "1",
        "sha256": "0" * 64,
        "protocol": "v1",
        "status": 200,
        "weight": 1.0,
        "client_id": None,
        "error": None,
        "inputs": {"x": 9.0},
        "outputs": row["outputs"],
    }


#: A filter, and how many rows it finds.
FILTERS = {
    "?deployment=m": 11,
    "?deployment=crm/other": 1,
    "?deployment=default/other": 0,
    "?model_name=other": 1,
    "?version=1": 12,
    "?version=2": 0,
    "?protocol=v1": 2,
    "?protocol=seldon": 0,
    "?status=400": 1,
    "?failed=true": 1,
    "?failed=false": 11,
    "?deployment=m&protocol=v1&failed=false": 1,
    "?since=2020-01-01T00:00:00Z": 12,
    "?until=2020-01-01T00:00:00Z": 0,
    "?since=2020-01-01": 12,
}


async def test_filters_narrow_the_record(filled: Any) -> None:
    """One test for the whole table: it reads one record."""
    assert {query: len(await found(filled, query)) for query in FILTERS} == FILTERS


async def test_times_are_a_half_open_interval_and_utc_without_an_offset(filled: Any) -> None:
    rows = await found(filled)
    moment = datetime.fromisoformat(rows[4]["timestamp"])
    before = {row["prediction_id"] for row in await found(filled, f"?until={quote(str(moment))}")}
    after = {
        row["prediction_id"]
        for row in await found(filled, f"?since={quote(str(moment.replace(tzinfo=None)))}")
    }
    assert before | after == {row["prediction_id"] for row in rows}
    assert not before & after
    assert rows[4]["prediction_id"] in after


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?limit=0", "'limit'"),
        ("?limit=1001", "'limit'"),
        ("?limit=x", "'limit'"),
        ("?status=99", "'status'"),
        ("?status=ok", "'status'"),
        ("?failed=perhaps", "'failed'"),
        ("?protocol=grpc", "'protocol'"),
        ("?since=yesterday", "'since'"),
        ("?until=2020-13-01", "'until'"),
        ("?after=nonsense", "cursor"),
        ("?after=" + "a" * 600, "'after'"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused_by_its_name(
    gateway: Any, query: str, words: str
) -> None:
    answer = await gateway.client.get(f"/predictions{query}")
    assert answer.status_code == 400
    assert words in answer.json()["error"]


async def test_one_prediction_is_shown_with_all_its_rows(filled: Any) -> None:
    answer = await filled.client.post("/predict/m", json={"input": [5, 6, 7]})
    await filled.stored(13)
    identity = answer.headers["x-prediction-id"]
    shown = (await filled.client.get(f"/predictions/{identity}")).json()
    assert shown["prediction_id"] == identity
    assert [row["inputs"] for row in shown["rows"]] == [{"x": 5.0}, {"x": 6.0}, {"x": 7.0}]
    assert "inputs" not in shown
    assert shown["status"] == 200


async def test_a_refused_prediction_is_shown_with_its_error(filled: Any) -> None:
    answer = await filled.client.post("/predict/m", json={"input": "x"})
    await filled.stored(13)
    shown = (await filled.client.get(f"/predictions/{answer.headers['x-prediction-id']}")).json()
    assert (shown["status"], shown["error"]) == (400, answer.json()["error"])


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        ("019789ab-cdef-7123-8567-89abcdef0123", "is stored"),
        ("x", "is not a prediction's id"),
        ("019789ab-cdef-7123-8567-89abcdef012", "is not a prediction's id"),
        ("%00", "is not a prediction's id"),
    ],
)
async def test_a_prediction_that_is_not_stored_is_404(
    gateway: Any, identity: str, words: str
) -> None:
    answer = await gateway.client.get(f"/predictions/{identity}")
    assert answer.status_code == 404
    assert words in answer.json()["error"]
