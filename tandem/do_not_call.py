"""Numbers that must not be called, in the records' database. Blocking: not for the loop of a plane."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, delete, select
from sqlalchemy.exc import SQLAlchemyError

from tandem import database

EVERY_TENANT = ""


class DoNotCallError(Exception):
    """The list cannot be read or written: one line with the cause."""


class Listed(BaseModel):
    """``tenant``: whose calls are meant; empty: everybody's."""

    model_config = ConfigDict(frozen=True)

    number: str
    tenant: str = EVERY_TENANT
    reason: str = ""
    added_at: float


class DoNotCall:
    """``url`` is Settings.records.url. Every method raises DoNotCallError."""

    def __init__(self, url: str) -> None:
        try:
            self._engine = database.connect(url, "tandem-do-not-call")
        except SQLAlchemyError as error:
            raise DoNotCallError(f"records.url cannot be used: {error}") from error
        self._table = database.TABLES["do_not_call"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

    def find(self, number: str, tenant: str) -> Listed | None:
        """Why ``tenant`` must not call ``number`` (E.164); None where it may."""
        table = self._table
        query = select(table).where(table.c.number == number, table.c.tenant.in_((EVERY_TENANT, tenant)))
        with self._connection(reading=True) as connection:
            found = connection.execute(query.order_by(table.c.tenant)).mappings().first()
        return None if found is None else Listed.model_validate(dict(found))

    def add(self, number: str, tenant: str = EVERY_TENANT, reason: str = "") -> Listed:
        """Put ``number`` on the list; one that is there gets the new reason."""
        listed = Listed(number=number, tenant=tenant, reason=reason, added_at=time.time())
        with self._connection() as connection:
            database.upsert(connection, "do_not_call", [listed.model_dump()])
        return listed

    def remove(self, number: str, tenant: str = EVERY_TENANT) -> bool:
        """False where it was not on the list."""
        table = self._table
        with self._connection() as connection:
            gone = connection.execute(delete(table).where(table.c.number == number, table.c.tenant == tenant))
        return bool(gone.rowcount)

    def listed(self, limit: int = 1000) -> Sequence[Listed]:
        """The newest first."""
        table = self._table
        query = select(table).order_by(table.c.added_at.desc(), table.c.number).limit(limit)
        with self._connection(reading=True) as connection:
            return [Listed.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    @contextmanager
    def _connection(self, reading: bool = False) -> Iterator[Connection]:
        try:
            with (
                self._engine.connect().execution_options(**{database.READING: reading}) as connection,
                connection.begin(),
            ):
                yield connection
        except SQLAlchemyError as error:
            shown = self._engine.url.render_as_string(hide_password=True)
            raise DoNotCallError(f"{shown}: {database.cause(error)}") from error
