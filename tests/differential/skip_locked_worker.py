"""A common polling worker: SELECT ... FOR UPDATE SKIP LOCKED, send, update, commit.

skip_locked_worker.py POSTGRES_URL BROKERS. Several of them share the table. It never gives up a
row: after an error it rolls back, connects again, and starts over.
"""

import asyncio
import json
import logging
import signal
import sys

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

BATCH_ROWS = 100
PAUSE_SECONDS = 0.1
# InternalClientError: asyncpg, where a connection breaks at a bad moment.
DATABASE_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
RECONNECT_PAUSE_SECONDS = 1.0

UNPUBLISHED = """
    select id, topic, event_key, event_data from event_outbox
    where published_at is null order by created_at limit $1 for update skip locked"""
PUBLISHED = "update event_outbox set published_at = now() where id = any($1::uuid[])"

log = logging.getLogger("worker")


def value(row):
    envelope = json.loads(row["event_data"])
    envelope.pop("topic", None)
    envelope.pop("headers", None)
    return json.dumps(envelope).encode()


async def publish_batch(database, producer):
    async with database.transaction():
        rows = await database.fetch(UNPUBLISHED, BATCH_ROWS)
        sent = [
            await producer.send(row["topic"], value(row), key=row["event_key"].encode())
            for row in rows
        ]
        if sent:
            await asyncio.gather(*sent)
            await database.execute(PUBLISHED, [row["id"] for row in rows])
    return len(rows)


async def publish_rows(url, brokers, stopping):
    """Publishes until a connection breaks, or until `stopping` is set."""
    producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all", enable_idempotence=True)
    database = None
    try:
        await producer.start()
        database = await asyncpg.connect(url, ssl=False, timeout=5, command_timeout=10)
        log.info("ready")
        while not stopping.is_set():
            if await publish_batch(database, producer) < BATCH_ROWS:
                await asyncio.sleep(PAUSE_SECONDS)
    finally:
        if database is not None:
            database.terminate()
        await producer.stop()


async def main():
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    while not stopping.is_set():
        try:
            await publish_rows(sys.argv[1], sys.argv[2], stopping)
        except (*DATABASE_ERRORS, KafkaError) as error:
            log.warning("starts over: %r", error)
            await asyncio.sleep(RECONNECT_PAUSE_SECONDS)


asyncio.run(main())
