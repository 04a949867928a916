"""Child processes: heard, ended, and never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import pytest

from moorage_cli.local import process

#: What a child does, by its name.
PROGRAMS = {
    "talk": """
        import os, sys
        print("hello", *sys.argv[1:], flush=True)
        print("words without meaning")
        print("colour", os.environ["COLOUR"], flush=True)
        sys.stderr.write("first\\n  the last line  \\n\\n")
        sys.exit(7)
    """,
    "log": """
        import sys
        sys.stderr.write(sys.argv[2] + "\\n")
        sys.exit(int(sys.argv[1]))
    """,
    "variables": """
        import os
        print("seen", *(os.environ.get(name, "-") for name in ("COLOUR", "SECRET")), flush=True)
    """,
    "wait": """
        import signal, sys
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print("up", flush=True)
        signal.pause()
    """,
    "deaf": """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("up", flush=True)
        while True: time.sleep(60)
    """,
    "silent": "",
    "parent": """
        import asyncio, sys
        from pathlib import Path
        from moorage_cli.local import process
        async def main():
            child = await process.start("wait", [], Path(sys.argv[1]), {})
            await child.listen(lambda word, what: print(child.pid, flush=True))
        asyncio.run(main())
    """,
}

Run = Callable[..., object]


@pytest.fixture(autouse=True)
def _programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in PROGRAMS.items():
        lines = text.strip("\n").splitlines()
        (tmp_path / f"{name}.py").write_text("\n".join(line[8:] for line in lines))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return where the children's standard error goes; its folder is not there yet."""
    return tmp_path / "logs" / "child.log"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended; nobody has asked how, in a container whose first process does not.
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_what_a_child_announces_is_heard_and_how_it_ended_known(log: Path) -> None:
    heard: list[tuple[str, str]] = []

    async def run() -> tuple[int, str]:
        child = await process.start("talk", ["a", "b c"], log, {"COLOUR": "blue"})
        status = await child.listen(lambda word, what: heard.append((word, what)))
        return status, child.last_words()

    assert asyncio.run(run()) == (7, "the last line")
    assert heard == [("hello", "a b c"), ("words", "without meaning"), ("colour", "blue")]


def test_the_last_words_are_the_childs_own(log: Path) -> None:
    log.parent.mkdir()
    log.write_text("what another one said\n")

    async def run() -> str:
        child = await process.start("silent", [], log, {})
        await child.listen(lambda word, what: None)
        return child.last_words()

    assert asyncio.run(run()) == ""
    assert log.read_text() == "what another one said\n"


@pytest.mark.parametrize(
    ("status", "line", "words"),
    [
        (1, "cannot listen on :80", "status 1: cannot listen on :80"),
        (1, '{"level":"error","message":"out of\\nmemory"}', "status 1: out of memory"),
        (2, '{"level":"error"}', 'status 2: {"level":"error"}'),
        (1, "[1, 2]", "status 1: [1, 2]"),
        (1, "", "status 1"),
        (0, '{"message":"something else"}', "status 0"),
    ],
)
def test_how_it_ended_is_told_with_its_message_and_no_json(
    log: Path, status: int, line: str, words: str
) -> None:
    async def run() -> str:
        child = await process.start("log", [str(status), line], log, {})
        return child.complaint(await child.listen(lambda word, what: None))

    assert asyncio.run(run()) == words


def test_a_message_that_is_long_is_cut_after_it_is_read(log: Path) -> None:
    line = '{"message":"' + "x" * 20_000 + '"}'

    async def run() -> str:
        child = await process.start("log", ["1", line], log, {})
        await child.listen(lambda word, what: None)
        return child.last_words()

    assert asyncio.run(run()) == "x" * 1000


def test_a_signal_is_named_and_no_earlier_line_blamed(log: Path) -> None:
    async def run() -> str:
        child = await process.start("talk", [], log, {"COLOUR": "blue"})
        await child.listen(lambda word, what: None)
        return child.complaint(-signal.SIGKILL)

    assert asyncio.run(run()) == "signal 9 (SIGKILL)"
    # One without a name.
    assert process.ending(-(signal.SIGRTMIN + 1)) == f"signal {signal.SIGRTMIN + 1}"


def test_a_variable_may_be_kept_from_a_child(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLOUR", "blue")
    monkeypatch.setenv("SECRET", "password")
    heard: list[str] = []

    async def run() -> None:
        child = await process.start("variables", [], log, {"SECRET": None})
        await child.listen(lambda word, what: heard.append(what))

    asyncio.run(run())
    assert heard == ["blue -"]


def test_a_log_that_has_grown_is_put_aside(log: Path) -> None:
    log.parent.mkdir()
    with log.open("wb") as stream:
        stream.truncate(process.LOG_BYTES + 1)

    async def run() -> str:
        child = await process.start("talk", [], log, {"COLOUR": ""})
        await child.listen(lambda word, what: None)
        return child.last_words()

    assert asyncio.run(run()) == "the last line"
    assert log.stat().st_size < 100
    assert log.with_suffix(".1.log").stat().st_size == process.LOG_BYTES + 1


def test_a_child_that_is_asked_to_end_ends_in_order(log: Path) -> None:
    async def run() -> int:
        child = await process.start("wait", [], log, {})

        def heard(word: str, what: str) -> None:
            child.stop()
            child.stop()

        status = await child.listen(heard)
        child.stop()
        return status

    assert asyncio.run(run()) == 0


def test_a_child_that_does_not_listen_is_killed(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_S", 0.05)

    async def run() -> int:
        child = await process.start("deaf", [], log, {})
        return await child.listen(lambda word, what: child.stop())

    assert asyncio.run(run()) == -signal.SIGKILL


def test_a_child_has_a_session_of_its_own(log: Path) -> None:
    # So that Ctrl-C in a terminal reaches the supervisor alone.
    async def run() -> int:
        child = await process.start("wait", [], log, {})
        found = os.getsid(child.pid)
        await child.listen(lambda word, what: child.stop())
        return found - child.pid

    assert asyncio.run(run()) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word, PR_SET_PDEATHSIG")
def test_a_child_ends_when_its_parent_is_killed(log: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "parent", str(log)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    deadline = monotonic() + 30
    try:
        while is_alive(pid):
            assert monotonic() < deadline, "it lives on"
            sleep(0.005)
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
