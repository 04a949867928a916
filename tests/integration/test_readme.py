"""The README's `curl` lines, run as they stand against `moorage up examples`."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
#: The address in the README.
ADDRESS = "http://localhost:8080"
#: What differs from run to run.
VOLATILE = {"prediction_id", "timestamp", "timing_ms", "created_at", "deployed_at"}


def commands() -> list[tuple[str, Any]]:
    """Return each command of the README's consoles with the JSON that it prints."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", readme(), re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, printed = part.split("\n", 1)
            found.append((command, json.loads(printed)))
    return found


def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    data = tmp_path_factory.mktemp("readme")
    process = subprocess.Popen(
        [sys.executable, "-m", "moorage_cli", "up", "examples", "--port", "0", "--data", str(data)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if line.startswith("ready ")), "")
        assert line, "`moorage up` ended early"
        yield line.split()[1]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        process.stdout.close()


def assert_alike(got: Any, wanted: Any, where: str = "$") -> None:
    if isinstance(wanted, dict):
        assert isinstance(got, dict), where
        assert list(got) == list(wanted), where
        for key, value in wanted.items():
            if key not in VOLATILE:
                assert_alike(got[key], value, f"{where}.{key}")
    elif isinstance(wanted, list):
        assert isinstance(got, list), where
        assert len(got) == len(wanted), where
        for at, (one, other) in enumerate(zip(got, wanted, strict=True)):
            assert_alike(one, other, f"{where}[{at}]")
    elif isinstance(wanted, float):
        # Processors differ in the last digits.
        assert got == pytest.approx(wanted, rel=1e-3, abs=1e-8), where
    else:
        assert got == wanted, where


def test_the_readme_shows_every_protocol() -> None:
    shown = " ".join(command for command, _ in commands())
    for path in ("/predict/", "/predict ", "/v2/", "/v1/", "/api/v1.0/", "/predictions", "/deploy"):
        assert f"{ADDRESS}{path}" in shown or path in shown


def test_every_curl_line_prints_what_the_readme_says(url: str) -> None:
    for command, wanted in commands():
        assert command.startswith("curl "), command
        got = run(command, url)
        # A record follows its answer by some milliseconds.
        deadline = monotonic() + 10
        while got.get("predictions") == [] and monotonic() < deadline:
            sleep(0.05)
            got = run(command, url)
        assert_alike(got, wanted)


def run(command: str, url: str) -> Any:
    asked = command.replace(ADDRESS, url).replace("curl ", "curl -sS --max-time 60 ", 1)
    done = subprocess.run(
        ["sh", "-c", asked], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
