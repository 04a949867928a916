"""For the tests of the command line: ModelDeployment files, and a gateway that is scripted."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml


def _document(
    name: str = "iris", *, uri: str = "file:model.onnx", version: str = "1", **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"uri": uri, "version": version}, **spec},
    }


@pytest.fixture(scope="session")
def document() -> Callable[..., dict[str, Any]]:
    """Make the document of a ModelDeployment; further keywords are members of its spec."""
    return _document


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write documents, made as by `document`, into one YAML file of the test's folder."""

    def written(name: str, *documents: dict[str, Any]) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump_all(documents or [_document()]), encoding="utf-8")
        return file

    return written


@dataclass
class Scripted:
    """A real HTTP server that gives one answer to everything, and remembers what it was asked.

    Parameters
    ----------
    url
        Its base URL.
    status, body
        Its answer.
    asked
        Method, path with query, headers in lower case, and body of every request.
    """

    url: str
    status: int = 200
    body: bytes = b"{}"
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    def answer(self, status: int, document: Any) -> None:
        """Answer so from now on."""
        self.status, self.body = status, json.dumps(document).encode()


class _Handler(BaseHTTPRequestHandler):
    script: ClassVar[Scripted]

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.script.asked.append((self.command, self.path, headers, self.rfile.read(length)))
        self.send_response(self.script.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(self.script.body)))
        self.end_headers()
        self.wfile.write(self.script.body)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    """Serve on a free port of this machine until the test is over."""
    handler: type[_Handler] = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.script = Scripted(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler.script
        server.shutdown()
        thread.join()
