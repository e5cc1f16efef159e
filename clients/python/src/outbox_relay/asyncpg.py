"""Events in the transaction of a connection of asyncpg."""

from typing import Any, Protocol, Unpack

from outbox_relay.errors import NoTransactionError
from outbox_relay.event import EventArguments, enqueue
from outbox_relay.statement import Statement


class AsyncpgConnection(Protocol):
    """A connection of asyncpg, from a pool or not."""

    async def fetchval(self, query: str, *args: object) -> Any:
        """Run a query; return the first column of its first row, or None without a row."""

    def is_in_transaction(self) -> bool:
        """Return whether a transaction is open."""


async def add_event(connection: AsyncpgConnection, **event: Unpack[EventArguments]) -> int:
    """Add an event to the transaction of a connection.

    It is published if and when that transaction commits.

    Args:
        connection: It is neither committed nor rolled back. A pool is not a connection.
        event: See `outbox_relay.EventArguments`.

    Returns:
        The event's `outbox_seq`, which grows for each key.

    Raises:
        InvalidEventError: If an argument is not usable. Nothing was sent.
        NoTransactionError: If the connection has no open transaction.
    """
    return int(str(await fetch_value_async(connection, enqueue(**event))))


async def fetch_value_async(connection: AsyncpgConnection, statement: Statement) -> object:
    """Run a statement; return the first column of its first row, or None without a row."""
    if not hasattr(connection, "is_in_transaction"):
        raise TypeError(
            f"the connection is of type {type(connection).__name__}: pass a connection of asyncpg, "
            "not a pool"
        )
    if not connection.is_in_transaction():
        raise NoTransactionError(
            "the connection has no open transaction, so the statement would commit without your "
            "changes: use `async with connection.transaction():`"
        )
    sql, parameters = statement.numbered()
    return await connection.fetchval(sql, *parameters)
