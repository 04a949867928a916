"""The prediction store: what was predicted, kept in a SQLite file or a PostgreSQL database.

::

    sql            the store itself: one transaction a method
    ├── migration      makes and changes the tables (migrations/)
    ├── paging         the statement for a page, and its cursor
    ├── versions       which model a row is of, and how its columns are laid out
    ├── binary_copy    rows on their way into PostgreSQL; text_insert: into SQLite
    ├── engines        connections that behave, failures what their errors mean
    ├── schema         the tables; column_types what is in them
    └── rows           records to rows and back; features which columns a model has
"""

from moorage_gateway.prediction_log import PredictionStore
from moorage_gateway.store.sql import SqlPredictionStore


def connect(url: str) -> PredictionStore:
    """Return the prediction store at `url`; nothing is connected to before it is used.

    Parameters
    ----------
    url
        `sqlite:///path/to/file.db`, where `?timeout=` says how many seconds to wait for another
        process's lock, or `postgresql://user:password@host/database` with libpq's options as a
        query (`?sslmode=require`).

    Raises
    ------
    InvalidRequest
        When it is neither.
    """
    return SqlPredictionStore(url)
