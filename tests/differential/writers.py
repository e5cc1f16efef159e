"""Services that write rows of event_outbox, as the platform's Python library does."""

import asyncio
import json
import random
import uuid
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

CONNECTIONS = 8
TRANSACTIONS_PER_SECOND = 30
KEYS = 60
ROLLED_BACK = 0.03
# Transactions that do other work first. They began earlier than those that overtake them.
SLOW = 0.05
SLOW_SECONDS = (0.1, 1.5)
# InternalClientError: asyncpg, where a connection breaks at a bad moment.
DATABASE_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
RECONNECT_PAUSE_SECONDS = 0.5

BATCH_TOPIC = "huleedu.file.batch.file.added.v1"
ESSAY_TOPIC = "huleedu.file.essay.content.provisioned.v1"
TOPICS = (BATCH_TOPIC, ESSAY_TOPIC)

EVENT_OUTBOX = Path(__file__).parents[2] / "demo/event_outbox.sql"
AGGREGATE = "create table aggregate (id text primary key, revision int not null)"
# The lock on the aggregate's row orders the transactions of a key.
NEXT_REVISION = "update aggregate set revision = revision + 1 where id = $1 returning revision"
INSERT = """
    insert into event_outbox
      (id, aggregate_id, aggregate_type, event_type, event_data, event_key, topic, published_at,
       retry_count)
    values ($1, $2, $3, $4, $5, $6, $7, null, 0) returning created_at"""
COMMITTED = """
    select id::text, event_key, (event_data #>> '{data,revision}')::int as revision
    from event_outbox"""
KEYS_WITH_REVISIONS = "select id, revision from aggregate where revision > 0"


class RollBackError(Exception):
    """Ends a transaction that is rolled back on purpose."""


def envelope(row, key, revision, topic):
    return {
        "event_id": str(uuid.uuid4()),
        "event_type": topic,
        "event_timestamp": datetime.now(UTC).isoformat(),
        "source_service": "file-service",
        "schema_version": 1,
        "correlation_id": str(uuid.uuid4()),
        "data_schema_uri": None,
        "data": {"row": str(row), "key": key, "revision": revision, "name": "Aufsätze 1\\2.pdf"},
        "metadata": {"partition_key": key},
        "topic": topic,
    }


class Writers:
    """Writes at a fixed rate until it is stopped. The first keys get most of the rows."""

    def __init__(self, url, seed):
        self.url = url
        self.random = random.Random(seed)
        self.keys = [f"key-{number:02}" for number in range(KEYS)]
        self.weights = [1 / (number + 1) for number in range(KEYS)]
        self.wanted = asyncio.Queue()
        self.tasks = []
        self.clock = None
        self.is_aborted = False
        # Transactions without a known result. The database decides what became of them.
        self.unknown = 0
        self.written = 0

    async def prepare(self):
        database = await asyncpg.connect(self.url, ssl=False)
        await database.execute(EVENT_OUTBOX.read_text() + AGGREGATE)
        await database.executemany(
            "insert into aggregate values ($1, 0)", [(key,) for key in self.keys]
        )
        await database.close()

    def start(self):
        self.tasks = [asyncio.create_task(self.connected()) for _ in range(CONNECTIONS)]
        self.clock = asyncio.create_task(self.tick())

    async def stop(self):
        """Finishes what is wanted so far."""
        self.clock.cancel()
        for _ in self.tasks:
            self.wanted.put_nowait(None)
        await asyncio.gather(*self.tasks)

    async def abort(self):
        """Ends now, whatever is wanted."""
        self.is_aborted = True
        if self.clock is not None:
            self.clock.cancel()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def tick(self):
        """Draws transactions at a fixed rate, whatever becomes of earlier ones."""
        loop = asyncio.get_running_loop()
        begin, drawn = loop.time(), 0
        while True:
            while drawn < (loop.time() - begin) * TRANSACTIONS_PER_SECOND:
                drawn += 1
                key = self.random.choices(self.keys, self.weights)[0]
                pause = self.random.uniform(*SLOW_SECONDS) if self.random.random() < SLOW else 0.0
                # While PostgreSQL is down a service refuses its requests.
                if self.wanted.qsize() < 100:
                    self.wanted.put_nowait((key, pause, self.random.random() < ROLLED_BACK))
            await asyncio.sleep(0.01)

    async def connected(self):
        """One connection of a service."""
        # A rollback that fails hides that the task was cancelled.
        while not self.is_aborted:
            try:
                database = await asyncpg.connect(self.url, ssl=False, timeout=5, command_timeout=30)
            except DATABASE_ERRORS:
                await asyncio.sleep(RECONNECT_PAUSE_SECONDS)
                continue
            try:
                while (transaction := await self.wanted.get()) is not None:
                    await self.write(database, *transaction)
                await database.close()
                return
            except DATABASE_ERRORS:
                self.unknown += 1
                database.terminate()

    async def write(self, database, key, pause, is_rolled_back):
        number = int(key[-2:])
        topic, kind = (BATCH_TOPIC, "batch") if number % 2 else (ESSAY_TOPIC, "file_upload")
        row = uuid.uuid4()
        try:
            async with database.transaction():
                if pause:
                    await database.fetchval("select now()")
                    await asyncio.sleep(pause)
                revision = await database.fetchval(NEXT_REVISION, key)
                data = json.dumps(envelope(row, key, revision, topic))
                await database.fetchval(INSERT, row, key, kind, topic, data, key, topic)
                if is_rolled_back:
                    raise RollBackError
        except RollBackError:
            return
        self.written += 1
