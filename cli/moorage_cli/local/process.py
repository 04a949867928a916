"""One child process: started, listened to, ended."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

#: A child that has not ended this long after SIGTERM is killed.
STOP_S: Final = 40.0
#: A log that has grown beyond this is put aside, over the one put aside before.
LOG_BYTES: Final = 8 * 1024 * 1024
#: How much of the end of a log is searched for the last words of a process.
_TAIL_BYTES: Final = 8192
_PR_SET_PDEATHSIG: Final = 1


class Child:
    """A running program.

    Parameters
    ----------
    process
        Of asyncio, with its standard output piped.
    log
        Where its standard error goes.
    log_start
        Where in the log its own part begins.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path, log_start: int) -> None:
        self._process = process
        self._log = log
        self._log_start = log_start
        self._killer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def listen(self, heard: Callable[[str, str], None]) -> int:
        """Tell `heard` of each announcement, `WORD WHAT`, until the process ends; its status."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            word, _, what = line.decode("utf-8", "replace").strip().partition(" ")
            heard(word, what)
        status = await self._process.wait()
        if self._killer is not None:
            self._killer.cancel()
        return status

    def stop(self) -> None:
        """Ask it to end, and make it end when it takes too long."""
        if self._process.returncode is None and self._killer is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            self._killer = asyncio.get_running_loop().call_later(STOP_S, self._kill)

    def last_words(self) -> str:
        """Return the last line that it wrote to standard error."""
        with suppress(OSError), self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - _TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
            return lines[-1].strip()[:1000] if lines else ""
        return ""

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


async def start(
    module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str]
) -> Child:
    """Start `python -m MODULE ARGUMENTS` in a session of its own.

    Ctrl-C in a terminal therefore reaches `moorage up` alone, which ends its children in order;
    should it die without a word, the kernel ends them.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".1.log"))
    with log.open("ab") as stream:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stream,
            env={**os.environ, **environment},
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        return Child(process, log, _position(stream))


def _position(stream: IO[bytes]) -> int:
    return stream.seek(0, os.SEEK_END)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
