"""`moorage up` as a person starts it: a real process with real children, on copies of examples."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import orjson
import pytest

from moorage_api import folder
from moorage_api.folder import Observed
from moorage_api.names import Qualified

EXAMPLES = Path(__file__).parents[3] / "examples"

#: Generous: a machine that runs other things too takes seconds for what takes a moment.
DEADLINE_S = 120.0


def _until(holds: Callable[[], Any], what: str) -> Any:
    """Wait until a condition holds; return what it returned."""
    deadline = monotonic() + DEADLINE_S
    while True:
        found = holds()
        if found:
            return found
        assert monotonic() < deadline, f"waited in vain until {what}"
        sleep(0.02)


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], Any], str], Any]:
    """Wait until a condition holds, long enough for every machine."""
    return _until


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    # A zombie has ended; in a container its new parent may never ask how.
    return state != "Z"


class Up:
    """A running `moorage up`.

    Parameters
    ----------
    files
        The folder with the user's files.
    data
        Its data folder.
    words
        Further words of the command line.
    environment
        What the environment has besides.
    """

    def __init__(
        self,
        files: Path,
        data: Path,
        words: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.files = files
        self.data = data
        data.parent.mkdir(parents=True, exist_ok=True)
        self._stdout = data.with_suffix(".stdout")
        self._stderr = data.with_suffix(".stderr")
        command = [sys.executable, "-m", "moorage_cli", "up", "--port", "0", "--data", str(data)]
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, *words],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **(environment or {})},
            )
        self.client = httpx.Client(timeout=60, trust_env=False)

    # What it says.

    @property
    def stdout(self) -> str:
        """All that it has said on standard output."""
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        """All that it has said on standard error."""
        return self._stderr.read_text()

    def ready(self) -> "Up":
        """Wait for the ready line."""
        _until(lambda: self.stdout.endswith("\n") or self.process.poll() is not None, "ready")
        assert self.process.poll() is None, self.stderr
        return self

    def told(self, *words: str) -> None:
        """Wait until one line of standard error holds all these words."""
        _until(
            lambda: any(all(w in line for w in words) for line in self.stderr.splitlines()),
            f"it is told: {words}",
        )

    @property
    def url(self) -> str:
        """Base URL of the gateway, as soon as any line names it."""
        found = _until(
            lambda: re.search(r"http://127\.0\.0\.1:\d+", self.stdout + self.stderr), "a URL"
        )
        return str(found[0])

    # What it does.

    def deployments(self) -> dict[str, dict[str, Any]]:
        """Return what `GET /deployments` lists, by name."""
        # Just killed, the gateway does not answer for a moment.
        try:
            answer = self.client.get(f"{self.url}/deployments").json()
        except httpx.HTTPError:
            return {}
        return {item["name"]: item for item in answer["deployments"]}

    def becomes(self, name: str, **facts: Any) -> dict[str, Any]:
        """Wait until a deployment is as said; return all that is said of it."""

        def so() -> dict[str, Any] | None:
            found = self.deployments().get(name, {})
            return found if facts.items() <= found.items() else None

        found: dict[str, Any] = _until(so, f"{name} is {facts}: {self.deployments().get(name)}")
        return found

    def predict(self, endpoint: str) -> httpx.Response:
        """Ask a copy of iris at an endpoint."""
        row = {"input": [5.1, 3.5, 1.4, 0.2]}
        return self.client.post(f"{self.url}/predict/{endpoint}", json=row)

    def observed(self, name: str) -> Observed:
        """Return what the supervisor says of a deployment."""
        file = self.data / "deployments" / folder.status_name(Qualified("default", name))
        return folder.parse_status(file.read_bytes())

    def moorage(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run another command against this gateway."""
        return subprocess.run(
            [sys.executable, "-m", "moorage_cli", *words, "--gateway", self.url],
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )

    # Its files.

    def write(self, name: str, *, file: str = "", **spec: Any) -> Path:
        """Write the YAML of a deployment into a file, whole or not at all."""
        model = {"uri": "file:iris/model.onnx", "version": "1", **spec.pop("model", {})}
        document = {
            "apiVersion": "moorage.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name},
            "spec": {"model": model, **spec},
        }
        target = self.files / f"{file or name}.yaml"
        part = target.with_suffix(".part")
        part.write_bytes(orjson.dumps(document))  # JSON is YAML
        part.replace(target)
        return target

    def copy_model(self, name: str, source: str = "model.onnx") -> None:
        """Put a model of iris in place under another name, whole or not at all."""
        part = self.files / "iris" / f"{name}.part"
        shutil.copyfile(EXAMPLES / "iris" / source, part)
        part.replace(self.files / "iris" / name)

    # Its processes.

    def children(self, words: str = "") -> set[int]:
        """Return the ids of its child processes whose command line holds these words."""
        found = set()
        for item in Path("/proc").iterdir():
            try:
                parent = (item / "stat").read_text().rpartition(")")[2].split()[1]
                command = (item / "cmdline").read_text().replace("\0", " ")
            except (OSError, ValueError):
                continue
            if parent == str(self.process.pid) and words in command:
                found.add(int(item.name))
        return {pid for pid in found if _is_alive(pid)}

    def runtimes(self, name: str) -> set[int]:
        """Return the ids of the runtime processes of a deployment."""
        return self.children(f"--name {name} ")

    def wait_for_end_of(self, pids: set[int]) -> None:
        """Wait until none of these processes is left."""
        _until(lambda: not any(map(_is_alive, pids)), f"none of {pids} is left")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal; return its exit status."""
        self.process.send_signal(how)
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """End it in any case, and everything that it started."""
        pids = self.children()
        self.client.close()
        if self.process.poll() is None:
            self.end()
        for pid in filter(_is_alive, pids):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def shared_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for what the tests of a module share."""
    return tmp_path_factory.mktemp("up")


def _start(path: Path, *words: str, environment: Mapping[str, str] | None = None) -> Up:
    files = path / "files"
    (files / "iris").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(EXAMPLES / "iris" / "model.onnx", files / "iris" / "model.onnx")
    return Up(files, path / "data", words or (str(files),), environment)


@pytest.fixture(scope="module")
def shared(shared_path: Path) -> Iterator[Up]:
    """Serve a folder that holds iris, to whose tests every test adds files of its own."""
    (shared_path / "files").mkdir()
    shutil.copyfile(EXAMPLES / "iris.yaml", shared_path / "files" / "iris.yaml")
    running = _start(shared_path)
    try:
        yield running.ready()
    finally:
        running.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Start `moorage up` on a folder of the test's own; it is ended with the test."""
    running: list[Up] = []

    def started(*words: str, name: str = "one", **how: Any) -> Up:
        running.append(_start(tmp_path / name, *words, **how))
        return running[-1]

    yield started
    for each in running:
        each.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return the folder of files of the `moorage up` that `start` starts, with iris in it."""
    found = tmp_path / "one" / "files"
    found.mkdir(parents=True)
    shutil.copyfile(EXAMPLES / "iris.yaml", found / "iris.yaml")
    return found
