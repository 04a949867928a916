"""Exit statuses: every error has one, and scripts rely on them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage_api import errors
from moorage_api.errors import MoorageError
from moorage_cli import exits
from moorage_cli.local.up import GatewayFailed


def every(kind: type[MoorageError] = MoorageError) -> Iterator[type[MoorageError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from every(below)


def bare(kind: type[MoorageError]) -> MoorageError:
    """Make an error of a class without knowing its parameters."""
    return kind.__new__(kind)


EXPECTED = {
    MoorageError: 1,
    errors.Unsupported: 1,
    errors.RuntimeBroke: 1,
    errors.RuntimeTimeout: 1,
    GatewayFailed: 1,
    errors.BadModel: 3,
    errors.DownloadFailed: 3,
    errors.ChecksumMismatch: 3,
    errors.UnsupportedOpset: 3,
    errors.InvalidBody: 4,
    errors.InvalidTensor: 4,
    errors.InvalidResource: 4,
    errors.Conflict: 4,
    errors.VersionExists: 4,
    errors.EndpointTaken: 4,
    errors.UnknownModel: 5,
    errors.UnknownEndpoint: 5,
    errors.NotReady: 6,
    errors.Stopped: 6,
    errors.StoreUnavailable: 6,
}


@pytest.mark.parametrize(("kind", "status"), list(EXPECTED.items()), ids=str)
def test_each_kind_of_error_has_its_own_status(kind: type[MoorageError], status: int) -> None:
    assert exits.status_of(bare(kind)) == status


@pytest.mark.parametrize("kind", list(every()), ids=lambda kind: kind.__name__)
def test_no_error_ends_as_good_or_as_wrong_use(kind: type[MoorageError]) -> None:
    assert exits.status_of(bare(kind)) not in (exits.OK, exits.USAGE)


def test_every_branch_of_the_tree_is_judged() -> None:
    # What stands directly below the root either has an entry, or is meant to end with 1.
    plain = {errors.Unsupported, errors.RuntimeTimeout, errors.RuntimeBroke}
    own = {kind for kind in MoorageError.__subclasses__() if kind.__module__ == errors.__name__}
    assert own - plain <= exits.STATUS.keys()


def test_every_status_has_a_meaning() -> None:
    assert exits.MEANING.keys() == {exits.OK, exits.USAGE, *exits.STATUS.values()}


def test_the_protocols_page_lists_every_status_in_the_same_words() -> None:
    page = (Path(__file__).parents[3] / "docs" / "protocols.md").read_text(encoding="utf-8")
    section = page.partition("### Exit statuses\n")[2].partition("\n#")[0]
    rows = dict(re.findall(r"^\| (\d) \| .* \| (.*) \|$", section, re.MULTILINE))
    assert rows.keys() == {str(status) for status in exits.MEANING}
    for status, meaning in exits.MEANING.items():
        assert rows[str(status)].startswith(meaning.partition(";")[0].partition(":")[0])


def test_what_is_not_an_error_of_moorage_has_failed() -> None:
    assert exits.status_of(ValueError()) == exits.FAILED
