"""What a consumer reads of a record. Without servers."""

from typing import Any
from uuid import uuid4

import pytest
from aiokafka.structs import ConsumerRecord  # type: ignore[import-untyped]

from outbox_relay.consumer import (
    DeduplicatingConsumer,
    DeduplicatingConsumerSync,
    MissingHeaderError,
    Ordering,
    PostgresEventIds,
    PostgresHighestSeq,
    Record,
    WhenMissing,
)
from outbox_relay.consumer.record import record_of

NIL = b"00000000-0000-0000-0000-000000000000"
EVENT_ID = str(uuid4())
ID_BYTES = EVENT_ID.encode()


def record(*headers: tuple[str, bytes | None], value: Any = None, key: Any = b"k") -> Record:
    return Record("files", 2, 7, key, value, headers)


@pytest.mark.parametrize("name", ["event_id", "ce_id", "id"])
def test_the_id_is_in_the_headers(name: str) -> None:
    assert record((name, ID_BYTES)).event_id() == EVENT_ID


def test_the_id_may_be_in_the_value() -> None:
    value = b'{"event_id": "%s"}' % ID_BYTES
    for usable in (value, value.decode(), {"event_id": EVENT_ID}):
        assert record(value=usable).event_id() == EVENT_ID
    assert record(("event_id", NIL), value=value).event_id() == EVENT_ID
    assert record(("event_id", b"\xff"), value=value).event_id() == EVENT_ID


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"[1]", b'{"event_id": 7}', b"{", 7])
def test_without_an_id(value: Any) -> None:
    assert record(value=value).event_id() is None
    assert record(("event_id", NIL), ("id", None), value=value).event_id() is None


def test_the_nil_id_is_no_id() -> None:
    assert record(value=b'{"event_id": "%s"}' % NIL).event_id() is None


def test_outbox_seq_is_a_64_bit_number() -> None:
    assert record(("outbox_seq", b"100000000000007")).outbox_seq() == 100000000000007
    assert record(("outbox_seq", b"9223372036854775807")).outbox_seq() == 2**63 - 1
    for wrong in (b"", b"-1", b"1.0", b"x", "٣".encode(), b"9223372036854775808", b"\xff"):
        assert record(("outbox_seq", wrong)).outbox_seq() is None
    assert record().outbox_seq() is None


def test_keys() -> None:
    assert record(key="ü").key_bytes() == "ü".encode()
    assert record(key=None).key_bytes() == b""
    with pytest.raises(TypeError, match="let key_deserializer return bytes or str"):
        record(key=7).key_bytes()


def test_a_record_of_aiokafka() -> None:
    of_aiokafka = ConsumerRecord(
        topic="files", partition=2, offset=7, timestamp=0, timestamp_type=0, key=b"k", value=None,
        checksum=None, serialized_key_size=1, serialized_value_size=0,
        headers=(("event_id", ID_BYTES),),
    )  # fmt: skip
    assert record_of(of_aiokafka) == record(("event_id", ID_BYTES))


def test_an_error_of_confluent_kafka() -> None:
    class Failed:
        def topic(self) -> str:
            return "files"

        def error(self) -> str:
            return "failed"

    failed: Any = Failed()
    with pytest.raises(ValueError, match=r"check message\.error\(\) first"):
        record_of(failed)


def test_outbox_seq_needs_the_statement_that_writers_are_ordered() -> None:
    store = PostgresHighestSeq("grader")
    for consumer in (DeduplicatingConsumer, DeduplicatingConsumerSync):
        with pytest.raises(ValueError, match=r"ordering=Ordering\.ALL_WRITERS_ORDERED if every"):
            consumer(store)
        with pytest.raises(ValueError, match="use a store of event ids"):
            consumer(store, ordering=Ordering.UNKNOWN)
        consumer(store, ordering=Ordering.ALL_WRITERS_ORDERED)
        consumer(PostgresEventIds("grader"))


async def test_a_record_that_cannot_be_compared_is_refused() -> None:
    by_id = DeduplicatingConsumer(PostgresEventIds("grader"))
    with pytest.raises(MissingHeaderError, match=r"partition 2, offset 7 has no .* event_id"):
        await by_id.process(record(), _unexpected)
    by_seq = DeduplicatingConsumerSync(
        PostgresHighestSeq("grader"), ordering=Ordering.ALL_WRITERS_ORDERED
    )
    with pytest.raises(MissingHeaderError, match="no usable header outbox_seq"):
        by_seq.process(record(), _unexpected)


async def test_or_handled_without_a_check() -> None:
    handled: list[Record] = []

    async def handle(message: Record) -> None:
        handled.append(message)

    consumer = DeduplicatingConsumer(PostgresEventIds("grader"), when_missing=WhenMissing.HANDLE)
    assert await consumer.process(record(), handle)
    sync = DeduplicatingConsumerSync(PostgresEventIds("grader"), when_missing=WhenMissing.HANDLE)
    assert sync.process(record(), handled.append)
    assert len(handled) == 2


async def test_a_store_in_postgresql_needs_a_connection() -> None:
    comparable = record(("event_id", ID_BYTES))
    with pytest.raises(TypeError, match="pass the session or connection"):
        await DeduplicatingConsumer(PostgresEventIds("grader")).process(comparable, _unexpected)
    with pytest.raises(TypeError, match="pass the session or connection"):
        DeduplicatingConsumerSync(PostgresEventIds("grader")).process(comparable, _unexpected)
    wrong: Any = object()
    with pytest.raises(TypeError, match="type object: pass a session or connection of"):
        DeduplicatingConsumerSync(PostgresEventIds("grader")).process(
            comparable, _unexpected, wrong
        )


def test_names_of_tables_are_checked() -> None:
    with pytest.raises(ValueError, match="table is not a usable name"):
        PostgresEventIds("grader", table="a; drop table b")
    with pytest.raises(ValueError, match="schema is not a usable name"):
        PostgresHighestSeq("grader", schema="A")
    assert 'on "s"."t"' in PostgresEventIds("grader", schema="s", table="t").create_table


def _unexpected(message: object) -> Any:
    raise AssertionError(f"handled {message}")
