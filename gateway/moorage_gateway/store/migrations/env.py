"""Alembic's entry: runs migrations on the connection and in the transaction that it is given.

`moorage_gateway.store.migration` calls it; it is no entry for a command line.
"""

from alembic import context

from moorage_gateway.store.migration import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
