"""Real processes: `moorage up` with two examples, and further gateways before its runtimes."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
#: Generous: a machine that runs other things too takes seconds for what takes a moment.
DEADLINE_S = 120.0


@pytest.fixture(scope="session")
def deadline_s() -> float:
    return DEADLINE_S


@pytest.fixture(scope="session")
def examples() -> Path:
    return EXAMPLES


class Program:
    """A running program that announces its address on standard output."""

    def __init__(self, *command: str, word: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A variable of the developer's own shell would say where to listen.
            env={k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")},
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._words: list[str] = []
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, self._lines.put)),
            threading.Thread(target=self._read, args=(self._process.stderr, self._words.append)),
        ]
        for reader in self._readers:
            reader.start()
        self.url = self._announced(word)

    @staticmethod
    def _read(stream: IO[str], take: Callable[[Any], None]) -> None:
        for line in stream:
            take(line)
        take(None)

    def _announced(self, word: str) -> str:
        while True:
            try:
                line = self._lines.get(timeout=DEADLINE_S)
            except queue.Empty:
                line = None
            if line is None:
                self.end()
                raise AssertionError(f"it never was {word}: {self.words}")
            found, _, what = line.strip().partition(" ")
            if found == word:
                return what

    @property
    def words(self) -> str:
        """What it wrote to standard error."""
        return "".join(word for word in self._words if word)

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        """Ask it to end, wait until it has, and return its status."""
        if self._process.poll() is None:
            self.terminate()
        try:
            status = self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        return status


class Up(Program):
    """`moorage up` with `iris` and `quadratic-predictor`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        files = [str(EXAMPLES / f"{name}.yaml") for name in ("iris", "quadratic-predictor")]
        flags = ["--port", "0", "--data", str(data)]
        super().__init__("moorage_cli", "up", *files, *flags, word="ready")


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up"))
    yield running
    assert running.end() == 0, running.words


@pytest.fixture
def client(up: Up) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=up.url, timeout=DEADLINE_S) as made:
        yield made


@pytest.fixture
def start_gateway(up: Up, tmp_path: Path) -> Callable[..., Any]:
    """Start one more gateway before the runtimes of `up`."""

    @contextmanager
    def start(*flags: str) -> Iterator[Program]:
        routes = str(up.data / "deployments")
        command = ["--port", "0", "--data", str(tmp_path), "--routes", routes, *flags]
        program = Program("moorage_gateway", *command, word="listening")
        try:
            yield program
        finally:
            program.end()

    return start


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Wait until something is so; return what it is."""
    pause = threading.Event()

    def wait(condition: Callable[[], Any]) -> Any:
        for _ in range(int(DEADLINE_S / 0.02)):
            if found := condition():
                return found
            pause.wait(0.02)
        raise AssertionError("waited in vain")

    return wait
