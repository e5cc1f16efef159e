"""The platform's polling worker with its circuit breaker, as a service runs it before the move.

platform_worker.py POSTGRES_URL BROKERS. It is written to behave like the worker of the platform,
its faults included; the comments name them.

- Every 5 s, or 0.1 s after activity, it reads 100 rows by created_at, without a lock. It sends them
  one by one and updates each.
- After five attempts it leaves a row unpublished.
- While the circuit breaker is open, publishing returns as if it had succeeded.
"""

import asyncio
import json
import logging
import signal
import sys
import time
import uuid
from collections import deque
from datetime import UTC, datetime

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

BATCH_ROWS = 100
ATTEMPTS_MAX = 5
IDLE_PAUSE_SECONDS = 5.0
BUSY_PAUSE_SECONDS = 0.1
# InternalClientError: asyncpg, where a connection breaks at a bad moment.
DATABASE_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
RECONNECT_PAUSE_SECONDS = 1.0
QUEUE_PAUSE_SECONDS = 1.0
# Not known of the platform. A send must fail fast, or five attempts would not end within seconds.
SEND_TIMEOUT_MILLISECONDS = 2000
BREAKER_FAILURES = 5
BREAKER_OPEN_SECONDS = 10.0

# Fault: no lock, so a second replica reads the same rows.
UNPUBLISHED = """
    select id, topic, event_key, event_data from event_outbox
    where published_at is null and retry_count < $2 order by created_at limit $1"""
PUBLISHED = "update event_outbox set published_at = now() where id = $1"
FAILED = "update event_outbox set retry_count = retry_count + 1, last_error = $2 where id = $1"

log = logging.getLogger("worker")


class CircuitBreaker:
    """Opens after several failures in a row, and lets one attempt through after a while."""

    def __init__(self):
        self.failures = 0
        self.opened_at = None

    def is_open(self):
        return (
            self.opened_at is not None and time.monotonic() - self.opened_at < BREAKER_OPEN_SECONDS
        )

    def succeeded(self):
        self.failures = 0
        self.opened_at = None

    def failed(self):
        self.failures += 1
        if self.failures >= BREAKER_FAILURES:
            self.opened_at = time.monotonic()


class Publisher:
    """Kafka behind the circuit breaker, with a queue in memory."""

    def __init__(self, producer):
        self.producer = producer
        self.breaker = CircuitBreaker()
        self.queue = deque()

    async def publish(self, topic, key, value):
        if self.breaker.is_open():
            # Fault: the caller marks the row as published, and the message is only in memory.
            self.queue.append((topic, key, value))
            return
        try:
            await self.producer.send_and_wait(topic, value, key=key)
        except KafkaError:
            self.breaker.failed()
            # Fault: the message is queued, and the row stays. It is sent twice.
            self.queue.append((topic, key, value))
            raise
        self.breaker.succeeded()

    async def send_queue(self):
        """Sends what is in memory, whenever the breaker is closed."""
        while True:
            await asyncio.sleep(QUEUE_PAUSE_SECONDS)
            while self.queue and not self.breaker.is_open():
                topic, key, value = self.queue[0]
                try:
                    await self.producer.send_and_wait(topic, value, key=key)
                except KafkaError as error:
                    log.warning("queue of %d messages: %r", len(self.queue), error)
                    self.breaker.failed()
                    break
                self.breaker.succeeded()
                self.queue.popleft()


def message(row):
    """The envelope, with an id and a time of this sending."""
    envelope = json.loads(row["event_data"])
    topic = envelope.pop("topic", row["topic"])
    envelope.pop("headers", None)
    envelope["event_id"] = str(uuid.uuid4())
    envelope["event_timestamp"] = datetime.now(UTC).isoformat()
    return topic, row["event_key"].encode(), json.dumps(envelope).encode()


async def publish_batch(database, publisher):
    rows = await database.fetch(UNPUBLISHED, BATCH_ROWS, ATTEMPTS_MAX)
    for row in rows:
        try:
            await publisher.publish(*message(row))
        except KafkaError as error:
            log.warning("row %s: %r", row["id"], error)
            await database.execute(FAILED, row["id"], repr(error))
        else:
            await database.execute(PUBLISHED, row["id"])
    return len(rows)


async def publish_rows(url, publisher):
    """Publishes until the connection breaks."""
    database = await asyncpg.connect(url, ssl=False, timeout=5, command_timeout=10)
    log.info("ready")
    try:
        while True:
            rows = await publish_batch(database, publisher)
            await asyncio.sleep(BUSY_PAUSE_SECONDS if rows else IDLE_PAUSE_SECONDS)
    finally:
        database.terminate()


async def work(url, brokers):
    producer = AIOKafkaProducer(
        bootstrap_servers=brokers, acks="all", request_timeout_ms=SEND_TIMEOUT_MILLISECONDS
    )
    while True:
        try:
            await producer.start()
            break
        except KafkaError as error:
            log.warning("start: %r", error)
            await asyncio.sleep(RECONNECT_PAUSE_SECONDS)
    publisher = Publisher(producer)
    queue = asyncio.create_task(publisher.send_queue())
    try:
        while True:
            try:
                await publish_rows(url, publisher)
            except DATABASE_ERRORS as error:
                log.warning("database: %r", error)
                await asyncio.sleep(RECONNECT_PAUSE_SECONDS)
    finally:
        queue.cancel()
        # Fault: the end of the process loses the queue.
        log.info("ends with %d messages in memory", len(publisher.queue))


async def main():
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    task = asyncio.create_task(work(sys.argv[1], sys.argv[2]))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


asyncio.run(main())
