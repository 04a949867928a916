import asyncio
import gzip
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api.errors import BodyTooLarge, InvalidBody, MoorageError, UnsupportedContent
from moorage_serving import bodies


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACK: dict[bytes, Any] = {
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"GZip": gzip.compress,
    b"deflate": zlib.compress,
    b" deflate ": raw_deflate,
    b"identity": bytes,
    b"": bytes,
    b"gzip, deflate": lambda data: zlib.compress(gzip.compress(data)),
    b"deflate,identity,gzip": lambda data: gzip.compress(zlib.compress(data)),
}


class Receive:
    """ASGI's `receive` over parts of a body; counts how often it was asked."""

    def __init__(self, *parts: bytes, gone: bool = False) -> None:
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": gone or at < len(parts) - 1}
            for at, part in enumerate(parts)
        ]
        if gone:
            self.messages.append({"type": "http.disconnect"})
        self.asked = 0

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        return self.messages[self.asked - 1]


def read(receive: Receive, limit: int = 100, **headers: bytes) -> bytes:
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return asyncio.run(bodies.read(receive, named, limit))


def test_a_body_is_joined_from_its_parts() -> None:
    assert read(Receive(b"ab", b"", b"cd")) == b"abcd"
    assert read(Receive(b"")) == b""


def test_a_body_of_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert read(Receive(b"x" * 100), content_length=b"100") == b"x" * 100
    for receive in (Receive(b"x" * 101), Receive(b"x" * 60, b"x" * 41), Receive(b"x" * 101, b"")):
        with pytest.raises(BodyTooLarge, match=r"the request body is larger than .* 100 bytes"):
            read(receive)


def test_a_body_announced_larger_than_the_limit_is_refused_unread() -> None:
    receive = Receive(b"x")
    with pytest.raises(BodyTooLarge):
        read(receive, content_length=b"101")
    assert receive.asked == 0


def test_an_endless_body_is_read_no_further_than_the_limit() -> None:
    receive = Receive(*[b"x" * 50] * 1000)
    with pytest.raises(BodyTooLarge):
        read(receive)
    assert receive.asked == 3


@pytest.mark.parametrize("parts", [[], [b"a"], [b"a", b"b"]], ids=len)
def test_a_client_that_goes_away_ends_the_reading(parts: list[bytes]) -> None:
    with pytest.raises(bodies.Disconnected):
        read(Receive(*parts, gone=True))


@pytest.mark.parametrize("encoding", PACK)
def test_a_compressed_body_is_unpacked(encoding: bytes) -> None:
    packed = PACK[encoding](b"hello" * 10)
    half = len(packed) // 2
    receive = Receive(packed[:half], packed[half:])
    assert read(receive, content_encoding=encoding) == b"hello" * 10


@given(st.binary(max_size=300), st.sampled_from(list(PACK)))
def test_what_was_packed_comes_out(data: bytes, encoding: bytes) -> None:
    assert bodies.decompress(PACK[encoding](data), encoding, 300) == data


def test_gzip_members_one_after_the_other_are_one_body() -> None:
    packed = gzip.compress(b"ab") + gzip.compress(b"") + gzip.compress(b"cd")
    assert bodies.decompress(packed, b"gzip", 4) == b"abcd"


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b" deflate "])
@pytest.mark.parametrize("size", [99, 100], ids=["below", "at"])
def test_what_comes_out_may_be_as_large_as_the_limit(encoding: bytes, size: int) -> None:
    assert len(bodies.decompress(PACK[encoding](bytes(size)), encoding, 100)) == size


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (gzip.compress(bytes(1_000_000)), b"gzip"),
        (zlib.compress(bytes(1_000_000)), b"deflate"),
        (raw_deflate(bytes(1_000_000)), b"deflate"),
        (gzip.compress(gzip.compress(bytes(1_000_000))), b"gzip, gzip"),
        (gzip.compress(bytes(600)) + gzip.compress(bytes(600)), b"gzip"),
        (gzip.compress(bytes(1001)), b"gzip"),
    ],
    ids=["gzip", "zlib", "bare deflate", "twice", "two members", "by one byte"],
)
def test_a_bomb_is_refused_before_it_goes_off(packed: bytes, encoding: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge, match=r"the decompressed body .* the limit of 1000 bytes"):
            bodies.decompress(packed, encoding, 1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


def test_a_body_of_countless_empty_members_is_refused() -> None:
    # Each of them is small and in order; unpacking them all one by one would take a day.
    packed = gzip.compress(b"") * 50_000
    with pytest.raises(InvalidBody, match="the gzip body has more than 16384 members"):
        bodies.decompress(packed, b"gzip", 100)


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b" deflate ", b"gzip, deflate"])
def test_a_truncated_body_is_refused_wherever_it_ends(encoding: bytes) -> None:
    packed = PACK[encoding](b"hello world")
    for end in range(1, len(packed)):
        with pytest.raises(InvalidBody, match=r"ends too early|is not (gzip|deflate)"):
            bodies.decompress(packed[:end], encoding, 100)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"plain", b"gzip"),
        (b"{}", b"deflate"),
        (gzip.compress(b"x") + b"garbage", b"gzip"),
        (gzip.compress(b"x")[:-8] + b"\0" * 8, b"gzip"),
        (zlib.compress(b"x"), b"gzip"),
        (gzip.compress(b"x"), b"gzip, gzip"),
    ],
    ids=["gzip", "deflate", "trailing", "checksum", "another", "once of twice"],
)
def test_a_damaged_body_is_refused(body: bytes, encoding: bytes) -> None:
    with pytest.raises(InvalidBody):
        bodies.decompress(body, encoding, 100)


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, br", b"compress", b"\xff"], ids=repr)
def test_an_encoding_that_nobody_reads_is_refused_by_name(encoding: bytes) -> None:
    words = "expected one of gzip, deflate, identity"
    with pytest.raises(UnsupportedContent, match=words) as caught:
        bodies.decompress(b"x", encoding, 100)
    assert encoding.split(b", ")[-1].decode("latin-1") in str(caught.value)


@given(st.binary(max_size=60), st.sampled_from(list(PACK)), st.binary(max_size=5), st.data())
def test_damage_gives_a_body_or_a_sentence(
    data: bytes, encoding: bytes, insert: bytes, draw: st.DataObject
) -> None:
    packed = PACK[encoding](data)
    at = draw.draw(st.integers(0, len(packed)))
    skip = draw.draw(st.integers(0, 5))
    try:
        found = bodies.decompress(packed[:at] + insert + packed[at + skip :], encoding, 100)
    except MoorageError:
        return
    assert len(found) <= 100


def test_headers_are_found_by_name_and_the_last_of_two_wins() -> None:
    scope = {"headers": [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]}
    assert bodies.headers_of(scope) == {b"a": b"3", b"b": b"2"}
