"""Alembic migrations of the records' database, run by :func:`tandem.database.upgrade`."""
