import asyncio
from typing import Any

import orjson
import pytest

from moorage_api import errors
from moorage_serving import answers
from moorage_serving.answers import Headers


def sent_by(act: Any) -> list[dict[str, Any]]:
    """Run `act(send)` and return what it sent."""
    messages: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    asyncio.run(act(send))
    return messages


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidRequest("x"), 400),
        (errors.InvalidTensor("x", "a", "b"), 400),
        (errors.ModelFailed("x"), 400),
        (errors.InvalidResource([errors.Problem("", "x")]), 400),
        (errors.UnknownModel("x"), 404),
        (errors.WrongMethod("PUT", ["GET"]), 405),
        (errors.EndpointTaken("a", "b"), 409),
        (errors.BodyTooLarge(5), 413),
        (errors.UnsupportedContent("x"), 415),
        (errors.BadModel("x"), 422),
        (errors.Unsupported("x"), 501),
        (errors.RuntimeBroke("x"), 502),
        (errors.Overloaded("x"), 503),
        (errors.NotReady("x", "y"), 503),
        (errors.RuntimeTimeout("x"), 504),
        (errors.MoorageError("x"), 500),
        (ValueError("x"), 500),
    ],
    ids=lambda item: type(item).__name__ if isinstance(item, Exception) else None,
)
def test_an_error_has_the_status_of_its_nearest_ancestor(error: Exception, status: int) -> None:
    assert answers.status_of(error) == status


def test_an_expected_error_says_itself_and_an_unexpected_one_nothing() -> None:
    assert orjson.loads(answers.error_body(errors.InvalidBody("é is odd"))) == {"error": "é is odd"}
    body = answers.error_body(KeyError("postgres://user:password@host"))
    assert orjson.loads(body) == {"error": "internal error"}


def test_words_that_are_no_unicode_are_answered_all_the_same() -> None:
    body = answers.error_body(errors.UnknownPath("/\udcff"))
    assert "no such path: /" in orjson.loads(body)["error"]


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (errors.WrongMethod("PUT", ["GET", "HEAD"]), [(b"allow", b"GET, HEAD")]),
        (errors.Overloaded("x"), [(b"retry-after", b"1")]),
        (errors.InvalidBody("x"), []),
        (ValueError("x"), []),
    ],
    ids=lambda item: type(item).__name__,
)
def test_an_error_brings_its_headers(error: Exception, headers: Headers) -> None:
    assert answers.error_headers(error) == headers


def test_an_error_is_sent_as_json_with_extra_headers() -> None:
    start, body = sent_by(
        lambda send: answers.send_error(send, errors.Overloaded("full"), [(b"x-a", b"b")])
    )
    assert start["status"] == 503
    assert dict(start["headers"]) == {
        b"content-type": b"application/json",
        b"retry-after": b"1",
        b"x-a": b"b",
        b"content-length": str(len(body["body"])).encode(),
    }
    assert orjson.loads(body["body"]) == {"error": "full"}


def test_json_is_sent_with_its_length() -> None:
    start, body = sent_by(lambda send: answers.send_json(send, {"a": "é"}, 201))
    assert start["status"] == 201
    assert dict(start["headers"])[b"content-length"] == b"10"
    assert body["body"] == '{"a":"é"}'.encode()
    assert not body.get("more_body")


def test_chunks_are_sent_one_by_one_and_the_last_is_last() -> None:
    chunks: list[bytes | memoryview] = [b"ab", memoryview(b"cde"), b""]
    start, *bodies = sent_by(lambda send: answers.send_chunks(send, 200, [], chunks))
    assert dict(start["headers"])[b"content-length"] == b"5"
    assert [bytes(item["body"]) for item in bodies] == [b"ab", b"cde", b""]
    assert [item["more_body"] for item in bodies] == [True, True, False]


def test_two_answers_do_not_share_headers() -> None:
    first = sent_by(lambda send: answers.send_json(send, 1))[0]["headers"]
    second = sent_by(lambda send: answers.send_json(send, 2))[0]["headers"]
    assert len(first) == len(second) == 2
