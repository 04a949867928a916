"""What the dialects share."""

from collections.abc import Callable

import numpy as np
import orjson
import pytest

from moorage_api.errors import InvalidBody, NotReady
from moorage_gateway.dialects.call import Call, Target, load_object, render_json
from moorage_gateway.routing import Route


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"", "not JSON", id="nothing"),
        pytest.param(b'{"input": [1, 2', "not JSON", id="truncated"),
        pytest.param(b'{"input": NaN}', "not JSON", id="NaN"),
        pytest.param(b'{"input": -Infinity}', "not JSON", id="minus Infinity"),
        pytest.param(b"{} {}", "not JSON", id="two documents"),
        pytest.param(b'\xff{"input": 1}', "not JSON", id="not UTF-8"),
        pytest.param(b"[1, 2]", "a list", id="a list"),
        pytest.param(b"null", "it is null", id="null"),
        pytest.param(b'"input"', "a str", id="a text"),
        pytest.param(b"1", "the number 1", id="a number"),
    ],
)
def test_a_body_that_is_no_object_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidBody, match=words):
        load_object(body)


def test_what_json_cannot_say_leaves_as_null() -> None:
    answer = render_json({"a": np.array([1.5, np.nan, np.inf, -np.inf])})
    assert orjson.loads(b"".join(answer.chunks)) == {"a": [1.5, None, None, None]}


def test_a_call_knows_its_deployment_before_it_finds_it_not_ready(
    make_route: Callable[..., Route],
) -> None:
    call = Call(Target("predict", "m"), bytes(16))
    route = make_route("m", addresses=())
    with pytest.raises(NotReady):
        call.aim(route)
    assert call.route is route


def test_every_call_has_lists_of_its_own() -> None:
    first, second = (Call(Target("predict"), bytes(16)) for _ in range(2))
    first.tensors.append(object())  # type: ignore[arg-type]
    assert second.tensors == []
    assert second.answers == []
