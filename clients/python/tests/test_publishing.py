"""From a transaction of a Python service to a record in Kafka."""

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import asyncpg
import psycopg

import outbox_relay.asyncpg
import outbox_relay.psycopg
from outbox_relay.consumer import Record
from tests.conftest import StartRelay
from tests.samples import HEADERS, NASTY, PAYLOADS
from tests.servers import Database, Kafka
from tests.test_drivers import expected_bytes
from tests.waiting import wait_until

WRITERS = 16
TRANSACTIONS_EACH = 40
KEYS = 5


def bytes_of(record: Record) -> bytes:
    assert isinstance(record.value, bytes)
    return record.value


def add(database: Database, topic: str, aggregate_id: str) -> None:
    with psycopg.connect(database.url()) as connection:
        outbox_relay.psycopg.add_event(
            connection,
            aggregate_type="file",
            aggregate_id=aggregate_id,
            event_type="Uploaded",
            payload=b"",
            topic=topic,
        )


def test_records_are_equal_byte_for_byte(
    database: Database, kafka: Kafka, start_relay: StartRelay
) -> None:
    topic = kafka.topic("bytes")
    with psycopg.connect(database.url()) as connection:
        for name, payload in PAYLOADS.items():
            outbox_relay.psycopg.add_event(
                connection,
                aggregate_type="file",
                aggregate_id=name,
                event_type=NASTY,
                payload=payload,
                topic=topic,
                key=f"{name} {NASTY}",
                headers=HEADERS,
                correlation_id="6f1c",
            )
    start_relay([topic])
    database.wait_until_drained()
    records = {record.key: record for record in kafka.records(topic)}
    assert len(records) == len(PAYLOADS)
    for name, payload in PAYLOADS.items():
        record = records[f"{name} {NASTY}".encode()]
        assert record.value == expected_bytes(payload), name
        headers = dict(record.headers)
        own = HEADERS | {"correlation_id": "6f1c", "event_type": NASTY, "aggregate_id": name}
        assert {found: headers[found] for found in own} == {
            found: value.encode() for found, value in own.items()
        }


def test_a_process_that_is_killed_before_its_commit_publishes_nothing(
    database: Database, kafka: Kafka, start_relay: StartRelay
) -> None:
    topic = kafka.topic("killed")
    database.rows("create table files (id text)")
    start_relay([topic])
    command = [sys.executable, "-m", "tests.killed_writer", database.url("asyncpg"), topic]
    folder = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        seq = int(writer.stdout.readline())
        writer.kill()
    open_transactions = """select 1 from pg_stat_activity
      where datname = current_database() and state = 'idle in transaction'"""
    wait_until("the end of its transaction", lambda: not database.rows(open_transactions))
    # Its key is free again, and the event after it is the first one.
    add(database, topic, "file-42")
    database.wait_until_drained()
    assert database.rows("select id from files") == []
    (record,) = kafka.records(topic)
    assert (record.outbox_seq() or 0) > seq


async def test_sixteen_writers_lose_nothing_and_keep_the_order_of_commits(
    database: Database, kafka: Kafka, start_relay: StartRelay
) -> None:
    topic = kafka.topic("writers")
    database.rows("create table changes (key text not null, by_writer int not null, number int)")
    start_relay([topic])
    committed: dict[str, list[int]] = defaultdict(list)
    await asyncio.gather(*(write(database, topic, committed, seed) for seed in range(WRITERS)))
    database.wait_until_drained()
    published: dict[str, list[int]] = defaultdict(list)
    changes = Counter[tuple[str, int, int]]()
    for record in kafka.records(topic):
        key, change = record.key_bytes().decode(), json.loads(bytes_of(record))
        published[key].append(record.outbox_seq() or 0)
        changes[(key, change["by"], change["number"])] += 1
    # Nobody locks anything but `enqueue`: for one key its numbers grow in the order of commits.
    assert published == {key: sorted(seqs) for key, seqs in committed.items()}
    assert changes == Counter(database.rows("select key, by_writer, number from changes"))
    assert changes.total() > WRITERS * TRANSACTIONS_EACH / 2


async def write(database: Database, topic: str, committed: dict[str, list[int]], seed: int) -> None:
    """Change rows and add events, one transaction after the other; roll back a fifth of them."""
    chance = random.Random(seed)  # noqa: S311
    connection = await asyncpg.connect(database.url())
    try:
        for number in range(TRANSACTIONS_EACH):
            key = str(chance.randint(1, KEYS))
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("insert into changes values ($1, $2, $3)", key, seed, number)
            seq = await outbox_relay.asyncpg.add_event(
                connection,
                aggregate_type="change",
                aggregate_id=key,
                event_type="Changed",
                payload={"by": seed, "number": number},
                topic=topic,
            )
            # Transactions stay open for different times, so that they overlap.
            await connection.execute("select pg_sleep($1)", chance.random() / 100)
            if chance.random() < 0.2:
                await transaction.rollback()
            else:
                await transaction.commit()
                committed[key].append(seq)
    finally:
        await connection.close()
