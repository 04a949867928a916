import gzip
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from moorage_api.errors import BadModel, ChecksumMismatch, DownloadFailed
from moorage_runtime import storage

MODEL = b"not really a model"
SHA256 = hashlib.sha256(MODEL).hexdigest()


def put(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())


# Where the file lies


# Which file of a folder it is: tests/unit/api/test_model_layout.py


def test_a_folder_is_read_as_triton_lays_it_out(tmp_path: Path) -> None:
    put(tmp_path, "1/model.onnx", "2/weights/w.bin", "2/net.onnx", "config.pbtxt")
    (tmp_path / "2" / "gone.onnx").symlink_to("nowhere")
    assert storage.find(tmp_path, "2") == tmp_path / "2" / "net.onnx"
    assert storage.find(tmp_path / "1") == tmp_path / "1" / "model.onnx"


def test_a_folder_that_leaves_a_choice_is_refused_by_its_path(tmp_path: Path) -> None:
    put(tmp_path, "1/model.onnx", "2/readme.txt")
    with pytest.raises(BadModel, match=re.escape(f"{tmp_path} has the versions 1, 2; set")):
        storage.find(tmp_path, "4")
    with pytest.raises(BadModel, match=re.escape(f"{tmp_path}/2: expected model.onnx or")):
        storage.find(tmp_path, "2")


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=r"/none\.onnx: no such file or folder"):
        storage.find(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    "form",
    ["{path}", "file:{path}", "file://{path}", "file://localhost{path}", "FILE:{path}"],
)
def test_a_local_file_is_used_where_it_lies(tmp_path: Path, form: str) -> None:
    put(tmp_path, "a.onnx")
    found = storage.fetch(form.format(path=tmp_path / "a.onnx"), tmp_path / "unused")
    assert found == tmp_path / "a.onnx"
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:a%20b.onnx", "a b.onnx"),
        ("file:m%C3%A9.onnx", "mé.onnx"),
        ("./v1:2.onnx", "v1:2.onnx"),
        ("a b.onnx", "a b.onnx"),
        ("10%.onnx", "10%.onnx"),
    ],
)
def test_an_address_is_unquoted_and_a_bare_path_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, name)
    assert storage.fetch(uri, tmp_path).read_bytes() == name.encode()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("file://host/a.onnx", "file://host/a.onnx: a file address has no host"),
        ("file:/no/such/file.onnx", "/no/such/file.onnx: no such file or folder"),
        ("", "no such file or folder|expected model.onnx"),
        ("a\0b", "no such file or folder"),
        ("http://[bad/model.onnx", "http://[bad/model.onnx: Invalid IPv6 URL"),
        ("http://host:port/model.onnx", "http://host:port/model.onnx: nonnumeric port"),
        ("http:///model.onnx", "http:///model.onnx: no host given"),
        ("http:model.onnx", "no host given"),
        ("gopher://host/model.onnx", "gopher://host/model.onnx: "),
        ("models:/iris/1", "models:/iris/1: no registry is set; give --registry, a gateway's URL"),
        ("models:/iris", "expected models:/NAME/VERSION"),
        ("models:/../1", "model name '..': expected"),
        ("models:/iris/..", "model version '..': expected"),
    ],
    ids=repr,
)
def test_an_address_that_leads_nowhere_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pattern = words if "|" in words else re.escape(words)
    with pytest.raises((DownloadFailed, BadModel), match=pattern) as caught:
        storage.fetch(uri, tmp_path)
    assert "\n" not in str(caught.value)


# Downloads


class Files(BaseHTTPRequestHandler):
    """A server of files that can misbehave."""

    asked: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.close_connection = True
        path = self.path.partition("?")[0]
        act: Callable[[], None] = getattr(
            self, "get_" + path.strip("/").replace("/", "_"), self.none
        )
        act()

    def log_message(self, *args: Any) -> None:
        """Keep quiet."""

    def reply(self, status: int = 200, body: bytes = MODEL, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def none(self) -> None:
        self.reply(404, b"<html>not here</html>")

    def get_model(self) -> None:
        self.reply()

    def get_registered(self) -> None:
        self.reply(X_Model_Sha256=SHA256)

    def get_changed(self) -> None:
        self.reply(X_Model_Sha256="0" * 64)

    get_models_iris_versions_2_file = get_registered

    def get_moved(self) -> None:
        self.reply(302, b"", location="/model")

    def get_round(self) -> None:
        self.reply(302, b"", location="/round")

    def get_escape(self) -> None:
        self.reply(302, b"", location="file:///etc/passwd")

    def get_short(self) -> None:
        self.reply(content_length=str(len(MODEL) + 5))

    def get_unsized(self) -> None:
        self.reply(content_length="")

    def get_chunked(self) -> None:
        self.reply(body=b"5\r\nhello\r\n0\r\n\r\n", content_length="", transfer_encoding="chunked")

    def get_cut(self) -> None:
        self.reply(body=b"5\r\nhel", content_length="", transfer_encoding="chunked")

    def get_nonsense(self) -> None:
        self.wfile.write(b"nonsense\r\n\r\n")

    def get_silent(self) -> None:
        """Hang up without a word."""

    def get_broken(self) -> None:
        self.reply(500, b"")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("model", MODEL),
        ("model?signature=secret", MODEL),
        ("registered", MODEL),
        ("moved", MODEL),
        ("unsized", MODEL),
        ("chunked", b"hello"),
    ],
)
def test_a_model_is_downloaded(server: str, tmp_path: Path, path: str, content: bytes) -> None:
    found = storage.fetch(f"{server}/{path}", tmp_path)
    assert found.parent == tmp_path
    assert found.read_bytes() == content


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing", "{server}/missing: HTTP 404 Not Found"),
        ("broken", "{server}/broken: HTTP 500 Internal Server Error"),
        ("round", "{server}/round: HTTP 302 "),
        ("escape", "{server}/escape: HTTP 302 "),
        ("short", "{server}/short: broke off after 18 of 23 bytes"),
        ("cut", "{server}/cut: IncompleteRead("),
        ("nonsense", "{server}/nonsense: "),
        ("silent", "{server}/silent: Remote end closed connection without response"),
    ],
)
def test_a_download_that_fails_is_one_line(
    server: str, tmp_path: Path, path: str, words: str
) -> None:
    with pytest.raises(DownloadFailed) as caught:
        storage.fetch(f"{server}/{path}", tmp_path)
    assert str(caught.value).startswith(words.format(server=server))
    assert "\n" not in str(caught.value)


def test_a_port_where_nobody_listens_is_one_line(server: str, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as closed:
        port = closed.server_port
    with pytest.raises(DownloadFailed, match=rf"http://127\.0\.0\.1:{port}/a: .*refused"):
        storage.fetch(f"http://127.0.0.1:{port}/a", tmp_path)


def test_no_secret_of_an_address_is_told(server: str, tmp_path: Path) -> None:
    host = server.removeprefix("http://")
    for uri in (
        f"{server}/missing?X-Amz-Signature=secret#secret",
        f"http://me:secret@{host}/model",
    ):
        with pytest.raises(DownloadFailed) as caught:
            storage.fetch(uri, tmp_path)
        assert "secret" not in str(caught.value)
        assert host in str(caught.value)


@pytest.mark.parametrize("path", ["model", "unsized"])
def test_a_model_larger_than_the_limit_is_refused(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(storage, "MAX_BYTES", len(MODEL))
    storage.fetch(f"{server}/{path}", tmp_path)
    monkeypatch.setattr(storage, "MAX_BYTES", len(MODEL) - 1)
    with pytest.raises(DownloadFailed, match="larger than the limit of 17 bytes"):
        storage.fetch(f"{server}/{path}", tmp_path)


def test_a_registrys_model_comes_from_its_gateway(server: str, tmp_path: Path) -> None:
    found = storage.fetch("models:/iris/2", tmp_path, registry=f"{server}/")
    assert found.read_bytes() == MODEL
    assert Files.asked[-1] == "/models/iris/versions/2/file"
    with pytest.raises(DownloadFailed, match="/models/iris/versions/3/file: HTTP 404"):
        storage.fetch("models:/iris/3", tmp_path, registry=server)


def test_bytes_that_the_server_says_are_others_are_refused(server: str, tmp_path: Path) -> None:
    with pytest.raises(ChecksumMismatch, match=f"sha256 of the model is {SHA256}, expected 000"):
        storage.fetch(f"{server}/changed", tmp_path)


# fsspec's drivers


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, which stands for every driver."""
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_a_drivers_file_is_downloaded(memory: Any, tmp_path: Path) -> None:
    memory.pipe("/bucket/iris.onnx", MODEL)
    found = storage.fetch("memory://bucket/iris.onnx", tmp_path)
    assert found.is_relative_to(tmp_path)
    assert found.read_bytes() == MODEL


def test_a_drivers_folder_is_downloaded_whole(memory: Any, tmp_path: Path) -> None:
    for path in ("config.pbtxt", "1/model.onnx", "2/model.onnx", "2/weights/w.bin"):
        memory.pipe(f"/bucket/iris/{path}", path.encode())
    found = storage.fetch("memory://bucket/iris", tmp_path, version="2")
    assert found.read_bytes() == b"2/model.onnx"
    assert (found.parent / "weights/w.bin").read_bytes() == b"2/weights/w.bin"


def test_a_drivers_missing_file_is_one_line(memory: Any, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="memory://bucket/none: "):
        storage.fetch("memory://bucket/none", tmp_path)


def test_a_drivers_own_exception_is_one_line(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoCredentials(Exception):
        """As botocore's: of no known family."""

    def fail(*_: Any) -> None:
        raise NoCredentials("Unable to locate\ncredentials")

    monkeypatch.setattr(type(memory), "isdir", fail)
    with pytest.raises(DownloadFailed, match=r"memory://a/b\?…: Unable to locate credentials"):
        storage.fetch("memory://a/b?key=secret", tmp_path)


def test_a_drivers_file_larger_than_the_limit_is_refused(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MAX_BYTES", 3)
    memory.pipe("/bucket/iris.onnx", MODEL)
    with pytest.raises(DownloadFailed, match="larger than the limit of 3 bytes"):
        storage.fetch("memory://bucket/iris.onnx", tmp_path)


@pytest.mark.parametrize("name", ["/bucket/evil", "/bucket/iris/../../evil"])
def test_a_name_that_leads_out_of_the_folder_is_refused(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    memory.pipe("/bucket/iris/model.onnx", MODEL)
    listing = {name: {"name": name, "size": 1, "type": "file"}}
    # A hostile server can list anything; the driver in memory cannot be made to.
    monkeypatch.setattr(type(memory), "find", lambda *args, **options: listing)
    with pytest.raises(DownloadFailed, match="lies outside the folder"):
        storage.fetch("memory://bucket/iris", tmp_path / "to")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("scheme", ["s3", "gs", "az", "sftp", "hf"])
def test_a_driver_that_is_not_installed_is_named_by_its_extra(tmp_path: Path, scheme: str) -> None:
    packages = {
        "s3": "s3fs",
        "gs": "gcsfs",
        "az": "adlfs",
        "sftp": "paramiko",
        "hf": "huggingface_hub",
    }
    try:
        __import__(packages[scheme])
    except ImportError:
        with pytest.raises(DownloadFailed, match=r"needs the extra: pip install 'moorage\["):
            storage.fetch(f"{scheme}://a/b", tmp_path)
    else:
        pytest.skip(f"{packages[scheme]} is installed")


# Checksums


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="Is a directory"):
        storage.verify(tmp_path, None)


def test_a_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    for content in (b"", MODEL, os.urandom(3_000_000), gzip.compress(MODEL)):
        file.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        assert storage.verify(file, None) == storage.verify(file, digest) == digest
        with pytest.raises(ChecksumMismatch) as caught:
            storage.verify(file, "0" * 64)
        assert (caught.value.expected, caught.value.got) == ("0" * 64, digest)
