"""Events in the transaction of a session or connection of SQLAlchemy 2."""

from typing import Any, TypeAlias, TypeGuard, Unpack

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from outbox_relay.errors import NoTransactionError
from outbox_relay.event import EventArguments, enqueue
from outbox_relay.statement import Statement

SyncSession: TypeAlias = Session | scoped_session[Any] | Connection
AnyAsyncSession: TypeAlias = AsyncSession | async_scoped_session[Any] | AsyncConnection

_SYNC = (Session, scoped_session, Connection)
_ASYNC = (AsyncSession, async_scoped_session, AsyncConnection)


def add_event(session: SyncSession, **event: Unpack[EventArguments]) -> int:
    """Add an event to the transaction of a session or connection.

    It is published if and when that transaction commits.

    Args:
        session: A session or a connection. It is neither committed nor rolled back.
        event: See `outbox_relay.EventArguments`.

    Returns:
        The event's `outbox_seq`, which grows for each key.

    Raises:
        InvalidEventError: If an argument is not usable. Nothing was sent.
        NoTransactionError: If the connection commits each statement.
    """
    return int(str(fetch_value(session, enqueue(**event))))


async def add_event_async(session: AnyAsyncSession, **event: Unpack[EventArguments]) -> int:
    """Add an event to the transaction of an asynchronous session or connection.

    See `add_event`.
    """
    return int(str(await fetch_value_async(session, enqueue(**event))))


def is_sync(session: object) -> TypeGuard[SyncSession]:
    """Return whether it is a synchronous session or connection of SQLAlchemy."""
    return isinstance(session, _SYNC)


def is_async(session: object) -> TypeGuard[AnyAsyncSession]:
    """Return whether it is an asynchronous session or connection of SQLAlchemy."""
    return isinstance(session, _ASYNC)


def fetch_value(session: SyncSession, statement: Statement) -> object:
    """Run a statement; return the first column of its first row, or None without a row."""
    if not is_sync(session):
        raise TypeError(
            f"the session is of type {type(session).__name__}: use the function whose name ends in "
            "_async for asynchronous sessions and connections"
        )
    connection = session if isinstance(session, Connection) else session.connection()
    _require_transaction(connection.get_execution_options().get("isolation_level"))
    sql, parameters = statement.named()
    row = connection.execute(text(sql), parameters).first()
    return None if row is None else row[0]


async def fetch_value_async(session: AnyAsyncSession, statement: Statement) -> object:
    """Run a statement; return the first column of its first row, or None without a row."""
    if not is_async(session):
        raise TypeError(
            f"the session is of type {type(session).__name__}: use the function whose name does "
            "not end in _async for synchronous sessions and connections"
        )
    connection = session if isinstance(session, AsyncConnection) else await session.connection()
    options = (
        connection.sync_connection.get_execution_options() if connection.sync_connection else {}
    )
    _require_transaction(options.get("isolation_level"))
    sql, parameters = statement.named()
    row = (await connection.execute(text(sql), parameters)).first()
    return None if row is None else row[0]


def _require_transaction(isolation_level: object) -> None:
    if isolation_level == "AUTOCOMMIT":
        raise NoTransactionError(
            "the connection has isolation level AUTOCOMMIT, so the statement would commit without "
            "your changes: use a connection with another isolation level"
        )
