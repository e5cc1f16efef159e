"""Fixtures: what a test gets, and what is removed after it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import Database, Kafka, Redis, Relay

StartRelay = Callable[..., Relay]


@pytest.fixture
def empty_database(tmp_path: Path) -> Iterator[Database]:
    """A database without an outbox."""
    database = Database.create(tmp_path)
    yield database
    database.drop()


@pytest.fixture
def database(empty_database: Database) -> Database:
    """A database with an empty outbox."""
    empty_database.migrate()
    return empty_database


@pytest.fixture
def kafka() -> Iterator[Kafka]:
    """Topics, which are deleted after the test."""
    kafka = Kafka()
    yield kafka
    kafka.remove_topics()


@pytest.fixture
def start_relay(database: Database) -> Iterator[StartRelay]:
    """Starts relays, which end with the test. Their logs are printed if it fails."""
    relays: list[Relay] = []

    def start(topics: list[str], record_headers: str = "Standard") -> Relay:
        relays.append(Relay.start(database, topics, record_headers))
        return relays[-1]

    yield start
    for relay in relays:
        relay.stop()
        print(f"--- {relay.log.name}\n{relay.log.read_text()[-4000:]}")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A server of Redis. Each test has its own names in it."""
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()
