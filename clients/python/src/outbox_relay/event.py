"""From the arguments of an event to the call of `outbox.enqueue`. Pure, but for the context."""

import json
import re
from collections.abc import Mapping
from typing import NotRequired, Required, TypeAlias, TypedDict, Unpack
from uuid import UUID

from outbox_relay import context
from outbox_relay.errors import InvalidEventError
from outbox_relay.identifiers import quoted_name
from outbox_relay.statement import HiddenBytes, HiddenStr, Statement

Payload: TypeAlias = bytes | str | Mapping[str, object] | None
"""The value of the record. Bytes are sent unchanged, and text as UTF-8. A mapping is serialised
once, with `json.dumps` and its defaults. None is a tombstone: a record without a value."""

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")

_ENQUEUE = (
    "select {schema}.enqueue("
    "aggregate_type => cast({{aggregate_type}} as text), "
    "aggregate_id => cast({{aggregate_id}} as text), "
    "event_type => cast({{event_type}} as text), "
    "payload => cast({{payload}} as bytea), "
    "topic => cast({{topic}} as text), "
    "event_key => cast({{event_key}} as text), "
    "headers => cast(cast({{headers}} as text) as jsonb), "
    "event_id => cast(cast({{event_id}} as text) as uuid))"
)


class EventArguments(TypedDict):
    """Keyword arguments of all `add_event` functions."""

    aggregate_type: Required[str]
    """What kind of thing changed, such as `file`."""
    aggregate_id: Required[str]
    """Which one changed. It is also the Kafka key, unless `key` is given."""
    event_type: Required[str]
    """What happened, such as `EssayContentProvisionedV1`. Not empty."""
    payload: Required[Payload]
    """The value of the record: see `Payload`."""
    topic: NotRequired[str | None]
    """Kafka topic. None: the manifest's topic for `event_type`, then for `aggregate_type`."""
    key: NotRequired[str | None]
    """Kafka key. Events of one key keep their order. None: `aggregate_id`."""
    headers: NotRequired[Mapping[str, str] | None]
    """Headers of the record. Names and values are text."""
    correlation_id: NotRequired[str | UUID | None]
    """Header `correlation_id`. None: the value of `outbox_relay.correlation_id`, if it has one."""
    event_id: NotRequired[str | UUID | None]
    """Identity of the event. None: the database generates one."""
    schema: NotRequired[str]
    """Schema of the outbox: `spec.database.schema` of the manifest. The default is `outbox`."""


def enqueue(**event: Unpack[EventArguments]) -> Statement:
    """Check an event and return the statement that adds it to the outbox.

    Headers `correlation_id`, `traceparent` and `tracestate` are added unless the event has them.

    Raises:
        InvalidEventError: If an argument is not usable.
    """
    event_type = _text("event_type", event["event_type"])
    if not event_type:
        raise InvalidEventError(
            "event_type is empty: pass the name of what happened, such as OrderPlacedV1"
        )
    key, event_id = event.get("key"), event.get("event_id")
    return Statement(
        _ENQUEUE.format(schema=_schema(event.get("schema", "outbox"))),
        {
            "aggregate_type": _text("aggregate_type", event["aggregate_type"]),
            "aggregate_id": _text("aggregate_id", event["aggregate_id"]),
            "event_type": event_type,
            "payload": serialise(event["payload"]),
            "topic": _topic(event.get("topic")),
            "event_key": None if key is None else _text("key", key),
            "headers": _headers(event.get("headers"), event.get("correlation_id")),
            "event_id": None if event_id is None else str(parse_event_id(event_id)),
        },
    )


def serialise(payload: Payload) -> HiddenBytes | None:
    """Return the bytes of a payload.

    Raises:
        InvalidEventError: If it cannot be turned into bytes.
    """
    match payload:
        case None:
            return None
        case bytes():
            return HiddenBytes(payload)
        case str():
            return HiddenBytes(_utf8("payload", payload))
        case Mapping():
            return HiddenBytes(_utf8("payload", _json(payload)))
    raise InvalidEventError(
        f"payload is of type {type(payload).__name__}: pass bytes, str, a mapping, or None for a "
        "tombstone"
    )


def parse_event_id(value: str | UUID) -> UUID:
    """Return an event id as UUID.

    Raises:
        InvalidEventError: If it is not one.
    """
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (ValueError, AttributeError, TypeError):
        pass  # raised below, without the value as context
    raise InvalidEventError("event_id is not a UUID: pass one, or None to have one generated")


def _json(payload: Mapping[str, object]) -> str:
    try:
        return json.dumps(payload if isinstance(payload, dict) else dict(payload))
    except (TypeError, ValueError, RecursionError) as error:
        # The text of other errors can quote the payload.
        reason = str(error) if type(error) is TypeError else type(error).__name__
    raise InvalidEventError(
        f"payload cannot be serialised by json.dumps ({reason}): convert its values first, for "
        "example with model_dump(mode='json'), or pass bytes"
    )


def _headers(given: Mapping[str, str] | None, correlation_id: str | UUID | None) -> HiddenStr:
    headers: dict[str, str] = {}
    for name, value in (given or {}).items():
        _text("the name of a header", name)
        headers[name] = _text(f"header {name!a}", value)
    _add_context(headers, correlation_id)
    return HiddenStr(json.dumps(headers))


def _add_context(headers: dict[str, str], correlation_id: str | UUID | None) -> None:
    present = {name.lower() for name in headers}
    if "correlation_id" not in present:
        value = context.correlation_id.get() if correlation_id is None else str(correlation_id)
        if value is not None:
            headers["correlation_id"] = _text("correlation_id", value)
    if present.isdisjoint({"traceparent", "tracestate"}):
        headers.update(context.trace_headers())


def _topic(topic: str | None) -> str | None:
    if topic is None:
        return None
    if not _TOPIC.fullmatch(_text("topic", topic)) or topic in (".", ".."):
        raise InvalidEventError(
            "topic is not a name of Kafka: use 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', and "
            "not '.' or '..' alone"
        )
    return topic


def _schema(schema: str) -> str:
    try:
        return quoted_name("schema", schema)
    except ValueError as error:
        message = str(error)
    raise InvalidEventError(f"{message}; it is spec.database.schema of the manifest")


def _text(argument: str, value: str) -> str:
    """Return text that PostgreSQL can store."""
    if not isinstance(value, str):
        raise InvalidEventError(f"{argument} is of type {type(value).__name__}: pass a str")
    if "\0" in value:
        raise InvalidEventError(
            f"{argument} contains a NUL character, which PostgreSQL cannot store: remove it"
        )
    _utf8(argument, value)
    return value


def _utf8(argument: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        pass  # raised below: this error quotes the whole value
    raise InvalidEventError(
        f"{argument} contains a lone surrogate, which UTF-8 cannot express: decode the text "
        "correctly, or pass bytes as payload"
    )
