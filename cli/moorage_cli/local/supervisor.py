"""Keeps runtime processes and the gateway as the state folder says: look, decide, act."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

from moorage_api import keys
from moorage_api.folder import Observed
from moorage_api.names import Qualified
from moorage_api.v1alpha1 import ModelStatus, TensorStatus
from moorage_cli.local import process
from moorage_cli.local.process import Child
from moorage_cli.local.state_folder import StateFolder
from moorage_operator.core import local
from moorage_operator.core.local import Process, Start

#: How often the folder and starting runtimes are looked at, in seconds.
POLL_S: Final = 0.1
#: Runtimes answer this machine only: what they are asked directly is not remembered.
_HOST: Final = "127.0.0.1"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    """A process, what is known of it, and the task that listens to it."""

    seen: Process
    child: Child | None = None
    task: asyncio.Task[None] | None = None


class Supervisor:
    """The loop of `moorage up`.

    Parameters
    ----------
    state
        What is asked for, and where to say what is seen.
    gateway_url
        Base URL of the gateway.
    logs
        Folder for the logs of the processes.
    told
        Is called after every look with what is said of all deployments.
    """

    def __init__(
        self,
        state: StateFolder,
        gateway_url: str,
        logs: Path,
        told: Callable[[Mapping[Qualified, Observed]], None],
    ) -> None:
        self._state = state
        self._gateway_url = gateway_url
        self._logs = logs
        self._told = told
        self._processes: dict[int, _Running] = {}
        self._observed: Mapping[Qualified, Observed] = {}
        self._next_id = 0
        self._news = asyncio.Event()
        self._closing = False
        # The runtimes are on this machine: no proxy lies on the way.
        self._client = httpx.AsyncClient(timeout=5, trust_env=False)

    async def run(self) -> None:
        """Look, decide and act until cancelled."""
        while True:
            self._news.clear()
            await self._pass()
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._news.wait()

    async def close(self) -> None:
        """End every process, and wait until they have ended."""
        self._closing = True
        for running in self._processes.values():
            if running.child is not None:
                running.child.stop()
        tasks = [r.task for r in self._processes.values() if r.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _pass(self) -> None:
        now = _now()
        asked = self._state.list()
        seen = [running.seen for running in self._processes.values()]
        plan = local.plan(asked, seen, self._observed, now, gateway_url=self._gateway_url)
        for key, observed in plan.observed.items():
            self._state.tell(key, observed)
        for key in self._observed:
            if key not in plan.observed:
                self._state.forget(key)
        self._observed = plan.observed
        self._told(plan.observed)
        for number in plan.retire:
            self._learn(number, retired_at=now)
        for number in plan.stop:
            child = self._processes[number].child
            if child is not None:
                child.stop()
        for number in plan.forget:
            del self._processes[number]
        for start in plan.start:
            self._start(start)

    def _start(self, start: Start) -> None:
        number = self._next_id
        self._next_id += 1
        running = _Running(
            Process(
                id=number,
                key=start.key,
                flags=start.flags,
                replica=start.replica,
                state="starting",
                started_at=_now(),
                failures=start.failures,
            )
        )
        self._processes[number] = running
        running.task = asyncio.create_task(self._live(number, start))

    async def _live(self, number: int, start: Start) -> None:
        """Run one process from its start to its end."""
        log = self._logs / f"{start.key.namespace}.{start.key.name}.{start.replica}.log"
        running = self._processes[number]
        try:
            running.child = await process.start(
                "moorage_runtime",
                # What the environment says of the gateway's address is not meant for them.
                [*start.flags, "--host", _HOST, "--http-port", "0", "--log-format", "text"],
                log,
                # Nor the password of the gateway's database.
                {keys.ENV_REGISTRY: self._gateway_url, process.ENV_DATABASE: None},
            )
        except OSError as error:
            self._learn(
                number, state="ended", ended_at=_now(), exit_status=1, last_words=str(error)
            )
            return
        if self._closing:
            running.child.stop()
        watch: list[asyncio.Task[None]] = []

        def heard(word: str, what: str) -> None:
            if word == "listening":
                self._learn(number, address=what)
                watch.append(asyncio.create_task(self._watch(number, what)))

        status = await running.child.listen(heard)
        for task in watch:
            task.cancel()
        self._learn(
            number,
            state="ended",
            ended_at=_now(),
            exit_status=status,
            last_words=running.child.last_words(),
        )

    async def _watch(self, number: int, address: str) -> None:
        """Ask a starting runtime how far it is, until it is ready; then what it serves."""
        name = self._processes[number].seen.key.name
        while True:
            with suppress(httpx.HTTPError, ValueError, KeyError):
                answer = await self._client.get(f"{address}/v2/health/ready")
                if answer.status_code == 200:
                    metadata = (await self._client.get(f"{address}/v2/models/{name}")).json()
                    self._learn(
                        number, state="ready", ready_at=_now(), model=_model(metadata), doing=""
                    )
                    return
                self._learn(number, doing=str(answer.json().get("error", "")))
            await asyncio.sleep(POLL_S / 2)

    def _learn(self, number: int, **facts: Any) -> None:
        running = self._processes.get(number)
        if running is not None:
            before = running.seen
            running.seen = replace(before, **facts)
            if running.seen != before:
                self._news.set()


def _model(metadata: dict[str, Any]) -> ModelStatus:
    return ModelStatus(
        version=metadata["versions"][0],
        sha256=metadata["properties"]["sha256"],
        inputs=[TensorStatus.model_validate(item) for item in metadata["inputs"]],
        outputs=[TensorStatus.model_validate(item) for item in metadata["outputs"]],
    )


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - this is the shell around the plan
