"""Exit statuses, and which error ends with which: the one table."""

from typing import Final

from moorage_api import errors

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2

#: What each exit status of `moorage` says.
MEANING: Final[dict[int, str]] = {
    OK: "done",
    FAILED: "failed; of `status`: something that should serve does not",
    USAGE: "wrong use: a command, flag or value that does not exist",
    3: "the model cannot be served as it is",
    4: "a file or request is invalid, or contradicts what is there",
    5: "not found",
    6: "not available now: no gateway answers, or what it needs is away",
}

#: Exit status of each error; a subclass without an entry has its nearest ancestor's.
STATUS: Final[dict[type[errors.MoorageError], int]] = {
    errors.MoorageError: FAILED,
    errors.ModelRejected: 3,
    errors.InvalidRequest: 4,
    errors.InvalidResource: 4,
    errors.Conflict: 4,
    errors.NotFound: 5,
    errors.Unavailable: 6,
}


def status_of(error: BaseException) -> int:
    """Return the exit status for an error; 1 for one that is not Moorage's."""
    status = errors.entry_of(STATUS, error)
    return FAILED if status is None else status
