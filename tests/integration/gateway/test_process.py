"""The gateway as a process: without its database, and at its end."""

import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from moorage_gateway import store
from moorage_gateway.prediction_log import Query

ROW = {"input": [5.1, 3.5, 1.4, 0.2]}


def stored_in(database: str) -> set[str]:
    """The ids of every prediction in a database."""
    predictions = store.connect(database)
    try:
        found: set[str] = set()
        after = ""
        while True:
            page = predictions.page(Query(limit=1000, after=after))
            found |= {row.request_id for row in page.rows}
            after = page.cursor
            if not after:
                return found
    finally:
        predictions.close()


def test_without_its_database_it_answers_and_says_so(start_gateway: Any, until: Any) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        database = f"postgresql://someone:secret@127.0.0.1:{holder.getsockname()[1]}/none"
        with (
            start_gateway("--database", database) as gateway,
            httpx.Client(base_url=gateway.url, timeout=60) as client,
        ):
            for _ in range(20):
                assert client.post("/predict/iris", json=ROW).status_code == 200

            def trouble() -> Any:
                told = client.get("/health/ready").json()
                return told if told["prediction_log"] != "ok" else None

            told = until(trouble)
            assert told["ready"] is True
            assert "secret" not in told["prediction_log"]
            assert client.get("/predictions").status_code == 503
            assert "moorage_prediction_log_pending 20.0" in client.get("/metrics").text
        assert gateway.end() == 0
        assert "secret" not in gateway.words
        assert '"lost":20' in gateway.words.replace(" ", "")


def test_after_sigterm_every_prediction_that_was_answered_is_stored(
    start_gateway: Any, tmp_path: Path, deadline_s: float
) -> None:
    """Requests come in until the door is closed; none that got an answer is missing."""
    enough = threading.Event()

    with start_gateway() as gateway:

        def ask() -> list[str]:
            found: list[str] = []
            with httpx.Client(base_url=gateway.url, timeout=deadline_s) as client:
                while True:
                    try:
                        answer = client.post("/predict/iris", json=ROW)
                    except httpx.TransportError:
                        return found
                    assert answer.status_code == 200
                    found.append(answer.headers["x-prediction-id"])
                    if len(found) == 50:
                        enough.set()

        with ThreadPoolExecutor(4) as pool:
            tasks = [pool.submit(ask) for _ in range(4)]
            assert enough.wait(deadline_s)
            gateway.terminate()
            answered = {identity for task in tasks for identity in task.result()}
        assert gateway.end() == 0, gateway.words
    assert len(answered) >= 50
    assert answered <= stored_in(f"sqlite:///{tmp_path / 'predictions.db'}")


def takes_connections(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


def test_a_request_under_way_at_sigterm_is_answered(
    start_gateway: Any, deadline_s: float, until: Any
) -> None:
    """Its body comes in two parts, the second after the signal."""
    body = b'{"input": [5.1, 3.5, 1.4, 0.2]}'
    head = b"POST /predict/iris HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    with start_gateway() as gateway:
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), deadline_s) as connection:
            connection.settimeout(deadline_s)
            connection.sendall(head + body[:5])
            # Answered after the bytes above were read, as connections are served in turn.
            assert httpx.get(f"{gateway.url}/health/live").status_code == 200
            gateway.terminate()
            # The door closes; who is inside is answered.
            until(lambda: not takes_connections(host, int(port)))
            connection.sendall(body[5:])
            answer = b""
            while part := connection.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"prediction"' in answer
        assert gateway.end() == 0


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        pytest.param(["--database", "mysql://host/db"], 2, "--database", id="another database"),
        pytest.param(["--port", "70000"], 2, "port", id="no port"),
        pytest.param(["--routes", "kubernetes"], 2, "routes", id="routes from a cluster"),
    ],
)
def test_wrong_use_is_told_in_a_line_and_by_its_status(
    tmp_path: Path, flags: list[str], status: int, words: str
) -> None:
    command = [sys.executable, "-m", "moorage_gateway", "--data", str(tmp_path), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == status
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_told_in_a_line(up: Any, tmp_path: Path) -> None:
    port = up.url.rpartition(":")[2]
    command = [sys.executable, "-m", "moorage_gateway", "--data", str(tmp_path), "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert f":{port}" in ended.stderr
    assert "Traceback" not in ended.stderr
