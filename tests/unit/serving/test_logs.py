import io
import logging
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from moorage_serving import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream that gets the process's logs until the test ends."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers = []
    yield io.StringIO()
    for handler in root.handlers:
        handler.close()
    root.handlers = before
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_a_log_is_one_json_object_a_line(stream: io.StringIO) -> None:
    logs.configure(stream=stream)
    logging.getLogger("moorage").warning("two\nlines of %s", "é", extra={"model": "m", "rows": 3})
    (line,) = lines(stream)
    time = line.pop("time")
    assert line == {
        "level": "warning",
        "logger": "moorage",
        "message": "two\nlines of é",
        "model": "m",
        "rows": 3,
    }
    assert time.endswith("+00:00")


def test_an_exception_is_told_within_its_line(stream: io.StringIO) -> None:
    logs.configure(stream=stream)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("moorage").exception("failed")
    (line,) = lines(stream)
    assert line["level"] == "error"
    assert "ValueError: odd" in line["traceback"]


@pytest.mark.parametrize(
    "value", [object(), 2**80, "\udcff", {1: 2}, {(1, 2): 3}, float("nan"), b"x", {"a": {2**70}}],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_no_value_makes_a_line_disappear(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str], value: object
) -> None:
    logs.configure(stream=stream)
    logging.getLogger("moorage").warning("hello", extra={"value": value})
    assert '"hello"' in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 1
    # The logging package complains there of a formatter that failed.
    assert capsys.readouterr().err == ""


def test_the_level_is_the_one_asked_for(stream: io.StringIO) -> None:
    logs.configure("warning", stream=stream)
    logging.getLogger("moorage").info("no")
    logging.getLogger("moorage").warning("yes")
    assert [line["message"] for line in lines(stream)] == ["yes"]


def test_uvicorn_tells_of_trouble_only(stream: io.StringIO) -> None:
    logs.configure("debug", stream=stream)
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").warning("trouble")
    assert [line["message"] for line in lines(stream)] == ["trouble"]


def test_text_is_for_eyes(stream: io.StringIO) -> None:
    logs.configure(form="text", stream=stream)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("moorage").exception("failed", extra={"model": "m"})
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith(" ERROR moorage: failed model=m")
    assert rest[-1] == "ValueError: odd"


def test_configuring_again_replaces_what_was_there(stream: io.StringIO) -> None:
    logs.configure(stream=io.StringIO())
    logs.configure(stream=stream)
    logging.getLogger("moorage").warning("once")
    assert len(lines(stream)) == 1
