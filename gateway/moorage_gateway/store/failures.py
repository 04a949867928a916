"""What a database's error means to whoever asked for something.

By SQLSTATE where there is one (PostgreSQL, appendix A), else by the class that the driver raised:

==================================  ================================================
22 data, 23 integrity, 54 limits    InvalidRequest: this data will never be taken
42, but for the three below         InvalidRequest: this statement will never be taken
42501 privilege, 42P01 no table,    StoreUnavailable: another than the sender mends it,
42703 no column                     and the data is good
everything else                     StoreUnavailable: 08 connection, 40 rollback, 53
                                    resources, 57 operator, 25006 read-only, 28 login …
==================================  ================================================

SQLite has no SQLSTATE: a locked, read-only or full database and an absent table are all an
OperationalError, and refused data is not.
"""

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from sqlalchemy import exc

from moorage_api.errors import InvalidRequest, StoreUnavailable

_REFUSED_CLASSES: Final = frozenset({"22", "23", "42", "54"})
_MENDABLE: Final = frozenset({"42501", "42P01", "42703"})
_REFUSED_BY_SQLITE: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)


@contextmanager
def translated(database: str) -> Iterator[None]:
    """Turn a database's errors into Moorage's, the original chained behind.

    Parameters
    ----------
    database
        Name of the database for messages, without its password.

    Raises
    ------
    StoreUnavailable
        When the same may succeed later.
    InvalidRequest
        When it will not.
    """
    try:
        yield
    except exc.DBAPIError as error:
        # `orig` alone: the text of the wrapper holds the statement and perhaps its parameters.
        raise _translate(database, error.orig) from error
    except (exc.TimeoutError, OSError) as error:
        raise StoreUnavailable(f"{database}: {error}") from error
    except (psycopg.Error, sqlite3.Error) as error:
        raise _translate(database, error) from error
    except (OverflowError, UnicodeEncodeError, struct.error) as error:
        # A number or text that has no form on the wire; no driver makes these errors its own.
        raise InvalidRequest(f"{database} cannot hold the data: {error}") from error


def _translate(database: str, error: BaseException | None) -> InvalidRequest | StoreUnavailable:
    message = " ".join(str(error).split())
    if _is_refusal(error):
        return InvalidRequest(f"{database} refuses the data: {message}")
    return StoreUnavailable(f"{database} is unavailable: {message}")


def _is_refusal(error: BaseException | None) -> bool:
    if isinstance(error, psycopg.Error):
        state = error.sqlstate
        if state is None:
            # Raised by the driver itself: for a connection, or for data that it cannot send.
            return isinstance(error, psycopg.DataError | psycopg.ProgrammingError)
        return state[:2] in _REFUSED_CLASSES and state not in _MENDABLE
    return isinstance(error, _REFUSED_BY_SQLITE)
