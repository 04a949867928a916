"""Exit statuses, and which error ends with which: the one table."""

from typing import Final

from moorage_api import errors

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2

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
    for kind in type(error).__mro__:
        status = STATUS.get(kind)
        if status is not None:
            return status
    return FAILED
