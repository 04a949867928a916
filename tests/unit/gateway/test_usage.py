"""What each deployment was asked."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from moorage_api.errors import MoorageError
from moorage_gateway.routing import Route
from moorage_gateway.usage import Usage
from moorage_serving import metrics

pytestmark = pytest.mark.anyio


def text_of(usage: Usage) -> str:
    return metrics.render([usage.latency]).decode()


def test_counts_requests_and_their_mean_time(make_route: Callable[..., Route]) -> None:
    tally = Usage().of(make_route("m"))
    assert (tally.requests, tally.average_ms) == (0, None)
    for seconds in (0.25, 0.75):
        tally.count("v2", 200, seconds)
    assert (tally.requests, tally.average_ms) == (2, 500.0)


def test_metrics_tell_deployment_version_protocol_and_status(
    make_route: Callable[..., Route],
) -> None:
    usage = Usage()
    usage.of(make_route("m", "crm", version="3")).count("v1", 200, 0.25)
    usage.of(make_route("m", "crm", version="3")).count("v1", 400, 0.25)
    labels = 'namespace="crm",protocol="v1"'
    shown = text_of(usage)
    for status in (200, 400):
        wanted = (
            f'moorage_prediction_duration_seconds_count{{deployment="m",{labels},'
            f'status="{status}",version="3"}} 1.0'
        )
        assert sorted_labels(wanted) in {sorted_labels(line) for line in shown.splitlines()}


def sorted_labels(line: str) -> tuple[str, ...]:
    head, _, rest = line.partition("{")
    labels, _, value = rest.partition("}")
    return head, *sorted(labels.split(",")), value


def test_another_version_goes_on_counting_under_its_own_label(
    make_route: Callable[..., Route], signatures: Any
) -> None:
    usage = Usage()
    usage.of(make_route("m", version="1")).count("v2", 200, 0.1)
    tally = usage.of(make_route("m", version="2", sha256="f" * 64, signature=signatures["scalar"]))
    tally.count("v2", 200, 0.1)
    assert tally.requests == 2
    assert tally.identity is not None
    assert tally.identity.version == "2"
    assert tally.identity.sha256 == "f" * 64
    assert tally.identity.signature is signatures["scalar"]
    assert 'version="1"' in text_of(usage)
    assert 'version="2"' in text_of(usage)


def test_a_deployment_without_a_signature_has_no_identity(make_route: Callable[..., Route]) -> None:
    assert Usage().of(make_route("m", signature=None)).identity is None


def test_what_is_gone_is_forgotten_and_begins_at_zero_when_it_comes_back(
    make_route: Callable[..., Route],
) -> None:
    usage = Usage()
    gone, kept = make_route("gone"), make_route("kept")
    for route in (gone, kept):
        usage.of(route).count("v2", 200, 0.1)
    usage.keep([kept.key])
    assert usage.of(kept).requests == 1
    assert usage.of(gone).requests == 0
    assert 'deployment="gone"' not in text_of(usage)
    assert 'deployment="kept"' in text_of(usage)


def test_the_same_name_in_another_namespace_is_another_deployment(
    make_route: Callable[..., Route],
) -> None:
    usage = Usage()
    here, there = make_route("m"), make_route("m", "crm")
    for route in (here, there):
        usage.of(route).count("v2", 200, 0.1)
    usage.keep([here.key])
    assert 'namespace="default"' in text_of(usage)
    assert 'namespace="crm"' not in text_of(usage)


def test_what_is_gone_is_remembered_until_its_last_answer(
    make_route: Callable[..., Route],
) -> None:
    usage = Usage()
    route = make_route("m")
    tally = usage.of(route)
    tally.in_flight = 1
    usage.keep([])
    assert usage.of(route) is tally
    tally.in_flight = 0
    usage.keep([])
    assert usage.of(route) is not tally


async def test_draining_ends_with_the_last_request(
    make_route: Callable[..., Route], deadline_s: float
) -> None:
    usage = Usage()
    route = make_route("m")
    usage.of(route).in_flight = 2
    draining = asyncio.create_task(usage.drained(route.key, deadline_s, poll_s=0))
    for left in (2, 1):
        usage.of(route).in_flight = left
        for _ in range(10):
            await asyncio.sleep(0)
        assert not draining.done()
    usage.of(route).in_flight = 0
    await draining


async def test_draining_what_was_never_asked_takes_no_time(
    make_route: Callable[..., Route],
) -> None:
    await Usage().drained(make_route("m").key, 0.0)


async def test_draining_gives_up_and_says_how_many_are_left(
    make_route: Callable[..., Route],
) -> None:
    usage = Usage()
    route = make_route("m")
    usage.of(route).in_flight = 3
    with pytest.raises(MoorageError, match="3 requests of default/m are still under way"):
        await usage.drained(route.key, 0.001, poll_s=0)
