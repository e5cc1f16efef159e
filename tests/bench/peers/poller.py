"""The worker that most teams write: select ... for update skip locked, send the batch, update published_at, commit.

poller.py POSTGRES_URL BROKERS. Written as well as such a worker can be: one statement for each batch, batches compressed, uvloop.
"""

import asyncio
import sys

import asyncpg
import uvloop
from aiokafka import AIOKafkaProducer

BATCH = 100
PAUSE_SECONDS = 0.1

UNPUBLISHED = """
    select id, topic, event_key, event_type, payload from event_outbox
    where published_at is null order by created_at limit $1 for update skip locked"""
PUBLISHED = "update event_outbox set published_at = now() where id = any($1::uuid[])"


async def send(producer, row):
    headers = [("event_id", str(row["id"]).encode()), ("event_type", row["event_type"].encode())]
    return await producer.send(row["topic"], row["payload"].encode(), key=row["event_key"].encode(), headers=headers)


async def work(database, producer):
    async with database.transaction():
        rows = await database.fetch(UNPUBLISHED, BATCH)
        if rows:
            await asyncio.gather(*[await send(producer, row) for row in rows])
            await database.execute(PUBLISHED, [row["id"] for row in rows])
    return len(rows)


async def main(url, brokers):
    database = await asyncpg.connect(url, ssl=False)
    producer = AIOKafkaProducer(
        bootstrap_servers=brokers, acks="all", enable_idempotence=True, linger_ms=5, max_batch_size=1_000_000, compression_type="lz4"
    )
    await producer.start()
    print("started", flush=True)
    while True:
        if await work(database, producer) < BATCH:
            await asyncio.sleep(PAUSE_SECONDS)


uvloop.run(main(sys.argv[1], sys.argv[2]))
