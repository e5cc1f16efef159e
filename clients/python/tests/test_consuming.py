"""Consumers behind a relay that is killed, and behind writers that are not ordered."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer  # type: ignore[import-untyped]
from confluent_kafka import Consumer, Message
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

import outbox_relay.psycopg
from outbox_relay.consumer import (
    DeduplicatingConsumer,
    DeduplicatingConsumerSync,
    Ordering,
    PostgresEventIds,
    PostgresHighestSeq,
)
from tests.conftest import StartRelay
from tests.servers import Database, Kafka, rig, unique
from tests.waiting import wait_until, wait_until_async

ORDERED = Ordering.ALL_WRITERS_ORDERED
KEYS = 10
Effects = list[tuple[str, int]]


def write(database: Database, topic: str, versions: range) -> Effects:
    """Add an event for each key and version; return them in the order of commits."""
    effects = []
    with psycopg.connect(database.url()) as connection:
        for version in versions:
            for key in (f"key-{n}" for n in range(KEYS)):
                outbox_relay.psycopg.add_event(
                    connection,
                    aggregate_type="version",
                    aggregate_id=key,
                    event_type="Changed",
                    payload={"version": version},
                    topic=topic,
                )
                effects.append((key, version))
            connection.commit()
    return effects


@contextmanager
def rows_that_nobody_can_delete(database: Database) -> Iterator[None]:
    """Keep the relay from deleting what it has published, and end its attempts to do so.

    Without the latter the server would still delete the rows after the relay is dead.
    """
    relay_waits = """select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock'"""
    with psycopg.connect(database.url()) as connection:
        connection.execute("select 1 from outbox.event for update")
        yield
        database.rows(relay_waits)
        wait_until("the end of the relay's statements", lambda: not database.rows(relay_waits))
        connection.rollback()


def by_key(effects: Effects) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for key, version in effects:
        found.setdefault(key, []).append(version)
    return found


def publish_with_a_killed_relay(
    database: Database, kafka: Kafka, topic: str, start_relay: StartRelay
) -> Effects:
    """Write events; kill a relay that has published them and not deleted them; start another."""
    written = write(database, topic, range(20))
    with rows_that_nobody_can_delete(database):
        relay = start_relay([topic])
        wait_until(
            "all to be published",
            lambda: relay.metric("outbox_events_published_total") >= len(written),
        )
        relay.kill()
    written += write(database, topic, range(20, 30))
    assert database.waiting() == len(written)
    start_relay([topic])
    database.wait_until_drained()
    records = kafka.records(topic)
    assert len(records) > len(written), "no duplicates: this test would show nothing"
    return written


class Effect:
    """What a consumer does for an event: one row in the database, at its place."""

    create_table = "create table effects (place bigserial, key text, version int)"
    insert = "insert into effects (key, version) values ('{key}', {version})"

    @classmethod
    def sql(cls, key: bytes | str | None, value: bytes | str | None) -> str:
        """Return the statement for a record."""
        assert isinstance(key, bytes)
        assert value is not None
        return cls.insert.format(key=key.decode(), version=json.loads(value)["version"])

    @staticmethod
    def of(database: Database) -> Effects:
        """Return what happened, in order."""
        rows = database.rows("select key, version from effects order by place")
        return [(str(key), int(version)) for key, version in rows]


STORES = {"by-event-id": PostgresEventIds("grader"), "by-outbox-seq": PostgresHighestSeq("grader")}
stores = pytest.mark.parametrize("store", STORES.values(), ids=STORES.keys())


@stores
async def test_aiokafka_sees_each_event_once_and_in_order_after_kill_9(
    database: Database,
    kafka: Kafka,
    start_relay: StartRelay,
    store: PostgresEventIds | PostgresHighestSeq,
) -> None:
    topic = kafka.topic("consumed")
    with database.connect() as connection:
        connection.execute(store.create_table.encode())
        connection.execute(Effect.create_table.encode())
    engine = create_async_engine(database.url("asyncpg"))
    sessions = async_sessionmaker(engine)
    consumer = DeduplicatingConsumer(store, ordering=ORDERED)
    counted = {"read": 0, "dropped": 0}

    async def consume() -> None:
        reader = AIOKafkaConsumer(
            topic,
            bootstrap_servers=rig("RIG_KAFKA"),
            group_id=unique("grader"),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await reader.start()
        try:
            async for record in reader:
                async with sessions.begin() as session:
                    new = await consumer.process(record, effect_in(session), session)
                await reader.commit()
                counted["read"] += 1
                counted["dropped"] += not new
        finally:
            await reader.stop()

    def effect_in(session: AsyncSession) -> Any:
        async def apply(record: Any) -> None:
            await session.execute(text(Effect.sql(record.key, record.value)))

        return apply

    consuming = asyncio.create_task(consume())  # also while the relay is killed
    written = await asyncio.to_thread(
        publish_with_a_killed_relay, database, kafka, topic, start_relay
    )
    published = len(await asyncio.to_thread(kafka.messages, topic))

    async def all_are_read() -> bool:
        if consuming.done():
            consuming.result()
        return counted["read"] == published

    await wait_until_async("the consumer to read all", all_are_read)
    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)
    await engine.dispose()
    assert by_key(Effect.of(database)) == by_key(written)
    assert counted["dropped"] == published - len(written) > 0


@stores
def test_confluent_kafka_sees_each_event_once_and_in_order_after_kill_9(
    database: Database,
    kafka: Kafka,
    start_relay: StartRelay,
    store: PostgresEventIds | PostgresHighestSeq,
) -> None:
    topic = kafka.topic("consumed")
    with database.connect() as connection:
        connection.execute(store.create_table.encode())
        connection.execute(Effect.create_table.encode())
    written = publish_with_a_killed_relay(database, kafka, topic, start_relay)
    published = len(kafka.messages(topic))
    consumer = DeduplicatingConsumerSync(store, ordering=ORDERED)
    settings = {
        "bootstrap.servers": rig("RIG_KAFKA"),
        "group.id": unique("grader"),
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    reader = Consumer(settings)
    reader.subscribe([topic])
    connection = psycopg.connect(database.url(), autocommit=True)
    read = dropped = 0

    def apply(message: Message) -> None:
        connection.execute(Effect.sql(message.key(), message.value()).encode())

    def consume() -> bool:
        nonlocal read, dropped
        message = reader.poll(0.1)
        if message is not None:
            with connection.transaction():
                dropped += not consumer.process(message, apply, connection)
            reader.commit(message=message, asynchronous=False)
            read += 1
        return read == published

    wait_until("the consumer to read all", consume)
    reader.close()
    connection.close()
    assert by_key(Effect.of(database)) == by_key(written)
    assert dropped == published - len(written) > 0


def test_unordered_writers_lose_an_event_to_the_numbers_and_not_to_the_ids(
    database: Database, kafka: Kafka, start_relay: StartRelay
) -> None:
    """Why a store of numbers needs a statement: see `outbox_relay.consumer.Ordering`."""
    topic = kafka.topic("unordered", partitions=1)
    by_id, by_seq = PostgresEventIds("by_id"), PostgresHighestSeq("by_seq")
    with database.connect() as connection:
        connection.execute(by_id.create_table.encode())
        connection.execute(by_seq.create_table.encode())
    start_relay([topic])
    # Inserted past `enqueue`, so nothing locks the key: the higher number commits first.
    insert = f"""insert into outbox.event (aggregate_type, aggregate_id, event_type, payload, topic)
      values ('file', 'file-42', 'Changed', %s, '{topic}')""".encode()  # noqa: S608
    with psycopg.connect(database.url()) as slow, psycopg.connect(database.url()) as fast:
        slow.execute(insert, [b"drawn first"])
        fast.execute(insert, [b"drawn second"])
        fast.commit()
        database.wait_until_drained()
        slow.commit()
        database.wait_until_drained()
    messages = kafka.messages(topic)
    assert [message.value() for message in messages] == [b"drawn second", b"drawn first"]

    def handled(consumer: DeduplicatingConsumerSync) -> list[bytes | str | None]:
        seen: list[bytes | str | None] = []
        for message in messages:
            with psycopg.connect(database.url()) as connection:
                consumer.process(message, lambda each: seen.append(each.value()), connection)
        return seen

    # What somebody gets who makes the statement although it is not true:
    assert handled(DeduplicatingConsumerSync(by_seq, ordering=ORDERED)) == [b"drawn second"]
    assert handled(DeduplicatingConsumerSync(by_id)) == [b"drawn second", b"drawn first"]


@pytest.mark.parametrize("record_headers", ["Standard", "Debezium", "CloudEvents"])
def test_ids_and_numbers_are_found_in_each_style_of_headers(
    database: Database, kafka: Kafka, start_relay: StartRelay, record_headers: str
) -> None:
    topic = kafka.topic("styles", partitions=1)
    with psycopg.connect(database.url()) as connection:
        seq = outbox_relay.psycopg.add_event(
            connection,
            aggregate_type="file",
            aggregate_id="file-42",
            event_type="Changed",
            payload=None,
            topic=topic,
        )
    ((event_id,),) = database.rows("select event_id::text from outbox.event")
    start_relay([topic], record_headers)
    database.wait_until_drained()
    (record,) = kafka.records(topic)
    assert (record.event_id(), record.outbox_seq(), record.value) == (event_id, seq, None)
