"""`moorage up`: puts state folder, gateway and supervisor together, and tells how things stand."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from moorage_api.errors import MoorageError
from moorage_api.folder import Observed
from moorage_api.names import Qualified
from moorage_api.reasons import AS_ASKED, Condition, Phase
from moorage_cli.local import process
from moorage_cli.local.process import Child
from moorage_cli.local.state_folder import StateFolder
from moorage_cli.local.supervisor import Supervisor
from moorage_cli.local.watch import Watch

#: How often the user's files are looked at, in seconds.
WATCH_S: Final = 0.5
#: How long the gateway may take to listen.
_GATEWAY_START_S: Final = 60.0
_GATEWAY_RESTART_S: Final = 1.0
#: How often it is seen whether all is ready.
_ANNOUNCE_S: Final = 0.05


class GatewayFailed(MoorageError):
    """The gateway did not start; the message is its last line."""


@dataclass(frozen=True, slots=True)
class Options:
    """How `moorage up` was asked to run.

    Parameters
    ----------
    paths
        Files and folders with ModelDeployments.
    host, port
        Where the gateway listens; port 0 takes a free one.
    data
        Folder for everything that is kept.
    database
        Of the gateway; empty for its default.
    """

    paths: Sequence[Path]
    host: str
    port: int
    data: Path
    database: str


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who is told what happens.

    Parameters
    ----------
    changed
        A deployment's phase, reason or message is another.
    ready
        Every deployment serves; the gateway's URL. Called once.
    warned
        Something is wrong that does not end the command.
    """

    changed: Callable[[Qualified, Observed], None]
    ready: Callable[[str], None]
    warned: Callable[[str], None]


async def run(options: Options, reporter: Reporter) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises
    ------
    InvalidResource
        When a file is wrong at the start. One that becomes wrong later is told, and what it said
        before holds.
    GatewayFailed
        When the gateway cannot start, e.g. because its port is taken.
    MoorageError
        When another `moorage up` has the data folder, or it cannot be written.
    """
    watch = Watch(options.paths)
    found = watch.begin()
    with _lock(options.data):
        state = StateFolder(options.data / "deployments")
        state.forget_all()
        state.replace_files(found)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        gateway = _Gateway(options, reporter)
        url = await gateway.start()
        told = Told(reporter)
        supervisor = Supervisor(state, url, options.data / "logs", told.hear)
        tasks = [
            asyncio.create_task(gateway.keep()),
            asyncio.create_task(supervisor.run()),
            asyncio.create_task(_keep_up(watch, state, reporter)),
        ]
        announcing = asyncio.create_task(announce(told, url, reporter))
        stopping = asyncio.create_task(stop.wait())
        try:
            # A task of ours that ends has failed: its error is raised below.
            await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, announcing, stopping):
                task.cancel()
            # First no more requests, then no more models.
            await gateway.stop()
            await supervisor.close()
            state.forget_all()
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                if isinstance(error, OSError):
                    raise MoorageError(f"--data {options.data}: {error}") from error
                raise error


class Told:
    """Passes on what is news to a person."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._last: dict[Qualified, tuple[str, str, str]] | None = None

    @property
    def phases(self) -> dict[Qualified, str] | None:
        """Of all deployments; None before the first look."""
        if self._last is None:
            return None
        return {key: phase for key, (phase, _, _) in self._last.items()}

    def hear(self, seen: Mapping[Qualified, Observed]) -> None:
        """Take what is seen of all deployments."""
        before, self._last = self._last or {}, {key: _words(seen[key]) for key in seen}
        for key, words in self._last.items():
            if before.get(key) != words:
                self._reporter.changed(key, seen[key])


async def announce(told: Told, url: str, reporter: Reporter) -> None:
    """Say once that all is ready, as soon as the gateway has seen it too.

    When nothing but failures is in the way, say of which deployments; again when they are others.
    """
    blamed: list[Qualified] = []
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        while True:
            phases = told.phases or {}
            failed = [key for key, phase in phases.items() if phase == Phase.FAILED]
            settled = all(phase in (*AS_ASKED, Phase.FAILED) for phase in phases.values())
            if told.phases is not None and settled and (not failed or failed != blamed):
                with suppress(httpx.HTTPError, ValueError, KeyError):
                    answer = (await client.get(f"{url}/deployments")).json()
                    if phases == {
                        Qualified(item["namespace"], item["name"]): item["status"]
                        for item in answer["deployments"]
                    }:
                        if not failed:
                            reporter.ready(url)
                            return
                        reporter.warned(_waits(failed, len(phases), url))
                        blamed = failed
            await asyncio.sleep(_ANNOUNCE_S)


def _waits(failed: Sequence[Qualified], count: int, url: str) -> str:
    serves = f"; everything else serves at {url}" if len(failed) < count else ""
    return (
        f"not ready: {', '.join(map(str, failed))} failed{serves}; "
        f"`moorage status --gateway {url}` tells why"
    )


def _words(observed: Observed) -> tuple[str, str, str]:
    ready = observed.status.condition(Condition.READY)
    said = (ready.reason, ready.message) if ready else ("", "")
    return (observed.status.phase, *said)


class _Gateway:
    """The gateway process, started again when it dies."""

    def __init__(self, options: Options, reporter: Reporter) -> None:
        self._options = options
        self._reporter = reporter
        self._port = options.port
        self._child: Child | None = None
        self._ended: asyncio.Task[int] | None = None
        self._stopping = False

    async def start(self) -> str:
        """Start it; return its URL once it listens."""
        options = self._options
        arguments = ["--host", options.host, "--port", str(self._port), "--data", str(options.data)]
        arguments += ["--routes", str(options.data / "deployments")]
        address: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def heard(word: str, what: str) -> None:
            if word == "listening" and not address.done():
                address.set_result(what)
            elif word == "log":
                told = "are stored again" if what == "ok" else f"cannot be stored: {what}"
                self._reporter.warned(f"predictions {told}")
            elif word == "lost":
                self._reporter.warned(f"{what} predictions were not stored")

        log = options.data / "logs" / "gateway.log"
        # By the environment, which is its own affair: a command line is everybody's to read, and
        # the address may hold a password.
        environment = {process.ENV_DATABASE: options.database}
        self._child = await process.start("moorage_gateway", arguments, log, environment)
        self._ended = asyncio.create_task(self._child.listen(heard))
        first: list[asyncio.Future[Any]] = [self._ended, address]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED, timeout=_GATEWAY_START_S)
        if not address.done():
            self._child.stop()
            words = self._child.last_words() or f"see {log}"
            raise GatewayFailed(f"the gateway did not start: {words}")
        url = address.result()
        # After a restart the runtimes' registry, and everybody's bookmarks, still hold.
        self._port = int(url.rpartition(":")[2])
        return url

    async def keep(self) -> None:
        """Start it again whenever it dies."""
        while self._ended is not None:
            # To await the task itself would pass a cancellation on to it.
            await asyncio.wait([self._ended])
            status = self._ended.result()
            if self._stopping:
                return
            how = self._child.complaint(status) if self._child else process.ending(status)
            self._reporter.warned(f"the gateway ended with {how}; starting it again")
            await asyncio.sleep(_GATEWAY_RESTART_S)
            with suppress(GatewayFailed):
                await self.start()

    async def stop(self) -> None:
        """End it, and wait until it has answered what was under way."""
        self._stopping = True
        if self._child is not None and self._ended is not None:
            self._child.stop()
            await asyncio.wait([self._ended])


async def _keep_up(watch: Watch, state: StateFolder, reporter: Reporter) -> None:
    """Pick up changes of the user's files."""
    while True:
        await asyncio.sleep(WATCH_S)
        # Beside the loop: large models are hashed.
        seen = await asyncio.to_thread(watch.look)
        for words in seen.warnings:
            reporter.warned(words)
        if seen.said is not None:
            state.replace_files(seen.said)


@contextmanager
def _lock(data: Path) -> Iterator[None]:
    """Have the data folder for this process.

    Raises
    ------
    MoorageError
        When another one has it, or it cannot be written.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        stream = (data / "lock").open("a+")
    except OSError as error:
        raise MoorageError(f"--data {data}: {error.strerror}") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            raise MoorageError(
                f"another `moorage up` (process {stream.read().strip() or 'unknown'}) uses {data}; "
                "choose another folder by --data"
            ) from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
