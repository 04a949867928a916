"""`moorage up`: puts state folder, gateway and supervisor together, and tells how things stand."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from moorage_api.errors import InvalidResource, MoorageError
from moorage_api.folder import Observed
from moorage_api.names import Qualified
from moorage_api.reasons import Condition, Phase
from moorage_api.v1alpha1 import ModelDeployment
from moorage_cli import files
from moorage_cli.local import process
from moorage_cli.local.process import Child
from moorage_cli.local.state_folder import StateFolder
from moorage_cli.local.supervisor import Supervisor

#: How often the user's files are looked at, in seconds.
WATCH_S: Final = 0.5
#: How long the gateway may take to listen.
_GATEWAY_START_S: Final = 60.0
_GATEWAY_RESTART_S: Final = 1.0


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
        When another `moorage up` has the data folder.
    """
    found = files.read_all(files.expand(options.paths))
    options.data.mkdir(parents=True, exist_ok=True)
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
        told = _Told(state, reporter, url)
        supervisor = Supervisor(state, url, options.data / "logs", told.hear)
        tasks = [
            asyncio.create_task(gateway.keep()),
            asyncio.create_task(supervisor.run()),
            asyncio.create_task(_watch(options.paths, found, state, reporter)),
        ]
        if not state.list():
            reporter.ready(url)
        stopping = asyncio.create_task(stop.wait())
        try:
            # A task of ours that ends has failed: its error is raised below.
            await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, stopping):
                task.cancel()
            # First no more requests, then no more models.
            await gateway.stop()
            await supervisor.close()
            state.forget_all()
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error


class _Told:
    """Passes on what is news to a person, and says once that all is ready."""

    def __init__(self, state: StateFolder, reporter: Reporter, url: str) -> None:
        self._state = state
        self._reporter = reporter
        self._url = url
        self._last: dict[Qualified, tuple[str, str, str]] = {}
        self._phases: dict[Qualified, str] = {}
        self._is_ready = False

    def hear(self, key: Qualified, observed: Observed) -> None:
        """Take what is newly seen of a deployment."""
        status = observed.status
        ready = status.condition(Condition.READY)
        news = (status.phase, ready.reason if ready else "", ready.message if ready else "")
        if self._last.get(key) != news:
            self._last[key] = news
            self._reporter.changed(key, observed)
        self._phases[key] = status.phase
        if not self._is_ready and all(
            self._phases.get(resource.key) in (Phase.READY, Phase.STOPPED)
            for resource in self._state.list()
        ):
            self._is_ready = True
            self._reporter.ready(self._url)


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
        if options.database:
            arguments += ["--database", options.database]
        address: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def heard(word: str, what: str) -> None:
            if word == "listening" and not address.done():
                address.set_result(what)

        log = options.data / "logs" / "gateway.log"
        self._child = await process.start("moorage_gateway", arguments, log, {})
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
            status = await self._ended
            if self._stopping:
                return
            words = self._child.last_words() if self._child else ""
            self._reporter.warned(f"the gateway ended with status {status}: {words}; starting it")
            await asyncio.sleep(_GATEWAY_RESTART_S)
            with suppress(GatewayFailed):
                await self.start()

    async def stop(self) -> None:
        """End it, and wait until it has answered what was under way."""
        self._stopping = True
        if self._child is not None and self._ended is not None:
            self._child.stop()
            await asyncio.wait([self._ended])


async def _watch(
    paths: Sequence[Path],
    found: Mapping[Path, Sequence[ModelDeployment]],
    state: StateFolder,
    reporter: Reporter,
) -> None:
    """Pick up changes of the user's files."""
    known: dict[Path, list[ModelDeployment]] = {file: list(group) for file, group in found.items()}
    stamps = {file: _stamp(file) for file in known}
    while True:
        await asyncio.sleep(WATCH_S)
        try:
            now = {file: _stamp(file) for file in files.expand(paths)}
        except InvalidResource:
            # Gone for a moment, as when an editor saves; or for good: then what was said holds.
            continue
        for file in [file for file in known if file not in now]:
            state.update_file(file, [])
            del known[file], stamps[file]
        for file, stamp in now.items():
            if stamps.get(file) == stamp:
                continue
            stamps[file] = stamp
            try:
                group = files.read(file)
                problems = files.clashes({**known, file: group})
                if problems:
                    raise InvalidResource(problems)
            except InvalidResource as error:
                reporter.warned(f"{error}; what the file said before holds")
                continue
            known[file] = group
            state.update_file(file, group)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _lock(data: Path) -> IO[str]:
    """Take the data folder for this process, until the file is closed."""
    stream = (data / "lock").open("a+")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        stream.seek(0)
        holder = stream.read().strip()
        stream.close()
        raise MoorageError(
            f"another `moorage up` (process {holder or 'unknown'}) uses {data}; "
            "choose another folder by --data"
        ) from error
    stream.truncate(0)
    stream.write(str(os.getpid()))
    stream.flush()
    return stream
