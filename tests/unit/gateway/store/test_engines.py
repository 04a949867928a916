"""Which addresses of databases are taken, and what is said of the others."""

import pytest

from moorage_api.errors import InvalidRequest
from moorage_gateway.store import connect, engines


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("sqlite:///a/b.db", "SQLite database 'a/b.db'"),
        ("sqlite+pysqlite:////a/b.db?timeout=1", "SQLite database '/a/b.db'"),
        ("postgres://u:s3cret@h/d", "PostgreSQL database 'd' on h"),
        ("postgresql://u:s3cret@h:5433/d?sslmode=require", "PostgreSQL database 'd' on h:5433"),
        ("postgresql+psycopg://u@/d?host=/run/pg", "PostgreSQL database 'd' on /run/pg"),
        ("postgresql:///d", "PostgreSQL database 'd' on the local socket"),
        ("postgresql://u@/d?host=a:1&host=b:2", "PostgreSQL database 'd' on a:1,b:2"),
    ],
)
def test_takes_files_and_postgresql(address: str, name: str) -> None:
    assert engines.name_of(engines.parse(address)) == name
    connect(address).close()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "s3cret",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://u:s3cret@host/a.db",
        "sqlite:///file:a?mode=memory&uri=true",
        "sqlite:///a.db?mode=ro",
        "sqlite:///a.db?timeout=s3cret",
        "mysql://u:s3cret@h/d",
        "postgresql+psycopg2://u:s3cret@h/d",
        "postgresql+asyncpg://u:s3cret@h/d",
        "postgresql://u:s3cret@h:port/d",
        "postgresql://u:s3cret@h/d?speed=s3cret",
        "postgresql://u:s3cret@/d?host=a:1&host=b:x",
    ],
)
def test_refuses_others_without_repeating_a_password(address: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        connect(address)

    assert "sqlite:///" in str(caught.value)
    assert "s3cret" not in str(caught.value)
