"""Every driver: commit, roll back, byte equality, and refusals, in a real database."""

import json
import logging
from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import psycopg
import psycopg.types.json
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import outbox_relay.asyncpg
import outbox_relay.psycopg
import outbox_relay.sqlalchemy
from outbox_relay import InvalidEventError, NoTransactionError
from tests.drivers import TRANSACTIONS, Transaction
from tests.samples import HEADERS, NASTY, PAYLOADS
from tests.servers import Database, unique

drivers = pytest.mark.parametrize("begin", TRANSACTIONS.values(), ids=TRANSACTIONS.keys())
EVENT: dict[str, Any] = {
    "aggregate_type": "file",
    "aggregate_id": "file-42",
    "event_type": "EssayContentProvisionedV1",
    "payload": b"{}",
    "topic": "files",
}
ROWS = """select id, event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload,
  headers::text from outbox.event order by id"""


def expected_bytes(payload: bytes | str | Mapping[str, object] | None) -> bytes | None:
    if isinstance(payload, Mapping):
        return json.dumps(payload).encode()
    return payload.encode() if isinstance(payload, str) else payload


@drivers
async def test_events_arrive_as_they_are(database: Database, begin: Transaction) -> None:
    ids = [uuid4() for _ in PAYLOADS]
    async with begin(database) as writer:
        seqs = [
            await writer.add_event(
                aggregate_type=NASTY,
                aggregate_id=NASTY,
                event_type=NASTY,
                payload=payload,
                topic="files.v1",
                key=NASTY,
                headers=HEADERS,
                event_id=event_id,
            )
            for payload, event_id in zip(PAYLOADS.values(), ids, strict=True)
        ]
    rows = database.rows(ROWS)
    assert seqs == sorted(seqs)
    assert [row[:2] for row in rows] == list(zip(seqs, ids, strict=True))
    assert all(row[2:7] == (NASTY, NASTY, NASTY, "files.v1", NASTY) for row in rows)
    assert [row[7] for row in rows] == [expected_bytes(payload) for payload in PAYLOADS.values()]
    assert all(json.loads(row[8]) == HEADERS for row in rows)


@drivers
async def test_a_committed_transaction_has_both_the_change_and_the_event(
    database: Database, begin: Transaction
) -> None:
    database.rows("create table files (id text)")
    async with begin(database) as writer:
        await writer.execute("insert into files values ('file-42')")
        await writer.add_event(**EVENT)
        assert database.waiting() == 0
    assert database.rows("select id from files") == [("file-42",)]
    assert database.waiting() == 1


@drivers
async def test_a_rolled_back_transaction_has_neither(
    database: Database, begin: Transaction
) -> None:
    database.rows("create table files (id text)")
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with begin(database) as writer:
            await writer.execute("insert into files values ('file-42')")
            await writer.add_event(**EVENT)
            raise ZeroDivisionError
    assert database.rows("select id from files") == []
    assert database.waiting() == 0


@drivers
async def test_a_refused_event_leaves_the_transaction_usable(
    database: Database, begin: Transaction
) -> None:
    async with begin(database) as writer:
        with pytest.raises(InvalidEventError):
            await writer.add_event(**{**EVENT, "event_type": ""})
        await writer.add_event(**EVENT)
    assert database.waiting() == 1


@drivers
async def test_an_error_of_the_database_shows_no_values(
    database: Database, begin: Transaction, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Exception, match="no_such_schema") as failed:  # noqa: PT012
        async with begin(database) as writer:
            event = {**EVENT, "payload": {"k": "secret-payload"}, "headers": {"h": "secret-header"}}
            await writer.add_event(**event, schema="no_such_schema")
    assert "secret-" not in f"{failed.value} {failed.value!r}"
    assert "secret-" not in caplog.text


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_codec_of_the_application_changes_nothing(database: Database, driver: str) -> None:
    @asynccontextmanager
    async def connection() -> Any:
        if driver == "asyncpg":
            made = await asyncpg.connect(database.url())
            # What many services set, so that dicts become jsonb.
            await made.set_type_codec(
                "jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
            )
            async with made.transaction():
                yield made
            await made.close()
        else:
            async with await psycopg.AsyncConnection.connect(database.url()) as other:
                psycopg.types.json.set_json_dumps(lambda value: json.dumps([value]), other)
                yield other

    add_event: Any = (
        outbox_relay.asyncpg.add_event
        if driver == "asyncpg"
        else outbox_relay.psycopg.add_event_async
    )
    async with connection() as open_connection:
        await add_event(open_connection, **EVENT, headers={"a": "b"})
    assert database.rows("select headers from outbox.event") == [({"a": "b"},)]


async def test_without_a_transaction_nothing_is_sent(database: Database) -> None:
    connection = await asyncpg.connect(database.url())
    with pytest.raises(NoTransactionError, match=r"async with connection\.transaction\(\)"):
        await outbox_relay.asyncpg.add_event(connection, **EVENT)
    await connection.close()
    with (
        psycopg.connect(database.url(), autocommit=True) as other,
        pytest.raises(NoTransactionError, match=r"with connection\.transaction\(\)"),
    ):
        outbox_relay.psycopg.add_event(other, **EVENT)
    async with await psycopg.AsyncConnection.connect(database.url(), autocommit=True) as third:
        with pytest.raises(NoTransactionError):
            await outbox_relay.psycopg.add_event_async(third, **EVENT)
    engine = sqlalchemy.create_engine(
        database.url("psycopg"), execution_options={"isolation_level": "AUTOCOMMIT"}
    )
    with engine.connect() as fourth, pytest.raises(NoTransactionError, match="AUTOCOMMIT"):
        outbox_relay.sqlalchemy.add_event(fourth, **EVENT)
    with (
        Session(engine) as session,
        pytest.raises(NoTransactionError, match="another isolation level"),
    ):
        outbox_relay.sqlalchemy.add_event(session, **EVENT)
    engine.dispose()
    assert database.waiting() == 0


async def test_a_connection_of_the_wrong_kind_is_refused(database: Database) -> None:
    wrong: Any
    engine = create_async_engine(database.url("asyncpg"))
    async with AsyncSession(engine) as wrong:
        with pytest.raises(TypeError, match=r"AsyncSession.*_async"):
            outbox_relay.sqlalchemy.add_event(wrong, **EVENT)
    await engine.dispose()
    with psycopg.connect(database.url()) as wrong:
        with pytest.raises(TypeError, match=r"type Connection: .*not end in _async"):
            await outbox_relay.psycopg.add_event_async(wrong, **EVENT)
        with pytest.raises(TypeError, match="not a pool"):
            await outbox_relay.asyncpg.add_event(wrong, **EVENT)
    async with asyncpg.create_pool(database.url(), min_size=1) as wrong:
        with pytest.raises(TypeError, match="not a pool"):
            await outbox_relay.asyncpg.add_event(wrong, **EVENT)
    assert database.waiting() == 0


async def test_a_role_that_may_only_enqueue(database: Database) -> None:
    role = unique("producer")
    rights = (
        f"create role {role}",
        f"grant usage on schema outbox to {role}",
        f"grant execute on function outbox.enqueue to {role}",
    )
    for right in rights:
        database.rows(right)
    try:
        async with TRANSACTIONS["asyncpg"](database) as writer:
            await writer.execute(f"set local role {role}")
            await writer.add_event(**EVENT)
        assert database.waiting() == 1
    finally:
        database.rows(f"drop owned by {role}")
        database.rows(f"drop role {role}")


async def test_another_schema(empty_database: Database) -> None:
    empty_database.migrate("essays_outbox")
    async with TRANSACTIONS["asyncpg"](empty_database) as writer:
        await writer.add_event(**EVENT, schema="essays_outbox")
    assert empty_database.rows("select count(*) from essays_outbox.event") == [(1,)]
