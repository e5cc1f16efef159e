"""Runs a statement on a connection of any supported database library."""

import sys
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from outbox_relay.asyncpg import AsyncpgConnection, fetch_value_async
from outbox_relay.statement import Statement

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

    AnyConnection: TypeAlias = Session | scoped_session[Any] | Connection | psycopg.Connection[Any]
    AnyAsyncConnection: TypeAlias = (
        AsyncSession
        | async_scoped_session[Any]
        | AsyncConnection
        | psycopg.AsyncConnection[Any]
        | AsyncpgConnection
    )
else:
    AnyConnection = Any
    AnyAsyncConnection = Any


def fetch_value(connection: "AnyConnection", statement: Statement) -> object:
    """Run a statement; return the first column of its first row, or None without a row.

    Raises:
        NoTransactionError: If the connection has no transaction.
    """
    if "psycopg" in sys.modules:
        import psycopg

        from outbox_relay import psycopg as of_psycopg

        if isinstance(connection, psycopg.Connection):
            return of_psycopg.fetch_value(connection, statement)
    if "sqlalchemy" in sys.modules:
        from outbox_relay import sqlalchemy as of_sqlalchemy

        if of_sqlalchemy.is_sync(connection):
            return of_sqlalchemy.fetch_value(connection, statement)
    raise _unsupported(connection)


async def fetch_value_of_async(connection: "AnyAsyncConnection", statement: Statement) -> object:
    """Run a statement; return the first column of its first row, or None without a row.

    Raises:
        NoTransactionError: If the connection has no transaction.
    """
    if "psycopg" in sys.modules:
        import psycopg

        from outbox_relay import psycopg as of_psycopg

        if isinstance(connection, psycopg.AsyncConnection):
            return await of_psycopg.fetch_value_async(connection, statement)
    if "sqlalchemy" in sys.modules:
        from outbox_relay import sqlalchemy as of_sqlalchemy

        if of_sqlalchemy.is_async(connection):
            return await of_sqlalchemy.fetch_value_async(connection, statement)
    if hasattr(connection, "fetchval"):
        return await fetch_value_async(cast("AsyncpgConnection", connection), statement)
    raise _unsupported(connection)


def _unsupported(connection: object) -> TypeError:
    return TypeError(
        f"the connection is of type {type(connection).__name__}: pass a session or connection of "
        "SQLAlchemy, psycopg or asyncpg; DeduplicatingConsumer needs an asynchronous one and "
        "DeduplicatingConsumerSync a synchronous one"
    )
