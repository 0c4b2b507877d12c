"""The records' database: SQLAlchemy tables, connections to SQLite and PostgreSQL, migrations, and the upsert.

Times are Unix seconds, UTC, as double precision. There are no foreign keys: the two planes write
their rows on their own, and a turn may arrive before the call it belongs to.
"""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    Table,
    Text,
    and_,
    create_engine,
    event,
    make_url,
    not_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tandem.outcome import Outcome

if TYPE_CHECKING:
    from alembic.config import Config

BUSY_MS = 5000
"""How long SQLite waits for another writer, and PostgreSQL for a connection or a lock."""
STATEMENT_MS = 10000
"""Longest time one statement may take in PostgreSQL before the database counts as away."""
READING = "tandem_reading"
"""Execution option of connections that only read: they take no write lock in SQLite."""
_MIGRATION_LOCK = 0x7A4DE3
"""Key of PostgreSQL's advisory lock that lets one process migrate at a time."""


class Base(DeclarativeBase):
    type_annotation_map = {str: Text, float: Double, int: Integer, bool: Boolean}  # noqa: RUF012


class Call(Base):
    __tablename__ = "calls"
    __table_args__ = (
        Index("calls_started_at", "started_at"),
        Index("calls_live", "worker", postgresql_where=text("outcome IS NULL"), sqlite_where=text("outcome IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    worker: Mapped[str]
    trunk: Mapped[str]
    tenant: Mapped[str]
    caller: Mapped[str]
    number: Mapped[str]
    agent: Mapped[str]
    verified: Mapped[str]
    codec: Mapped[str]
    sip_call_id: Mapped[str]
    started_at: Mapped[float]
    answered_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    outcome: Mapped[str | None]
    cause: Mapped[str]
    sip_status: Mapped[int | None]
    transferred_to: Mapped[str | None]
    direction: Mapped[str]
    answered_by: Mapped[str | None]
    answer_rule: Mapped[str | None]
    detected_ms: Mapped[int | None]
    joined_ms: Mapped[int | None]


class Turn(Base):
    __tablename__ = "turns"

    call: Mapped[str] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(primary_key=True)
    who: Mapped[str]
    text: Mapped[str]
    started_at: Mapped[float]
    ended_at: Mapped[float | None]
    duration_ms: Mapped[int]
    heard_ms: Mapped[int | None]
    interrupted: Mapped[bool]


class ToolCall(Base):
    __tablename__ = "tool_calls"

    call: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    arguments: Mapped[str]
    result: Mapped[str]
    started_at: Mapped[float]
    ended_at: Mapped[float | None]
    status: Mapped[str]


class Transfer(Base):
    __tablename__ = "transfers"
    __table_args__ = (Index("transfers_key", "key_digest"),)

    call: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    destination: Mapped[str]
    method: Mapped[str]
    answered_by: Mapped[str | None]
    heard: Mapped[bool]
    reason: Mapped[str]
    summary: Mapped[str]
    key_digest: Mapped[str | None]
    key_expires_at: Mapped[float | None]
    outcome: Mapped[str | None]
    detail: Mapped[str]
    sip_status: Mapped[int | None]
    started_at: Mapped[float]
    ended_at: Mapped[float | None]


class Timing(Base):
    __tablename__ = "timings"

    call: Mapped[str] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    speech_ended_at: Mapped[float | None]
    committed_at: Mapped[float | None]
    first_model_audio_at: Mapped[float | None]
    first_audio_out_at: Mapped[float | None]
    response_ms: Mapped[int | None]
    cut_ms: Mapped[int | None]
    heard_ms: Mapped[int | None]


class Recording(Base):
    __tablename__ = "recordings"
    __table_args__ = (Index("recordings_started_at", "started_at"),)

    call: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    worker: Mapped[str]
    tenant: Mapped[str]
    agent: Mapped[str]
    state: Mapped[str]
    cause: Mapped[str]
    consent: Mapped[str]
    consent_at: Mapped[float | None]
    started_at: Mapped[float]
    ended_at: Mapped[float | None]
    pauses: Mapped[str]
    duration_ms: Mapped[int | None]
    format: Mapped[str]
    file: Mapped[str]
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str]
    keep_until: Mapped[float]
    purged_at: Mapped[float | None]


class DoNotCall(Base):
    __tablename__ = "do_not_call"

    number: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    added_at: Mapped[float]


TABLES: Mapping[str, Table] = Base.metadata.tables


def connect(url: str, name: str = "tandem") -> Engine:
    """An engine for ``url``; nothing is opened yet. ``name`` is what PostgreSQL shows in pg_stat_activity.

    Raises sqlalchemy.exc.ArgumentError for what is not a database URL.
    """
    if make_url(url).get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_MS / 1000})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={
            "application_name": name,
            "connect_timeout": BUSY_MS // 1000,
            "tcp_user_timeout": STATEMENT_MS,
            "client_encoding": "utf8",  # a database of SQL_ASCII would give bytes
            "options": f"-c statement_timeout={STATEMENT_MS} -c lock_timeout={BUSY_MS}",
        },
    )


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, so that DDL is inside them too
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(READING) else "BEGIN IMMEDIATE")


def upgrade(engine: Engine) -> None:
    """Bring the schema to this version. Safe for several processes at once: the others wait for the first.

    Raises sqlalchemy.exc.SQLAlchemyError, and alembic.util.CommandError for a schema newer than this version.
    """
    from alembic import command

    if engine.dialect.name == "sqlite" and engine.url.database not in (None, "", ":memory:"):
        Path(str(engine.url.database)).parent.mkdir(parents=True, exist_ok=True)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config = _migrations()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _migrations() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("tandem") / "migrations"))
    return config


def newest_revision() -> str:
    """The schema's revision that :func:`upgrade` leads to."""
    from alembic.script import ScriptDirectory

    return str(ScriptDirectory.from_config(_migrations()).get_current_head())


def revision(connection: Connection) -> str | None:
    """The schema's revision that the database has; None before the first :func:`upgrade`."""
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def cause(error: Exception) -> str:
    """Why a statement failed, in one line, without the statement and its values."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def upsert(connection: Connection, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert ``rows``, or overwrite those with the same primary key; the last of several rows with one key stays.

    Calls obey :func:`_may_replace`.
    """
    target = TABLES[table]
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(target)
    changed = {column.name: statement.excluded[column.name] for column in target.columns if not column.primary_key}
    statement = statement.on_conflict_do_update(
        index_elements=list(target.primary_key.columns),
        set_=changed,
        where=_may_replace(target, statement.excluded) if table == "calls" else None,
    )
    connection.execute(statement, list(rows))


def close_lost(connection: Connection, worker: str, except_ids: Collection[str], now: float) -> None:
    """End as ``controller_lost`` the live calls of ``worker`` started by ``now``, but not ``except_ids``."""
    calls = TABLES["calls"]
    live = and_(calls.c.worker == worker, calls.c.outcome.is_(None), calls.c.started_at <= now)
    lost = sorted(set(connection.scalars(select(calls.c.id).where(live))) - set(except_ids))
    for start in range(0, len(lost), 500):
        connection.execute(
            update(calls)
            .where(live, calls.c.id.in_(lost[start : start + 500]))
            .values(outcome=Outcome.CONTROLLER_LOST.value, ended_at=now, cause="esl_app was lost during the call")
        )


def _may_replace(stored: Table, new: Any) -> ColumnElement[bool]:
    """Which row of a call id stays: one call may be tried at several workers, and their rows arrive in any order.

    The same attempt (equal ``started_at``) may be updated, but never from ended back to live. Of two attempts the one
    that was answered stays, whatever the workers' clocks say, since the edge tries no further worker after an answer;
    else the later one.
    """
    same_attempt = new.started_at == stored.c.started_at
    return or_(
        and_(same_attempt, or_(stored.c.outcome.is_(None), new.outcome.is_not(None))),
        and_(not_(same_attempt), stored.c.answered_at.is_(None), new.answered_at.is_not(None)),
        and_(
            new.started_at > stored.c.started_at,
            or_(stored.c.answered_at.is_(None), new.answered_at.is_not(None)),
        ),
    )
