"""Each way to write an event, behind one interface: begin, write a row and an event, end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, Unpack

import asyncpg
import psycopg
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import outbox_relay.asyncpg
import outbox_relay.psycopg
import outbox_relay.sqlalchemy
from outbox_relay import EventArguments
from tests.servers import Database


class Writer(Protocol):
    """A transaction that is open."""

    async def execute(self, sql: str) -> None:
        """Run a statement without parameters."""

    async def add_event(self, **event: Unpack[EventArguments]) -> int:
        """Add an event."""


Transaction = Callable[[Database], AbstractAsyncContextManager[Writer]]


class SqlalchemyWriter:
    """Over an asynchronous session or connection."""

    def __init__(self, session: AsyncSession | async_scoped_session[Any] | AsyncConnection) -> None:
        self.session = session

    async def execute(self, sql: str) -> None:
        await self.session.execute(sqlalchemy.text(sql))

    async def add_event(self, **event: Unpack[EventArguments]) -> int:
        return await outbox_relay.sqlalchemy.add_event_async(self.session, **event)


class SqlalchemySyncWriter:
    """Over a session or connection, in a thread."""

    def __init__(self, session: Session | scoped_session[Any] | sqlalchemy.Connection) -> None:
        self.session = session

    async def execute(self, sql: str) -> None:
        await asyncio.to_thread(self.session.execute, sqlalchemy.text(sql))

    async def add_event(self, **event: Unpack[EventArguments]) -> int:
        add_event = outbox_relay.sqlalchemy.add_event
        return await asyncio.to_thread(lambda: add_event(self.session, **event))


class AsyncpgWriter:
    """Over a connection of asyncpg."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def execute(self, sql: str) -> None:
        await self.connection.execute(sql)

    async def add_event(self, **event: Unpack[EventArguments]) -> int:
        return await outbox_relay.asyncpg.add_event(self.connection, **event)


class PsycopgWriter:
    """Over an asynchronous connection of psycopg."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection

    async def execute(self, sql: str) -> None:
        await self.connection.execute(sql.encode())

    async def add_event(self, **event: Unpack[EventArguments]) -> int:
        return await outbox_relay.psycopg.add_event_async(self.connection, **event)


class PsycopgSyncWriter:
    """Over a connection of psycopg, in a thread."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    async def execute(self, sql: str) -> None:
        await asyncio.to_thread(self.connection.execute, sql.encode())

    async def add_event(self, **event: Unpack[EventArguments]) -> int:
        add_event = outbox_relay.psycopg.add_event
        return await asyncio.to_thread(lambda: add_event(self.connection, **event))


def sqlalchemy_session(driver: str) -> Transaction:
    """Return transactions of an `AsyncSession`."""

    @asynccontextmanager
    async def begin(database: Database) -> AsyncIterator[Writer]:
        engine = create_async_engine(database.url(driver))
        try:
            async with AsyncSession(engine) as session, session.begin():
                yield SqlalchemyWriter(session)
        finally:
            await engine.dispose()

    return begin


@asynccontextmanager
async def sqlalchemy_connection(database: Database) -> AsyncIterator[Writer]:
    engine = create_async_engine(database.url("asyncpg"))
    try:
        async with engine.begin() as connection:
            yield SqlalchemyWriter(connection)
    finally:
        await engine.dispose()


@asynccontextmanager
async def sqlalchemy_sync_session(database: Database) -> AsyncIterator[Writer]:
    engine = sqlalchemy.create_engine(database.url("psycopg"))
    try:
        with Session(engine) as session, session.begin():
            yield SqlalchemySyncWriter(session)
    finally:
        engine.dispose()


@asynccontextmanager
async def sqlalchemy_sync_connection(database: Database) -> AsyncIterator[Writer]:
    engine = sqlalchemy.create_engine(database.url("psycopg"))
    try:
        with engine.begin() as connection:
            yield SqlalchemySyncWriter(connection)
    finally:
        engine.dispose()


@asynccontextmanager
async def sqlalchemy_scoped_session(database: Database) -> AsyncIterator[Writer]:
    engine = create_async_engine(database.url("asyncpg"))
    session = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
    try:
        async with session.begin():
            yield SqlalchemyWriter(session)
    finally:
        await session.remove()
        await engine.dispose()


@asynccontextmanager
async def sqlalchemy_sync_scoped_session(database: Database) -> AsyncIterator[Writer]:
    engine = sqlalchemy.create_engine(database.url("psycopg"))
    session = scoped_session(sessionmaker(engine), scopefunc=lambda: "one for all threads")
    try:
        with session.begin():
            yield SqlalchemySyncWriter(session)
    finally:
        session.remove()
        engine.dispose()


@asynccontextmanager
async def asyncpg_connection(database: Database) -> AsyncIterator[Writer]:
    connection = await asyncpg.connect(database.url())
    try:
        async with connection.transaction():
            yield AsyncpgWriter(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def asyncpg_pool(database: Database) -> AsyncIterator[Writer]:
    async with (
        asyncpg.create_pool(database.url(), min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        yield AsyncpgWriter(connection)


@asynccontextmanager
async def psycopg_async(database: Database) -> AsyncIterator[Writer]:
    # Rows as dicts: the library must not depend on the connection's row factory.
    async with await psycopg.AsyncConnection.connect(
        database.url(), row_factory=dict_row
    ) as connection:
        yield PsycopgWriter(connection)


@asynccontextmanager
async def psycopg_sync(database: Database) -> AsyncIterator[Writer]:
    with psycopg.connect(database.url(), row_factory=dict_row) as connection:
        yield PsycopgSyncWriter(connection)


@asynccontextmanager
async def psycopg_autocommit(database: Database) -> AsyncIterator[Writer]:
    with psycopg.connect(database.url(), autocommit=True) as connection, connection.transaction():
        yield PsycopgSyncWriter(connection)


TRANSACTIONS: dict[str, Transaction] = {
    "sqlalchemy-session-asyncpg": sqlalchemy_session("asyncpg"),
    "sqlalchemy-session-psycopg": sqlalchemy_session("psycopg"),
    "sqlalchemy-connection": sqlalchemy_connection,
    "sqlalchemy-scoped-session": sqlalchemy_scoped_session,
    "sqlalchemy-sync-session": sqlalchemy_sync_session,
    "sqlalchemy-sync-connection": sqlalchemy_sync_connection,
    "sqlalchemy-sync-scoped-session": sqlalchemy_sync_scoped_session,
    "asyncpg": asyncpg_connection,
    "asyncpg-pool": asyncpg_pool,
    "psycopg-async": psycopg_async,
    "psycopg": psycopg_sync,
    "psycopg-autocommit": psycopg_autocommit,
}
