"""The servers that the tests use: PostgreSQL and Kafka of the rig, relays, Redis."""

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from psycopg.rows import tuple_row

from outbox_relay.consumer import Record
from outbox_relay.consumer.record import record_of
from tests.waiting import wait_until

_REPOSITORY = Path(__file__).parents[3]
_NUMBERS = count(1)


def rig(name: str) -> str:
    """Return a variable of the rig, from the environment or from its file."""
    if value := os.environ.get(name):
        return value
    file = Path(os.environ.get("RIG", _REPOSITORY / "target/rig")) / "env"
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.startswith(f"export {name}="):
            return line.partition("=")[2]
    raise AssertionError(f"{name} is unknown: tests/rig/rig up postgres:15 kafka")


def unique(name: str) -> str:
    """Return a name that no other test uses, also in other processes."""
    return f"py_{name}_{os.getpid()}_{next(_NUMBERS)}_{uuid4().hex[:6]}"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def relay_program() -> str:
    """Return the path of `outbox-relay`."""
    path = os.environ.get("OUTBOX_RELAY", str(_REPOSITORY / "target/debug/outbox-relay"))
    assert Path(path).exists(), f"{path} does not exist: cargo build --bin outbox-relay"
    return path


@dataclass
class Database:
    """A database of its own for a test, with an outbox."""

    folder: Path
    name: str = field(default_factory=lambda: unique("db"))

    @classmethod
    def create(cls, folder: Path) -> "Database":
        """Create a database without an outbox."""
        database = cls(folder)
        with psycopg.connect(rig("RIG_POSTGRES_URL_15"), autocommit=True) as admin:
            admin.execute(f"create database {database.name}".encode())
        return database

    def drop(self) -> None:
        """Remove the database, and end what still uses it."""
        with psycopg.connect(rig("RIG_POSTGRES_URL_15"), autocommit=True) as admin:
            admin.execute(f"drop database {self.name} with (force)".encode())

    def url(self, driver: str = "") -> str:
        """Return the URL, with a driver for SQLAlchemy if one is given."""
        base = rig("RIG_POSTGRES_URL_15").rpartition("/")[0]
        rest = base.partition("://")[2]
        return f"{'postgresql+' + driver if driver else 'postgres'}://{rest}/{self.name}"

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection in autocommit mode."""
        return psycopg.connect(self.url(), autocommit=True, row_factory=tuple_row)

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement, and return its rows if it has some."""
        with self.connect() as connection:
            cursor = connection.execute(sql.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def waiting(self) -> int:
        """Return how many events wait."""
        return int(self.rows("select count(*) from outbox.event")[0][0])

    def wait_until_drained(self) -> None:
        """Wait until no event waits."""
        wait_until("the outbox to be empty", lambda: self.waiting() == 0)

    def manifest(
        self, topics: list[str], record_headers: str = "Standard", schema: str = "outbox"
    ) -> Path:
        """Write a manifest for this database; JSON is YAML."""
        plain = {"mode": "disable"}
        outbox_relay = {
            "apiVersion": "outboxrelay.dev/v1alpha1",
            "kind": "OutboxRelay",
            "metadata": {"name": "file-service", "namespace": "essays"},
            "spec": {
                "database": {
                    "urlSecretRef": {"name": "db", "key": "url"},
                    "schema": schema,
                    "tls": plain,
                },
                "kafka": {"bootstrapServers": [rig("RIG_KAFKA")], "tls": plain},
                "topics": [{"name": topic} for topic in topics],
                "recordHeaders": record_headers,
            },
        }
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "db", "namespace": "essays"},
            "stringData": {"url": self.url()},
        }
        path = self.folder / f"{self.name}.yaml"
        path.write_text(f"{json.dumps(outbox_relay)}\n---\n{json.dumps(secret)}\n")
        return path

    def migrate(self, schema: str = "outbox") -> None:
        """Create the outbox."""
        manifest = self.manifest(["unused"], schema=schema)
        command = [relay_program(), "migrate", "--manifest", str(manifest)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr


@dataclass
class Relay:
    """A relay as a process. It is killed at the end of a test."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @classmethod
    def start(
        cls, database: Database, topics: list[str], record_headers: str = "Standard"
    ) -> "Relay":
        """Start a relay, without waiting for anything."""
        port, name = free_port(), unique("relay")
        log = database.folder / f"{name}.log"
        command = [relay_program(), "run", "--listen", f"127.0.0.1:{port}", "--pod", name]
        command += ["--manifest", str(database.manifest(topics, record_headers))]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        return cls(process, port, log)

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels. 0 while the relay does not listen."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/metrics", timeout=5
            ) as answer:
                lines = answer.read().decode().splitlines()
        except (urllib.error.URLError, OSError):
            return 0.0
        of_metric = (line for line in lines if line.partition("{")[0].partition(" ")[0] == name)
        return sum(float(line.rpartition(" ")[2]) for line in of_metric)

    def kill(self) -> None:
        """Kill the relay with SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End the relay, by force if it does not end."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill()


class Kafka:
    """Topics of a test."""

    def __init__(self) -> None:
        self._admin = AdminClient({"bootstrap.servers": rig("RIG_KAFKA")})
        self._topics: list[str] = []

    def topic(self, of: str, partitions: int = 3) -> str:
        """Create a topic that no other test uses."""
        name = unique(of).replace("_", "-")
        created = self._admin.create_topics([NewTopic(name, partitions, 1)])
        created[name].result(timeout=60)
        self._topics.append(name)
        return name

    def remove_topics(self) -> None:
        """Delete the topics of the test."""
        if self._topics:
            for done in self._admin.delete_topics(self._topics).values():
                done.result(timeout=60)

    def messages(self, topic: str) -> list[Message]:
        """Return all messages of a topic: each partition in its order."""
        reader = Consumer({"bootstrap.servers": rig("RIG_KAFKA"), "group.id": unique("reader")})
        try:
            return _read_to_the_end(reader, topic)
        finally:
            reader.close()

    def records(self, topic: str) -> list[Record]:
        """Return all records of a topic: each partition in its order."""
        return [record_of(message) for message in self.messages(topic)]


def _read_to_the_end(reader: Consumer, topic: str) -> list[Message]:
    partitions = reader.list_topics(topic, timeout=30).topics[topic].partitions
    ends = {number: _end(reader, topic, number) for number in partitions}
    reader.assign([TopicPartition(topic, number, 0) for number in partitions])
    positions = dict.fromkeys(partitions, 0)
    messages: list[Message] = []

    def poll_to_the_end() -> bool:
        message = reader.poll(0.1)
        if message is not None:
            error = message.error()
            assert error is None or error.code() == KafkaError._PARTITION_EOF, error
            messages.append(message)
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            positions[partition] = offset + 1
        return all(positions[number] >= end for number, end in ends.items())

    wait_until(f"the records of {topic}", poll_to_the_end)
    return messages


def _end(reader: Consumer, topic: str, number: int) -> int:
    offsets = reader.get_watermark_offsets(TopicPartition(topic, number), timeout=30)
    assert offsets is not None
    return int(offsets[1])


class Redis:
    """A server of Redis on loopback, without a disk."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        program = shutil.which("redis-server")
        assert program, "redis-server is missing: apt-get install redis-server"
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        command = [
            program,
            *(part for name, value in options.items() for part in (f"--{name}", str(value))),
        ]
        with (folder / "redis.log").open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
        wait_until("redis-server", self._listens, 30)

    def _listens(self) -> bool:
        assert self.process.poll() is None, "redis-server has ended"
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End the server."""
        self.process.terminate()
        self.process.wait(timeout=20)
