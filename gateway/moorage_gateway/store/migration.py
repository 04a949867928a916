"""Brings a database's schema up to date; safe when several processes do it at once."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from moorage_api.errors import Conflict
from moorage_gateway.store import engines

#: Not alembic's default: the database may be another program's too.
VERSION_TABLE: Final = "moorage_schema_version"


def upgrade(engine: Engine, database: str) -> None:
    """Run every migration that the database has not seen, in one transaction.

    Parameters
    ----------
    engine
        Of the database.
    database
        Its name for messages.

    Raises
    ------
    Conflict
        When the database is of a revision that this program does not know.
    """
    if engine.dialect.name == "sqlite":
        engines.create_file(engine)
    config = _config()
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    with engines.for_writing(engine).begin() as connection:
        _lock(connection)
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        unknown = sorted(set(context.get_current_heads()) - known)
        if unknown:
            raise Conflict(
                f"{database} has schema {', '.join(unknown)}, and the newest that this program "
                f"knows is {script.get_current_head()}; upgrade this program or give it another "
                "database"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    folder = str(Path(__file__).with_name("migrations"))
    config.set_main_option("script_location", folder.replace("%", "%%"))
    return config


def _lock(connection: Connection) -> None:
    """Wait for another process that does the same; on SQLite the transaction is the lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": engines.SCHEMA_LOCK})
        # A migration of a large table may take what it takes.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
