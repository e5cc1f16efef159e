"""A record of Kafka, whatever client has read it. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

_NIL = "00000000-0000-0000-0000-000000000000"
_EVENT_ID_HEADERS = ("event_id", "ce_id", "id")
"""Where `spec.recordHeaders` puts the event's id: `Standard`, `CloudEvents` and `Debezium`."""
_SEQ_MAX = 2**63 - 1


class AiokafkaRecord(Protocol):
    """What this library reads of a `ConsumerRecord` of aiokafka."""

    topic: Any
    partition: Any
    offset: Any
    key: Any
    value: Any
    headers: Any


class ConfluentMessage(Protocol):
    """What this library reads of a `Message` of confluent-kafka."""

    def error(self) -> Any: ...  # noqa: D102
    def topic(self) -> Any: ...  # noqa: D102
    def partition(self) -> Any: ...  # noqa: D102
    def offset(self) -> Any: ...  # noqa: D102
    def key(self) -> Any: ...  # noqa: D102
    def value(self) -> Any: ...  # noqa: D102
    def headers(self) -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Record:
    """A record of Kafka. Make one if your client is neither aiokafka nor confluent-kafka."""

    topic: str
    partition: int
    offset: int
    key: object
    value: object
    headers: tuple[tuple[str, bytes | str | None], ...]

    def header(self, name: str) -> str | None:
        """Return a header as text. None if it is absent, has no value, or is not UTF-8."""
        for found, value in self.headers:
            if found == name and value is not None:
                return value if isinstance(value, str) else _text_or_none(value)
        return None

    def event_id(self) -> str | None:
        """Return the event's id: from the headers, else from field `event_id` of a JSON value.

        The nil UUID is not an id: all events that carry it would be taken for one.
        """
        candidates = (self.header(name) for name in _EVENT_ID_HEADERS)
        usable = next((value for value in candidates if value and value != _NIL), None)
        return usable or _event_id_of(self.value)

    def outbox_seq(self) -> int | None:
        """Return header `outbox_seq` as a number. None if it is absent or no 64-bit number."""
        text = self.header("outbox_seq")
        if text is None or not (text.isascii() and text.isdigit() and len(text) < 20):
            return None
        seq = int(text)
        return seq if seq <= _SEQ_MAX else None

    def key_bytes(self) -> bytes:
        """Return the key as Kafka has it. A record without a key has an empty one.

        Raises:
            TypeError: If a deserializer has made something else of it than text.
        """
        match self.key:
            case None:
                return b""
            case bytes():
                return self.key
            case str():
                return self.key.encode()
        raise TypeError(
            f"the key is of type {type(self.key).__name__}: let key_deserializer return "
            "bytes or str"
        )

    def place(self) -> str:
        """Return where the record is, for messages."""
        return f"{self.topic}, partition {self.partition}, offset {self.offset}"


AnyRecord: TypeAlias = Record | AiokafkaRecord | ConfluentMessage


def record_of(message: AnyRecord) -> Record:
    """Return a message of aiokafka or confluent-kafka as `Record`.

    Raises:
        ValueError: If `poll` of confluent-kafka returned an error instead of a message.
    """
    if isinstance(message, Record):
        return message
    read: Any = message
    if not callable(read.topic):
        place = read.topic, read.partition, read.offset
        return Record(*place, read.key, read.value, _headers(read.headers))
    if read.error() is not None:
        raise ValueError("poll() returned an error: check message.error() first")
    place = read.topic(), read.partition(), read.offset()
    return Record(*place, read.key(), read.value(), _headers(read.headers()))


def _headers(
    headers: Iterable[tuple[str, bytes | str | None]] | None,
) -> tuple[tuple[str, bytes | str | None], ...]:
    return tuple((name, value) for name, value in headers or ())


def _event_id_of(value: object) -> str | None:
    if isinstance(value, (bytes, str)):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    found = value.get("event_id") if isinstance(value, Mapping) else None
    return found if isinstance(found, str) and found and found != _NIL else None


def _text_or_none(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
