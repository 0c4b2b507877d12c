"""Alembic's entry: runs on the connection and in the transaction that :func:`tandem.database.upgrade` gives."""

from alembic import context

from tandem.database import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
