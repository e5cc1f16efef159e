"""Events in the transaction of a connection of psycopg 3."""

from typing import Any, Unpack

from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from outbox_relay.errors import NoTransactionError
from outbox_relay.event import EventArguments, enqueue
from outbox_relay.statement import Statement


def add_event(connection: Connection[Any], **event: Unpack[EventArguments]) -> int:
    """Add an event to the transaction of a connection.

    It is published if and when that transaction commits.

    Args:
        connection: It is neither committed nor rolled back.
        event: See `outbox_relay.EventArguments`.

    Returns:
        The event's `outbox_seq`, which grows for each key.

    Raises:
        InvalidEventError: If an argument is not usable. Nothing was sent.
        NoTransactionError: If the connection commits each statement.
    """
    return int(str(fetch_value(connection, enqueue(**event))))


async def add_event_async(connection: AsyncConnection[Any], **event: Unpack[EventArguments]) -> int:
    """Add an event to the transaction of an asynchronous connection. See `add_event`."""
    return int(str(await fetch_value_async(connection, enqueue(**event))))


def fetch_value(connection: Connection[Any], statement: Statement) -> object:
    """Run a statement; return the first column of its first row, or None without a row."""
    if not isinstance(connection, Connection):
        raise TypeError(
            f"the connection is of type {type(connection).__name__}: use the function whose name "
            "ends in _async for asynchronous connections"
        )
    _require_transaction(connection)
    sql, parameters = statement.pyformat()
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(sql, parameters).fetchone()
    return None if row is None else row[0]


async def fetch_value_async(connection: AsyncConnection[Any], statement: Statement) -> object:
    """Run a statement; return the first column of its first row, or None without a row."""
    if not isinstance(connection, AsyncConnection):
        raise TypeError(
            f"the connection is of type {type(connection).__name__}: use the function whose name "
            "does not end in _async for synchronous connections"
        )
    _require_transaction(connection)
    sql, parameters = statement.pyformat()
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(sql, parameters)
        row = await cursor.fetchone()
    return None if row is None else row[0]


def _require_transaction(connection: Connection[Any] | AsyncConnection[Any]) -> None:
    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise NoTransactionError(
            "the connection is in autocommit mode and has no transaction, so the statement would "
            "commit without your changes: use `with connection.transaction():`"
        )
