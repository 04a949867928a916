"""`moorage up`: what keeps it from starting, and that nothing is left when it ends."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
Until = Callable[[Callable[[], Any], str], Any]


def refusal(up: Any) -> tuple[int, str, str]:
    """Wait for the end; return the status and what was said."""
    status = up.process.wait(120)
    return status, up.stdout, up.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_a_signal_ends_it_with_0_and_every_child(
    start: Start, files: Path, how: signal.Signals
) -> None:
    up = start().ready()
    children = up.children()
    assert len(children) == 2
    # Ctrl-C in a terminal signals the foreground process group: no child may be in it.
    assert os.getpgid(up.process.pid) not in {os.getpgid(pid) for pid in children}
    assert up.end(how) == 0
    # They have ended before it did: there is nothing to wait for.
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert up.stdout == f"ready {up.url}\n"
    assert "Traceback" not in up.stderr
    assert sorted(item.name for item in (up.data / "deployments").iterdir()) == [
        "default.iris.yaml"
    ]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_a_signal_while_models_load_ends_it_too(
    start: Start, files: Path, until: Until, how: signal.Signals
) -> None:
    up = start()
    children = until(lambda: up.runtimes("iris") and up.children(), "a runtime is started")
    assert up.end(how) == 0
    up.wait_for_end_of(children)
    assert "Traceback" not in up.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word, PR_SET_PDEATHSIG")
def test_when_it_is_killed_no_child_is_left_behind(start: Start, files: Path) -> None:
    up = start().ready()
    children = up.children()
    assert len(children) == 2
    assert up.end(signal.SIGKILL) == -signal.SIGKILL
    up.wait_for_end_of(children)
    # And its lock and statuses are in nobody's way.
    assert start().ready().predict("iris").status_code == 200


def test_a_port_in_use_is_one_line_and_status_1(start: Start, files: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = start(str(files), "--port", str(port))
        status, stdout, stderr = refusal(up)
    assert (status, stdout) == (1, "")
    assert f"cannot listen on 127.0.0.1:{port}" in stderr
    assert len(stderr.splitlines()) == 1
    assert up.children() == set()


def test_a_database_that_is_none_is_one_line_and_status_1(start: Start, files: Path) -> None:
    status, stdout, stderr = refusal(start(str(files), "--database", "oracle://x"))
    assert (status, stdout) == (1, "")
    assert "--database" in stderr
    assert len(stderr.splitlines()) == 1


def test_a_data_folder_that_another_up_has_is_refused(start: Start, files: Path) -> None:
    first = start().ready()
    second = start(str(files), "--data", str(first.data), name="two")
    status, stdout, stderr = refusal(second)
    assert (status, stdout) == (1, "")
    assert f"another `moorage up` (process {first.process.pid}) uses {first.data}" in stderr
    assert len(stderr.splitlines()) == 1
    assert first.predict("iris").status_code == 200


def test_two_files_that_claim_one_endpoint_are_refused_at_the_start(
    start: Start, files: Path
) -> None:
    other = (files / "iris.yaml").read_text().replace("spec:", "spec:\n  endpoint: iris")
    (files / "other.yaml").write_text(other.replace("name: iris", "name: other"))
    status, stdout, stderr = refusal(start())
    assert (status, stdout) == (4, "")
    assert "endpoint 'iris' is also claimed by" in stderr
    assert len(stderr.splitlines()) == 1


def test_what_the_environment_says_of_the_gateway_does_not_reach_the_runtimes(
    start: Start, files: Path
) -> None:
    environment = {
        # A proxy that answers nobody, for everything.
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
        "NO_PROXY": "",
        "no_proxy": "",
        "MOORAGE_HOST": "127.0.0.2",
        "MOORAGE_ROUTES": str(files / "elsewhere"),
    }
    up = start(str(files), "--host", "127.0.0.1", environment=environment).ready()
    (address,) = up.observed("iris").addresses
    # Asked directly they remember nothing, so they are for this machine alone.
    assert address.startswith("http://127.0.0.1:")
    assert up.predict("iris").status_code == 200


def test_nothing_to_serve_is_ready_at_once(start: Start, tmp_path: Path) -> None:
    up = start("--host", "127.0.0.1").ready()
    assert up.deployments() == {}
    assert len(up.children()) == 1
