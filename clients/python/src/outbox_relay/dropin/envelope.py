"""The envelope of an event: its id, its headers, its form as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from uuid import UUID, uuid4

from outbox_relay.context import correlation_id as context_correlation_id
from outbox_relay.errors import InvalidEventError
from outbox_relay.event import parse_event_id

RecordHeaders: TypeAlias = Literal["Standard", "Debezium", "CloudEvents"]
"""`spec.recordHeaders` of the relay's manifest."""

_NIL = UUID(int=0)
_HEADER_FIELDS = {
    "schema_version": "schema_version",
    "occurred_at": "event_timestamp",
    "source_service": "source_service",
}
"""Standard headers that repeat a field of the envelope."""


def as_dict(event_data: object) -> dict[str, Any]:
    """Return an envelope as a new dict of JSON values.

    Raises:
        InvalidEventError: If it is neither a mapping nor a model like those of pydantic.
    """
    if isinstance(event_data, Mapping):
        return dict(event_data)
    if hasattr(event_data, "model_dump"):
        return dict(event_data.model_dump(mode="json"))
    if hasattr(event_data, "model_dump_json"):
        return dict(json.loads(event_data.model_dump_json()))
    raise InvalidEventError(
        f"event_data is of type {type(event_data).__name__}: pass a dict or a pydantic model"
    )


def with_event_id(envelope: Mapping[str, Any]) -> tuple[UUID, dict[str, Any]]:
    """Return the event's id and an envelope that has it.

    Consumers drop a second event with the same id. A missing id and the nil UUID are thus replaced.

    Raises:
        InvalidEventError: If field `event_id` is something else than a UUID.
    """
    given = envelope.get("event_id")
    event_id = parse_event_id(given) if given else _NIL
    if event_id != _NIL:
        return event_id, dict(envelope)
    event_id = uuid4()
    return event_id, {**envelope, "event_id": str(event_id)}


def partition_key(envelope: Mapping[str, Any], message_key: str | None, aggregate_id: str) -> str:
    """Return the key: `metadata.partition_key` of the envelope, else `message_key`, else the id."""
    return _metadata(envelope).get("partition_key") or message_key or aggregate_id


@dataclass(frozen=True, slots=True)
class Split:
    """What the manager has put into one dict: the envelope, and headers of the caller."""

    envelope: dict[str, Any]
    headers: dict[str, str]


def joined(
    envelope: Mapping[str, Any], topic: str, headers: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return what the manager passes to the repository: see `split`."""
    event_data = {**envelope, "topic": topic}
    if headers:
        event_data["headers"] = dict(headers)
    return event_data


def split(event_data: Mapping[str, Any], topic: str) -> Split:
    """Undo `joined`. Field `topic` shows that the dict comes from there."""
    envelope = dict(event_data)
    if envelope.get("topic") != topic:
        return Split(envelope, {})
    del envelope["topic"]
    headers = envelope.pop("headers", None)
    return Split(envelope, dict(headers) if isinstance(headers, Mapping) else {})


def standard_headers(
    envelope: Mapping[str, Any],
    given: Mapping[str, str],
    event_id: UUID,
    event_type: str,
    record_headers: RecordHeaders,
) -> dict[str, str]:
    """Return the headers of the row: the caller's, and the standard ones that the caller lacks.

    Headers `event_id` and `event_type` always agree with the row. With `Standard` the relay adds
    them; the row leaves them out, so that the relay need not replace them.
    """
    headers: dict[str, str] = {"content_type": "application/json"}
    trace_id = correlation_id(envelope)
    if trace_id is not None:
        headers["trace_id"] = trace_id
    for header, field in _HEADER_FIELDS.items():
        value = envelope.get(field)
        if value is not None:
            headers[header] = str(value)
    traceparent = _metadata(envelope).get("traceparent")
    if isinstance(traceparent, str) and traceparent:
        headers["traceparent"] = traceparent
    headers.update(given)
    headers.pop("event_id", None)
    headers.pop("event_type", None)
    if record_headers != "Standard":
        headers |= {"event_id": str(event_id), "event_type": event_type}
    return headers


def correlation_id(envelope: Mapping[str, Any]) -> str | None:
    """Return the envelope's correlation id, else that of the context."""
    value = envelope.get("correlation_id")
    return context_correlation_id.get() if value is None else str(value)


def _metadata(envelope: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = envelope.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}
