"""What `moorage up` tells a person, and when it says that all is ready."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from moorage_api.folder import Observed
from moorage_api.names import Qualified
from moorage_api.reasons import Condition, Phase, Reason
from moorage_api.v1alpha1 import ConditionStatus, ModelDeploymentStatus
from moorage_cli.local import up
from moorage_cli.local.up import Reporter, Told

IRIS = Qualified("default", "iris")
DIGITS = Qualified("default", "digits")


def observed(phase: Phase, message: str = "") -> Observed:
    condition = ConditionStatus(
        type=Condition.READY,
        status="True" if phase is Phase.READY else "False",
        reason=Reason.SERVING,
        message=message,
        last_transition_time=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return Observed("", (), ModelDeploymentStatus(phase=phase, conditions=[condition]))


class Heard:
    """What a person reads."""

    def __init__(self) -> None:
        self.changed: list[tuple[str, str]] = []
        self.ready: list[str] = []
        self.warned: list[str] = []
        self.reporter = Reporter(
            changed=lambda key, seen: self.changed.append((key.name, seen.status.phase)),
            ready=self.ready.append,
            warned=self.warned.append,
        )


def test_a_deployment_is_told_of_when_its_phase_or_words_change() -> None:
    heard = Heard()
    told = Told(heard.reporter)
    told.hear({IRIS: observed(Phase.PENDING)})
    told.hear({IRIS: observed(Phase.PENDING), DIGITS: observed(Phase.PENDING)})
    told.hear({IRIS: observed(Phase.READY), DIGITS: observed(Phase.PENDING)})
    told.hear({IRIS: observed(Phase.READY), DIGITS: observed(Phase.PENDING, "loading")})
    told.hear({IRIS: observed(Phase.READY), DIGITS: observed(Phase.PENDING, "loading")})
    assert heard.changed == [
        ("iris", "Pending"),
        ("digits", "Pending"),
        ("iris", "Ready"),
        ("digits", "Pending"),
    ]


def test_a_deployment_that_comes_back_is_told_of_again() -> None:
    heard = Heard()
    told = Told(heard.reporter)
    for seen in ({IRIS: observed(Phase.READY)}, {}, {IRIS: observed(Phase.READY)}):
        told.hear(seen)
    assert len(heard.changed) == 2
    assert told.phases == {IRIS: Phase.READY}


async def _when(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.001)


async def _passes() -> None:
    """Let the other tasks have their turns."""
    for _ in range(20):
        await asyncio.sleep(0)


def _listed(**phases: str) -> dict[str, Any]:
    entries = [
        {"namespace": "default", "name": name, "status": phase} for name, phase in phases.items()
    ]
    return {"deployments": entries}


def test_ready_is_said_once_the_gateway_has_seen_it_too(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "_ANNOUNCE_S", 0.001)
    heard = Heard()

    async def run() -> None:
        told = Told(heard.reporter)
        task = asyncio.create_task(up.announce(told, scripted.url, heard.reporter))
        told.hear({IRIS: observed(Phase.READY), DIGITS: observed(Phase.STOPPED)})
        for status, answer in (
            (200, _listed(iris="Pending", digits="Stopped")),
            (200, _listed(iris="Ready")),
            (200, _listed(iris="Ready", digits="Stopped", old="Ready")),
            (200, {"hello": "world"}),
            (503, {"error": "not yet"}),
        ):
            scripted.answer(status, answer)
            asked = len(scripted.asked)
            # The second question after this one has had the new answer.
            await _when(lambda asked=asked: len(scripted.asked) > asked + 2)  # type: ignore[misc]
            assert heard.ready == []
        scripted.answer(200, _listed(digits="Stopped", iris="Ready"))
        await asyncio.wait_for(task, 30)

    asyncio.run(run())
    assert heard.ready == [scripted.url]


def test_what_failed_is_named_once_when_nothing_else_is_in_the_way_of_ready(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "_ANNOUNCE_S", 0.001)
    heard = Heard()

    async def run() -> None:
        told = Told(heard.reporter)
        task = asyncio.create_task(up.announce(told, scripted.url, heard.reporter))
        scripted.answer(200, _listed(iris="Failed", digits="Ready"))
        told.hear({IRIS: observed(Phase.FAILED), DIGITS: observed(Phase.READY)})
        await _when(lambda: len(heard.warned) == 1)
        # It is tried again, and fails again: no news.
        told.hear({IRIS: observed(Phase.PENDING), DIGITS: observed(Phase.READY)})
        await _passes()
        told.hear({IRIS: observed(Phase.FAILED), DIGITS: observed(Phase.READY)})
        await _passes()
        scripted.answer(200, _listed(iris="Failed", digits="Failed"))
        told.hear({IRIS: observed(Phase.FAILED), DIGITS: observed(Phase.FAILED)})
        await _when(lambda: len(heard.warned) == 2)
        assert heard.ready == []
        scripted.answer(200, _listed(iris="Ready", digits="Stopped"))
        told.hear({IRIS: observed(Phase.READY), DIGITS: observed(Phase.STOPPED)})
        await asyncio.wait_for(task, 30)

    asyncio.run(run())
    assert heard.ready == [scripted.url]
    one, both = heard.warned
    assert one.startswith(
        f"not ready: default/iris failed; everything else serves at {scripted.url}; "
    )
    assert both.startswith("not ready: default/iris, default/digits failed; `moorage status")


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.DEGRADED, Phase.FAILED])
def test_ready_is_not_said_while_one_does_not_serve(
    scripted: Any, monkeypatch: pytest.MonkeyPatch, phase: Phase
) -> None:
    monkeypatch.setattr(up, "_ANNOUNCE_S", 0)
    scripted.answer(200, _listed(iris=phase, digits="Ready"))
    heard = Heard()

    async def run() -> None:
        told = Told(heard.reporter)
        task = asyncio.create_task(up.announce(told, scripted.url, heard.reporter))
        await _passes()
        # Nothing has been looked at yet.
        assert not task.done()
        told.hear({IRIS: observed(phase), DIGITS: observed(Phase.READY)})
        await _passes()
        assert not task.done()
        # What is in the way goes.
        told.hear({DIGITS: observed(Phase.READY)})
        scripted.answer(200, _listed(digits="Ready"))
        await asyncio.wait_for(task, 30)

    asyncio.run(run())
    assert heard.ready == [scripted.url]
