"""Runs one way under the faults of a seed, and writes down what was committed and what Kafka has.

measure.py WAY --seed N --seconds N --output FOLDER [--relay PROGRAM] [--without-faults]
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import platform
import signal
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import aiokafka
import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError

import servers
from faults import Faults
from proxy import Proxy
from schedule import schedule
from servers import Worker
from writers import COMMITTED, KEYS_WITH_REVISIONS, TOPICS, Writers

PARTITIONS = 3
WORKERS = {"platform": 1, "skip-locked": 2, "outbox-relay": 2}
# After the last fault: limit until no row waits, and how long Kafka must then be quiet.
WAITING_SECONDS_MAX = 180
QUIET_SECONDS = 15
FIRST_RELAY_PORT = 29090

WAITING = {
    # The platform's worker leaves rows that have used up their attempts.
    "platform": "select count(*) from event_outbox where published_at is null and retry_count < 5",
    "skip-locked": "select count(*) from event_outbox where published_at is null",
    "outbox-relay": "select count(*) from outbox.event",
}

GIVEN_UP = "select count(*) from event_outbox where published_at is null and retry_count >= 5"

MANIFEST = """\
apiVersion: outboxrelay.dev/v1alpha1
kind: OutboxRelay
metadata: {{name: differential, namespace: differential}}
spec:
  database:
    urlSecretRef: {{name: database, key: url}}
    tls: {{mode: disable}}
  migration:
    adopt:
      - {{table: public.event_outbox, preset: EventOutbox}}
  kafka:
    bootstrapServers: ["127.0.0.1:{kafka}"]
    tls: {{mode: disable}}
  topics: [{topics}]
---
apiVersion: v1
kind: Secret
metadata: {{name: database, namespace: differential}}
stringData: {{url: "{url}"}}
"""


def say(text):
    print(f"{datetime.now():%H:%M:%S} {text}", flush=True)


def url(port, database):
    return f"postgres://postgres:postgres@127.0.0.1:{port}/{database}"


async def make_database(name):
    admin = await asyncpg.connect(url(servers.POSTGRES_PORT, "postgres"), ssl=False)
    await admin.execute(f"drop database if exists {name} with (force)")
    await admin.execute(f"create database {name}")
    await admin.close()


async def drop_database(name):
    admin = await asyncpg.connect(url(servers.POSTGRES_PORT, "postgres"), ssl=False)
    await admin.execute(f"drop database if exists {name} with (force)")
    await admin.close()


async def make_topics():
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.DIRECT_KAFKA)
    await admin.start()
    with contextlib.suppress(TopicAlreadyExistsError):
        await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in TOPICS])
    await admin.close()


@contextlib.asynccontextmanager
async def consumer():
    consumer = AIOKafkaConsumer(bootstrap_servers=servers.DIRECT_KAFKA, enable_auto_commit=False)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


PARTITIONS_OF_TOPICS = [
    TopicPartition(name, number) for name in TOPICS for number in range(PARTITIONS)
]


async def end_offsets():
    async with consumer() as reader:
        return await reader.end_offsets(PARTITIONS_OF_TOPICS)


async def read(start, end):
    """All records between two sets of offsets, partition by partition: row and event_id."""
    records = []
    async with consumer() as reader:
        for partition in PARTITIONS_OF_TOPICS:
            if start[partition] == end[partition]:
                continue
            reader.assign([partition])
            reader.seek(partition, start[partition])
            while await reader.position(partition) < end[partition]:
                record = await reader.getone()
                envelope = json.loads(record.value)
                if record.key.decode() != envelope["data"]["key"]:
                    raise RuntimeError(f"{record.topic} {record.offset}: key {record.key}")
                records.append((envelope["data"]["row"], envelope["event_id"]))
    return records


class Run:
    """One way: its database, its proxies, its workers."""

    def __init__(self, arguments):
        self.way = arguments.way
        self.seed, self.seconds = arguments.seed, arguments.seconds
        self.streams = [] if arguments.without_faults else schedule(self.seed, self.seconds)
        self.folder = Path(arguments.output) / self.way
        self.folder.mkdir(parents=True)
        self.relay = arguments.relay
        self.name = "differential_" + self.way.replace("-", "_")
        self.numbers = itertools.count(1)
        # Those that should be running, and all that ever were.
        self.workers, self.all_workers = [], []
        self.kafka = Proxy(servers.KAFKA_PROXY_PORT, servers.KAFKA_PORT)
        self.database = Proxy(servers.POSTGRES_PROXY_PORT, servers.POSTGRES_PORT)
        self.writers = Writers(url(servers.POSTGRES_PORT, self.name), self.seed)

    def worker(self):
        number = next(self.numbers)
        log = self.folder / f"worker-{number}.log"
        if self.way == "outbox-relay":
            port = FIRST_RELAY_PORT + number
            options = ["--pod", f"relay-{number}", "--listen", f"127.0.0.1:{port}"]
            command = [self.relay, "run", *options, "--manifest", self.manifest()]
            worker = Worker(command, log, ("127.0.0.1", port))
        else:
            program = Path(__file__).parent / f"{self.way.replace('-', '_')}_worker.py"
            database = url(servers.POSTGRES_PROXY_PORT, self.name)
            brokers = f"127.0.0.1:{servers.KAFKA_PROXY_PORT}"
            worker = Worker([sys.executable, program, database, brokers], log, None)
        self.all_workers.append(worker)
        return worker

    def manifest(self):
        file = self.folder / "manifest.yaml"
        topics = ", ".join(f"{{name: {name}}}" for name in TOPICS)
        database = url(servers.POSTGRES_PROXY_PORT, self.name)
        file.write_text(
            MANIFEST.format(kafka=servers.KAFKA_PROXY_PORT, topics=topics, url=database)
        )
        return file

    async def measure(self):
        for proxy in (self.kafka, self.database):
            await proxy.start()
        await make_database(self.name)
        await make_topics()
        start = await end_offsets()
        await self.writers.prepare()
        if self.way == "outbox-relay":
            await servers.run(self.relay, "migrate", "--manifest", self.manifest())
        for _ in range(WORKERS[self.way]):
            worker = self.worker()
            self.workers.append(worker)
            await worker.start()
        faults = sorted(itertools.chain(*self.streams), key=lambda fault: fault.at)
        say(f"{self.way}: {len(faults)} faults in {self.seconds} s, seed {self.seed}")
        self.writers.start()
        await self.inject()
        await self.writers.stop()
        waited = await self.wait_until_published()
        for worker in self.workers:
            await worker.stop()
        result = await self.result(faults, start)
        result["seconds_until_published"] = waited
        (self.folder / "result.json").write_text(json.dumps(result))
        say(f"{self.way}: {len(result['rows'])} rows, {len(result['records'])} records")

    async def inject(self):
        """Breaks and repairs, several streams of faults at a time, until the run's time is over."""
        begin = time.monotonic()
        breaker = Faults(self.kafka, self.database, self.workers, self.worker)

        async def sleep_until(at):
            await asyncio.sleep(max(0.0, at - (time.monotonic() - begin)))

        async def inject_stream(faults):
            for fault in faults:
                await sleep_until(fault.at)
                say(f"{time.monotonic() - begin:5.1f} s: {fault.kind} for {fault.seconds} s")
                await breaker.inject(fault)

        async with asyncio.TaskGroup() as group:
            for faults in self.streams:
                group.create_task(inject_stream(faults))
        await sleep_until(self.seconds)

    async def wait_until_published(self):
        """Waits until no row waits and Kafka gets nothing more, or the limit is reached."""
        begin = time.monotonic()
        database = await asyncpg.connect(url(servers.POSTGRES_PORT, self.name), ssl=False)
        published = offsets = quiet_since = None
        while time.monotonic() - begin < WAITING_SECONDS_MAX:
            now = await end_offsets()
            if now != offsets or await database.fetchval(WAITING[self.way]):
                offsets, quiet_since, published = now, None, None
            elif quiet_since is None:
                quiet_since = time.monotonic()
                published = round(quiet_since - begin)
            elif time.monotonic() - quiet_since >= QUIET_SECONDS:
                break
            await asyncio.sleep(1.0)
        await database.close()
        return published

    async def result(self, faults, start):
        database = await asyncpg.connect(url(servers.POSTGRES_PORT, self.name), ssl=False)
        rows = [tuple(row) for row in await database.fetch(COMMITTED)]
        left = await database.fetchval(WAITING[self.way])
        revisions = dict(await database.fetch(KEYS_WITH_REVISIONS))
        postgres = await database.fetchval("show server_version")
        gave_up = await database.fetchval(GIVEN_UP)
        await database.close()
        return {
            "way": self.way,
            "seed": self.seed,
            "seconds": self.seconds,
            "date": datetime.now(UTC).date().isoformat(),
            "faults": [asdict(fault) for fault in faults],
            "rows": rows,
            "revisions": revisions,
            "records": await read(start, await end_offsets()),
            "left": left,
            "gave_up": gave_up,
            "workers": WORKERS[self.way],
            "crashes": sum(worker.crashes for worker in self.all_workers),
            "transactions_without_answer": self.writers.unknown,
            "conditions": {
                "postgres": postgres.split()[0],
                "python": platform.python_version(),
                "aiokafka": aiokafka.__version__,
                "cores": os.cpu_count(),
                "linux": ".".join(platform.release().split(".")[:2]),
            },
        }

    async def clean_up(self):
        await self.writers.abort()
        for worker in self.all_workers:
            await worker.kill()
        for proxy in (self.kafka, self.database):
            await proxy.stop()
        # It may be down: then the run was interrupted, and the next one drops the database.
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            await drop_database(self.name)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WORKERS)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--relay")
    parser.add_argument("--without-faults", action="store_true")
    run = Run(parser.parse_args())
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await run.measure()
    finally:
        await run.clean_up()


asyncio.run(main())
