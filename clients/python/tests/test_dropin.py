"""The drop-in: what a service that used the old library gets on the wire."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from dishka import Provider, Scope, make_async_container
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

import outbox_relay.dropin
from outbox_relay import InvalidEventError, correlation_id
from outbox_relay.dropin import (
    OutboxManager,
    OutboxProvider,
    OutboxRepositoryProtocol,
    PostgreSQLOutboxRepository,
)
from tests.conftest import StartRelay
from tests.servers import Database, Kafka

NIL = UUID(int=0)
TOPIC = "huleedu.class.created.v1"


class Envelope(BaseModel):
    """The envelope that the services send."""

    event_id: UUID | None = Field(default_factory=uuid4)
    event_type: str = TOPIC
    event_timestamp: datetime = datetime(2026, 11, 30, 8, 15, tzinfo=UTC)
    source_service: str = "class_management_service"
    schema_version: int = 1
    correlation_id: UUID = Field(default_factory=uuid4)
    data_schema_uri: str | None = None
    data: dict[str, Any] = {"name": 'Jürgen \\ "x" 🎓'}
    metadata: dict[str, Any] | None = None


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine, as a service has it."""
    engine = create_async_engine(database.url("asyncpg"))
    yield engine
    await engine.dispose()


@pytest.fixture
def manager(engine: AsyncEngine) -> OutboxManager:
    """What a service makes by hand."""
    return OutboxManager(PostgreSQLOutboxRepository(engine), None, "class_management_service")


def row(database: Database) -> dict[str, Any]:
    names = "event_id, aggregate_type, aggregate_id, event_type, topic, event_key, payload, headers"
    (found,) = database.rows(f"select {names} from outbox.event")  # noqa: S608
    return dict(zip(names.split(", "), found, strict=True))


async def publish(manager: OutboxManager, event_data: object, **more: Any) -> None:
    await manager.publish_to_outbox("class", "class-7", TOPIC, event_data, TOPIC, **more)


async def test_an_envelope_becomes_a_row(manager: OutboxManager, database: Database) -> None:
    envelope = Envelope()
    await publish(manager, envelope)
    found = row(database)
    assert found == {
        "event_id": envelope.event_id,
        "aggregate_type": "class",
        "aggregate_id": "class-7",
        "event_type": TOPIC,
        "topic": TOPIC,
        "event_key": "class-7",
        "payload": json.dumps(envelope.model_dump(mode="json")).encode(),
        "headers": {
            "trace_id": str(envelope.correlation_id),
            "correlation_id": str(envelope.correlation_id),
            "schema_version": "1",
            "occurred_at": "2026-11-30T08:15:00Z",
            "content_type": "application/json",
            "source_service": "class_management_service",
        },
    }


class OnlyJson:
    """A model that can only be dumped as text."""

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope

    def model_dump_json(self) -> str:
        return self.envelope.model_dump_json()


async def test_dicts_and_other_models_are_envelopes_too(
    manager: OutboxManager, database: Database
) -> None:
    envelope = Envelope()
    as_dict = envelope.model_dump(mode="json")
    for event_data in (envelope, as_dict, OnlyJson(envelope)):
        await publish(manager, event_data)
    rows = database.rows("select payload, headers, event_id from outbox.event")
    assert len(rows) == 3
    assert rows[0] == rows[1] == rows[2]
    with pytest.raises(InvalidEventError, match="type list: pass a dict or a pydantic model"):
        await publish(manager, [as_dict])


@pytest.mark.parametrize("given", [NIL, None, "left out"])
async def test_an_envelope_without_a_usable_id_gets_one(
    manager: OutboxManager, database: Database, given: UUID | str | None
) -> None:
    for _ in range(2):
        envelope = Envelope().model_dump(mode="json")
        envelope["event_id"] = None if given is None else str(given)
        if given == "left out":
            del envelope["event_id"]
        await publish(manager, envelope)
    (first, body), (second, _) = database.rows("select event_id, payload from outbox.event")
    assert first not in (NIL, second)
    assert json.loads(body) == {**envelope, "event_id": str(first)} | {
        "correlation_id": json.loads(body)["correlation_id"]
    }


async def test_an_id_that_is_no_uuid_is_refused(manager: OutboxManager) -> None:
    with pytest.raises(InvalidEventError, match="event_id is not a UUID"):
        await publish(manager, {"event_id": "evt-1"})


@pytest.mark.parametrize(
    ("metadata", "message_key", "expected"),
    [
        ({"partition_key": "p"}, "m", "p"),
        ({"partition_key": None}, "m", "m"),
        ({"user_id": "u"}, "m", "m"),
        (None, "m", "m"),
        (None, None, "class-7"),
        ({}, None, "class-7"),
    ],
)
async def test_the_key(
    manager: OutboxManager,
    database: Database,
    metadata: dict[str, Any] | None,
    message_key: str | None,
    expected: str,
) -> None:
    await publish(manager, Envelope(metadata=metadata), message_key=message_key)
    assert row(database)["event_key"] == expected


async def test_headers_of_the_caller_come_first(manager: OutboxManager, database: Database) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    envelope = Envelope(metadata={"traceparent": traceparent})
    own = {"trace_id": "own", "x": "y", "event_id": "forged", "event_type": "forged"}
    await publish(manager, envelope, headers=own)
    headers = row(database)["headers"]
    assert (headers["trace_id"], headers["x"]) == ("own", "y")
    assert headers["traceparent"] == traceparent
    assert headers.keys().isdisjoint({"event_id", "event_type"})  # the relay adds them


async def test_a_service_without_its_name_in_the_envelope(
    engine: AsyncEngine, database: Database
) -> None:
    token = correlation_id.set("from-the-context")
    repository = PostgreSQLOutboxRepository(engine, "file-service")
    await repository.add_event("class-7", "class", TOPIC, {"a": 1}, TOPIC)
    correlation_id.reset(token)
    assert row(database)["headers"] == {
        "content_type": "application/json",
        "source_service": "file-service",
        "correlation_id": "from-the-context",
        "trace_id": "from-the-context",
    }


async def test_a_session_of_the_caller_is_not_committed(
    manager: OutboxManager, engine: AsyncEngine, database: Database
) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("create table changes (id int)"))
        await publish(manager, Envelope(), session=session)
        assert database.waiting() == 0
        await session.rollback()
        assert database.waiting() == 0
        await publish(manager, Envelope(), session=session)
        await session.commit()
    assert database.waiting() == 1


async def test_without_a_session_the_event_is_committed(
    engine: AsyncEngine, database: Database
) -> None:
    repository = PostgreSQLOutboxRepository(async_sessionmaker(engine))
    envelope = Envelope().model_dump(mode="json")
    event_id = await repository.add_event("class-7", "class", TOPIC, envelope, TOPIC, "key")
    assert str(event_id) == envelope["event_id"]
    assert (row(database)["event_id"], row(database)["event_key"]) == (event_id, "key")
    with pytest.raises(InvalidEventError, match="topic is not a name of Kafka"):
        await repository.add_event("class-7", "class", TOPIC, envelope, "a topic")
    assert database.waiting() == 1


async def test_what_an_old_manager_of_a_service_passes(
    engine: AsyncEngine, database: Database
) -> None:
    """A copy of the manager that stays in a service puts topic and headers into the dict."""
    envelope = Envelope().model_dump(mode="json")
    event_data = {**envelope, "topic": TOPIC, "headers": {"x": "y"}}
    repository = PostgreSQLOutboxRepository(engine)
    await repository.add_event("class-7", "class", TOPIC, event_data, TOPIC)
    found = row(database)
    assert json.loads(found["payload"]) == envelope
    assert found["headers"]["x"] == "y"
    assert event_data["topic"] == TOPIC  # the caller's dict is as it was


async def test_other_fields_of_these_names_stay(engine: AsyncEngine, database: Database) -> None:
    event_data = {"event_id": str(uuid4()), "topic": "mathematics", "headers": {"h1": "Title"}}
    await PostgreSQLOutboxRepository(engine).add_event("1", "class", TOPIC, event_data, TOPIC)
    assert json.loads(row(database)["payload"]) == event_data


async def test_a_service_can_test_with_a_repository_of_its_own() -> None:
    calls: list[dict[str, Any]] = []

    class Recorded:
        async def add_event(self, **arguments: Any) -> UUID:
            calls.append(arguments)
            return uuid4()

    envelope = Envelope()
    repository = cast("OutboxRepositoryProtocol", Recorded())
    await publish(OutboxManager(repository), envelope, headers={"x": "y"})
    assert calls == [
        {
            "aggregate_id": "class-7",
            "aggregate_type": "class",
            "event_type": TOPIC,
            "event_data": {
                **envelope.model_dump(mode="json"),
                "topic": TOPIC,
                "headers": {"x": "y"},
            },
            "topic": TOPIC,
            "event_key": "class-7",
            "session": None,
        }
    ]


async def test_a_container_of_dishka_has_all(engine: AsyncEngine, database: Database) -> None:
    infrastructure = Provider(scope=Scope.APP)
    infrastructure.provide(lambda: engine, provides=AsyncEngine)
    container = make_async_container(infrastructure, OutboxProvider("file-service"))
    repository = await container.get(OutboxRepositoryProtocol)
    assert isinstance(repository, PostgreSQLOutboxRepository)
    manager = await container.get(OutboxManager)
    assert manager.outbox_repository is repository
    await publish(manager, {"data": {}})
    assert row(database)["headers"]["source_service"] == "file-service"
    await container.close()
    with pytest.raises(AttributeError):
        _ = outbox_relay.dropin.no_such_name


@pytest.mark.parametrize("record_headers", ["Standard", "Debezium", "CloudEvents"])
async def test_the_seven_headers_are_in_kafka(
    engine: AsyncEngine,
    database: Database,
    kafka: Kafka,
    start_relay: StartRelay,
    record_headers: Any,
) -> None:
    topic = kafka.topic("dropin", partitions=1)
    repository = PostgreSQLOutboxRepository(engine, record_headers=record_headers)
    usable, nil = Envelope(), Envelope(event_id=NIL)
    for envelope in (usable, nil):
        await OutboxManager(repository).publish_to_outbox(
            "class", "class-7", TOPIC, envelope, topic
        )
    relay = start_relay([topic], record_headers)
    database.wait_until_drained()
    for envelope, record in zip((usable, nil), kafka.records(topic), strict=True):
        assert isinstance(record.value, bytes)
        body = json.loads(record.value)
        headers = {name: str(value, "utf-8") for name, value in record.headers if value}  # type: ignore[arg-type]
        seven = {
            "event_id": body["event_id"],
            "trace_id": str(envelope.correlation_id),
            "schema_version": "1",
            "occurred_at": body["event_timestamp"],
            "content_type": "application/json",
            "source_service": "class_management_service",
            "event_type": TOPIC,
        }
        assert {name: headers.get(name) for name in seven} == seven
        assert [name for name, _ in record.headers].count("event_id") == 1
        assert body["event_id"] != str(NIL)
        assert body == {**envelope.model_dump(mode="json"), "event_id": body["event_id"]}
    assert relay.metric("outbox_replaced_headers_total") == 0
