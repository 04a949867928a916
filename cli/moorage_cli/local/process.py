"""One child process: started, listened to, ended."""

import asyncio
import ctypes
import json
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
_TAIL_BYTES: Final = 65536
#: Environment variable with the address of the gateway's database, which may hold a password.
ENV_DATABASE: Final = "MOORAGE_DATABASE"
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

    def complaint(self, status: int) -> str:
        """Say how it ended, and why, as far as it said so.

        Parameters
        ----------
        status
            As from `listen`.
        """
        # What it wrote before a signal, or before an end in order, is not about its end.
        words = self.last_words() if status > 0 else ""
        return f"{ending(status)}: {words}" if words else ending(status)

    def last_words(self) -> str:
        """Return the last line that it wrote to standard error; of a JSON log its message."""
        with suppress(OSError), self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - _TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
            return _message(lines[-1].strip())[:1000] if lines else ""
        return ""

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


def ending(status: int) -> str:
    """Name an exit status, negative for a signal: `status 1`, `signal 9 (SIGKILL)`."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"


def _message(line: str) -> str:
    try:
        return " ".join(str(json.loads(line)["message"]).split())
    except (ValueError, TypeError, KeyError, RecursionError):
        return line


async def start(
    module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str | None]
) -> Child:
    """Start `python -m MODULE ARGUMENTS` in a session of its own.

    Ctrl-C in a terminal therefore reaches `moorage up` alone, which ends its children in order;
    should it die without a word, the kernel ends them.

    Parameters
    ----------
    module, arguments
        What to run. Everybody on this machine can read it: no password belongs there.
    log
        Where its standard error goes.
    environment
        What its environment has otherwise than ours; None for a variable that it does not get.
    """
    variables = {**os.environ, **environment}
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
            env={name: value for name, value in variables.items() if value is not None},
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        return Child(process, log, _position(stream))


def _position(stream: IO[bytes]) -> int:
    return stream.seek(0, os.SEEK_END)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
