import inspect
import re
from collections.abc import Iterator

import pytest

from moorage_api import errors
from moorage_api.errors import MoorageError, Problem
from moorage_cli import exits
from moorage_serving import answers


def tree(kind: type[MoorageError]) -> Iterator[type[MoorageError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from tree(inner)


ALL = [kind for kind in tree(MoorageError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_an_exit_code_nearer_than_the_root(
    kind: type[MoorageError],
) -> None:
    ancestors = [item for item in kind.__mro__ if item not in (MoorageError, Exception)]
    # Where only the root speaks for it, somebody has said so here.
    no_status: list[type[MoorageError]] = [MoorageError]
    no_exit = [
        MoorageError, errors.Unsupported, errors.RuntimeTimeout, errors.RuntimeBroke,
    ]  # fmt: skip
    assert any(item in answers.STATUS for item in ancestors) or kind in no_status
    assert any(item in exits.STATUS for item in ancestors) or kind in no_exit


def test_every_entry_of_a_table_is_an_error_of_the_tree() -> None:
    assert set(answers.STATUS) <= set(ALL)
    assert set(exits.STATUS) <= set(ALL)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__
    drawn = [
        (len(found[1]) // 4, found[2])
        for line in errors.__doc__.split("::", 1)[1].splitlines()
        if (found := re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line))
    ]

    def walk(kind: type[MoorageError], depth: int) -> Iterator[tuple[int, str]]:
        yield depth, kind.__name__
        for inner in kind.__subclasses__():
            if inner in ALL:
                yield from walk(inner, depth + 1)

    assert sorted(drawn) == sorted(walk(MoorageError, 0))


EXAMPLES: dict[str, MoorageError] = {
    "the request body is larger than the limit of 5 bytes": errors.BodyTooLarge(5),
    "input 'x': expected FP32 [2], got FP64 [2]": errors.InvalidTensor("x", "FP32 [2]", "FP64 [2]"),
    "output 'y': expected a, got b": errors.InvalidTensor("y", "a", "b", "output"),
    "method PUT is not allowed here; use GET or POST": errors.WrongMethod("PUT", ["GET", "POST"]),
    f"no such path: /{'a' * 199}": errors.UnknownPath("/" + "a" * 500),
    "Request for unknown model: 'm' is not found; there is none": errors.UnknownModel("m"),
    "Request for unknown model: 'm' is not found; there are: a, b": errors.UnknownModel(
        "m", ["b", "a"]
    ),
    "Request for unknown model: 'm' version '2' is not found; there are: 1": errors.UnknownVersion(
        "m", "2", ["1"]
    ),
    "no deployment has the endpoint 'e'; there is none": errors.UnknownEndpoint("e"),
    "endpoint 'e' belongs to deployment 'd'; choose another": errors.EndpointTaken("e", "d"),
    "model 'm' is not ready: loading": errors.NotReady("m", "loading"),
    "deployment 'm' is stopped; set spec.stopped to false to serve it": errors.Stopped("m"),
    "sha256 of the model is b, expected a": errors.ChecksumMismatch("a", "b"),
    "f.yaml: spec.model: is required; is odd": errors.InvalidResource(
        [Problem("spec.model", "is required"), Problem("", "is odd")], "f.yaml"
    ),
}


@pytest.mark.parametrize("message", EXAMPLES)
def test_an_error_says_what_is_wrong(message: str) -> None:
    assert str(EXAMPLES[message]) == message


def test_every_error_with_parts_is_among_the_examples() -> None:
    with_parts = {kind for kind in ALL if "__init__" in vars(kind)}
    assert with_parts == {type(error) for error in EXAMPLES.values()}


def test_a_long_list_of_what_there_is_gets_cut() -> None:
    message = str(errors.UnknownModel("m", [f"m{at:02}" for at in range(30)]))
    assert message.endswith("m18, m19, …")


def test_every_error_is_described() -> None:
    assert all(inspect.getdoc(kind) for kind in ALL)
