"""CPU per request: the runtime alone and behind the gateway, beside a plain FastAPI route.

Iris, Open Inference Protocol v2 in JSON, one row a request, 16 connections, closed loop. Every
server runs on one core and the load on another, where there are two. The figure to compare is CPU
time (user and system, all threads) of the server's process divided by its requests: it repeats
within some per cent where requests per second do not. Points are measured in turn, round by round.
Answers are compared with ONNX Runtime in process before and after each point.

Linux only: CPU time and the processes behind `moorage up` are read from /proc.
"""

import argparse
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any, Final

import numpy as np
import onnxruntime as ort
import orjson
import uvloop
from benchmarks import closed_loop

ROOT: Final = Path(__file__).parents[1]
MODEL: Final = ROOT / "examples" / "iris" / "model.onnx"
ROW: Final = [5.1, 3.5, 1.4, 0.2]
BODY: Final = orjson.dumps(
    {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": ROW}]}
)
CONNECTIONS: Final = 16
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")

_DEPLOYMENT: Final = """\
apiVersion: moorage.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: {name}}}
spec:
  model: {{uri: "file:{model}", version: "1"}}
  runtime: {{threads: {{intraOp: 1}}}}
  logging: {{enabled: {logged}}}
"""


@dataclass(frozen=True)
class Point:
    """Where to send requests, and whose CPU to count.

    Parameters
    ----------
    name
        In the table.
    port, path
        Of the address.
    processes
        Process id by the column that its CPU goes to.
    """

    name: str
    port: int
    path: str
    processes: dict[str, int]


@dataclass(frozen=True)
class Figure:
    """What one round of a point measured."""

    cpu_us: dict[str, float]
    per_second: float
    p50_ms: float
    p99_ms: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="benchmarks.serving", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each point in each round")
    parser.add_argument("--json", type=Path, help="write every round's figures here too")
    asked = parser.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Children inherit the core; the load takes another one afterwards.
        os.sched_setaffinity(0, {cores[0]})
        points = [
            *stack.enter_context(_fastapi_route()),
            *stack.enter_context(_moorage_up(folder)),
        ]
        os.sched_setaffinity(0, {cores[-1]})
        print(f"{platform.machine()}, {len(cores)} cores, {asked.rounds} x {asked.seconds:g} s")
        figures: dict[str, list[Figure]] = {point.name: [] for point in points}
        for point in points:
            _measure(point, 1.0)
        for _ in range(asked.rounds):
            for point in points:
                figures[point.name].append(_measure(point, asked.seconds))
    _print(figures)
    if asked.json:
        document = {name: [vars(figure) for figure in rounds] for name, rounds in figures.items()}
        asked.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))


@contextmanager
def _fastapi_route() -> Iterator[list[Point]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.fastapi_route", str(port)]
    with _running(command, {"MODEL": str(MODEL)}) as process:
        _wait_for(f"http://127.0.0.1:{port}/v2/health/ready", process)
        path = "/v2/models/iris/infer"
        yield [Point("plain FastAPI route", port, path, {"server": process.pid})]


@contextmanager
def _moorage_up(folder: Path) -> Iterator[list[Point]]:
    for name, logged in (("iris", "true"), ("iris-unlogged", "false")):
        text = _DEPLOYMENT.format(name=name, model=MODEL, logged=logged)
        (folder / f"{name}.yaml").write_text(text)
    command = [sys.executable, "-m", "moorage_cli", "up", str(folder), "--port", "0"]
    with _running([*command, "--data", str(folder / "data")], {}) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ready "):
                break
        else:
            raise SystemExit("`moorage up` ended early")
        gateway_port = int(line.rsplit(":", 1)[1])
        gateway = _child(process.pid, "moorage_gateway")
        both = []
        for name in ("iris", "iris-unlogged"):
            runtime = _child(process.pid, "moorage_runtime", name)
            what = "" if name == "iris" else ", log off"
            path = f"/v2/models/{name}/infer"
            processes = {"server": gateway, "behind it": runtime}
            both.append(Point(f"gateway{what}", gateway_port, path, processes))
        runtime = _child(process.pid, "moorage_runtime", "iris")
        path = "/v2/models/iris/infer"
        yield [Point("runtime alone", _listening(runtime), path, {"server": runtime}), *both]


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def _wait_for(url: str, process: subprocess.Popen[str]) -> None:
    deadline = monotonic() + 30
    while process.poll() is None and monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            sleep(0.05)
        else:
            return
    raise SystemExit(f"{url} does not answer")


def _child(parent: int, *words: str) -> int:
    """Return the child process of `parent` whose command line has every one of `words`."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
            command = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if int(status.rsplit(") ", 1)[1].split()[1]) == parent and set(words) <= set(command):
            return int(folder.name)
    raise SystemExit(f"no process {' '.join(words)} under {parent}")


def _listening(pid: int) -> int:
    """Return the port that a process listens on."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(link)
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[9] in inodes:
            return int(words[1].split(":")[1], 16)
    raise SystemExit(f"process {pid} listens on no port")


def _cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(words[11]) + int(words[12])) * _TICK_S


def _measure(point: Point, seconds: float) -> Figure:
    _check(point)
    before = {name: _cpu_s(pid) for name, pid in point.processes.items()}
    load = uvloop.run(closed_loop.post(point.path, point.port, BODY, CONNECTIONS, seconds))
    # What is logged is written after the answer: it belongs to the point.
    sleep(0.3)
    cpu = {name: _cpu_s(pid) - before[name] for name, pid in point.processes.items()}
    _check(point)
    if load.errors:
        raise SystemExit(f"{point.name}: {load.errors} of {load.requests} answers were errors")
    return Figure(
        {name: value / load.requests * 1e6 for name, value in cpu.items()},
        load.requests / load.seconds,
        load.percentile_ms(0.5),
        load.percentile_ms(0.99),
    )


def _check(point: Point) -> None:
    """Compare an answer with ONNX Runtime's own."""
    request = urllib.request.Request(f"http://127.0.0.1:{point.port}{point.path}", BODY)
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        outputs = {item["name"]: item["data"] for item in orjson.loads(answer.read())["outputs"]}
    for name, wanted in _expected().items():
        if not np.allclose(outputs[name], wanted, atol=1e-5):
            raise SystemExit(f"{point.name} answered {outputs}, ONNX Runtime {_expected()}")


def _expected() -> dict[str, Any]:
    session = ort.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    found = session.run(names, {"input": np.array([ROW], np.float32)})
    return {name: array.ravel() for name, array in zip(names, found, strict=True)}


def _print(figures: dict[str, list[Figure]]) -> None:
    head = ("", "CPU us/request", "of FastAPI", "behind it", "requests/s", "p50 ms", "p99 ms")
    print("{:<22}{:>16}{:>12}{:>11}{:>12}{:>9}{:>9}".format(*head))
    peer = median(figure.cpu_us["server"] for figure in figures["plain FastAPI route"])
    for name, rounds in figures.items():
        cpu = median(figure.cpu_us["server"] for figure in rounds)
        behind = [figure.cpu_us["behind it"] for figure in rounds if "behind it" in figure.cpu_us]
        print(
            f"{name:<22}{cpu:>16.1f}{cpu / peer:>12.2f}"
            f"{f'{median(behind):.1f}' if behind else '':>11}"
            f"{median(figure.per_second for figure in rounds):>12.0f}"
            f"{median(figure.p50_ms for figure in rounds):>9.2f}"
            f"{median(figure.p99_ms for figure in rounds):>9.2f}"
        )


if __name__ == "__main__":
    main()
