"""What is sent for an event, and what is refused. Without servers."""

import json
from collections import UserDict
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from outbox_relay import InvalidEventError, correlation_id
from outbox_relay.event import enqueue
from tests.samples import NASTY, PAYLOADS

SECRET = "do-not-print-me"  # noqa: S105
EVENT: dict[str, Any] = {
    "aggregate_type": "file",
    "aggregate_id": "file-42",
    "event_type": "EssayContentProvisionedV1",
    "payload": {"secret": SECRET},
    "topic": "files",
}


def parameters(**changed: Any) -> dict[str, Any]:
    return dict(enqueue(**{**EVENT, **changed}).parameters)


def headers(**changed: Any) -> dict[str, str]:
    loaded = json.loads(parameters(**changed)["headers"])
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture
def request_id() -> Iterator[str]:
    """The context has a correlation id."""
    token = correlation_id.set("from-the-context")
    yield "from-the-context"
    correlation_id.reset(token)


def test_a_mapping_is_serialised_as_json_dumps_does() -> None:
    for payload in ({"b": 1, "a": [NASTY, 1.10, None, 10**30]}, {}, PAYLOADS["nasty-json"]):
        assert parameters(payload=payload)["payload"] == json.dumps(payload).encode()


def test_other_mappings_are_serialised_too() -> None:
    assert parameters(payload=UserDict({"a": 1}))["payload"] == b'{"a": 1}'


def test_text_and_bytes_are_not_changed() -> None:
    assert parameters(payload=NASTY)["payload"] == NASTY.encode()
    assert parameters(payload=b"\x00\xff\\x41")["payload"] == b"\x00\xff\\x41"
    assert (
        parameters(payload="nul \0 in a payload is fine")["payload"]
        == b"nul \0 in a payload is fine"
    )
    assert parameters(payload=None)["payload"] is None


def test_what_is_left_out_is_null() -> None:
    arguments = {name: EVENT[name] for name in EVENT if name != "topic"}
    found = dict(enqueue(**arguments).parameters)
    assert (found["topic"], found["event_key"], found["event_id"]) == (None, None, None)
    assert found["headers"] == "{}"


def test_an_empty_key_is_a_key() -> None:
    assert parameters(key="")["event_key"] == ""


def test_the_schema_is_quoted() -> None:
    assert 'select "essays_1".enqueue(' in enqueue(**{**EVENT, "schema": "essays_1"}).template


def test_an_event_id_may_be_text() -> None:
    event_id = uuid4()
    assert parameters(event_id=event_id)["event_id"] == str(event_id)
    assert parameters(event_id=str(event_id).upper())["event_id"] == str(event_id)


def test_the_correlation_id_comes_from_the_context(request_id: str) -> None:
    assert headers() == {"correlation_id": request_id}


def test_an_argument_overrides_the_context(request_id: str) -> None:
    assert request_id
    nil = UUID(int=0)
    assert headers(correlation_id=nil) == {"correlation_id": str(nil)}


def test_a_header_of_the_caller_overrides_both(request_id: str) -> None:
    assert request_id
    own = {"Correlation_Id": "own"}
    assert headers(headers=own, correlation_id="argument") == own


def test_the_current_span_is_in_the_headers() -> None:
    with TracerProvider().get_tracer("test").start_as_current_span("work") as span:
        context = span.get_span_context()
        found = headers()
    expected = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert found == {"traceparent": expected}


def test_no_span_no_header() -> None:
    assert headers() == {}
    with trace.use_span(trace.INVALID_SPAN):
        assert headers() == {}


def test_a_trace_of_the_caller_is_kept() -> None:
    with TracerProvider().get_tracer("test").start_as_current_span("work"):
        assert headers(headers={"TraceParent": "own"}) == {"TraceParent": "own"}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "schema: not a name": ({"schema": "Outbox"}, "schema is not a usable name: use at most 63"),
    "schema: injection": ({"schema": 'x"; drop table event; --'}, "spec.database.schema"),
    "schema: of PostgreSQL": ({"schema": "pg_catalog"}, "schema is not a usable name"),
    "schema: newline": ({"schema": "outbox\n"}, "schema is not a usable name"),
    "event_type: empty": ({"event_type": ""}, "event_type is empty: pass the name"),
    "event_type: NUL": ({"event_type": "a\0"}, "event_type contains a NUL character.*remove"),
    "event_type: type": ({"event_type": 7}, "event_type is of type int: pass a str"),
    "aggregate_id: NUL": ({"aggregate_id": "\0"}, "aggregate_id contains a NUL"),
    "aggregate_id: type": ({"aggregate_id": uuid4()}, "aggregate_id is of type UUID: pass a str"),
    "aggregate_type: surrogate": ({"aggregate_type": "\ud83c"}, "aggregate_type.*lone surrogate"),
    "key: NUL": ({"key": "a\0b"}, "key contains a NUL"),
    "key: type": ({"key": b"k"}, "key is of type bytes: pass a str"),
    "topic: too long": ({"topic": "t" * 250}, "topic is not a name of Kafka: use 1 to 249"),
    "topic: empty": ({"topic": ""}, "topic is not a name of Kafka"),
    "topic: dots": ({"topic": ".."}, "topic is not a name of Kafka"),
    "topic: newline": ({"topic": "files\n"}, "topic is not a name of Kafka"),
    "topic: space": ({"topic": "my files"}, "topic is not a name of Kafka"),
    "header: number": ({"headers": {"n": 7}}, "header 'n' is of type int: pass a str"),
    "header: bytes": ({"headers": {"n": SECRET.encode()}}, "header 'n' is of type bytes"),
    "header: none": ({"headers": {"n": None}}, "header 'n' is of type NoneType"),
    "header: NUL": ({"headers": {"n": SECRET + "\0"}}, "header 'n' contains a NUL"),
    "header: surrogate": ({"headers": {"n": SECRET + "\ud800"}}, "header 'n'.*surrogate"),
    "header name: NUL": ({"headers": {"n\0": "v"}}, "the name of a header contains a NUL"),
    "header name: type": ({"headers": {7: "v"}}, "the name of a header is of type int"),
    "correlation_id: NUL": ({"correlation_id": SECRET + "\0"}, "correlation_id contains a NUL"),
    "payload: surrogate": ({"payload": SECRET + "\ud800"}, "payload.*surrogate"),
    "payload: list": ({"payload": [SECRET]}, "payload is of type list: pass bytes, str"),
    "payload: value": ({"payload": {"a": {SECRET}}}, "json.dumps .*type set is not JSON"),
    "event_id: text": ({"event_id": SECRET}, "event_id is not a UUID: pass one"),
    "event_id: type": ({"event_id": 7}, "event_id is not a UUID"),
}


@pytest.mark.parametrize(("changed", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidEventError, match=f"(?s){message}") as refused:
        enqueue(**{**EVENT, **changed})
    error: BaseException | None = refused.value
    while error is not None:  # also what is printed below "During handling of ..."
        assert SECRET not in f"{error!r} {error} {getattr(error, '__notes__', '')}"
        error = error.__cause__ or error.__context__


def test_a_payload_that_contains_itself_is_refused() -> None:
    payload: dict[str, object] = {"secret": SECRET}
    payload["self"] = payload
    with pytest.raises(InvalidEventError, match=r"json.dumps \(ValueError\)"):
        enqueue(**{**EVENT, "payload": payload})


def test_values_are_hidden_where_parameters_are_printed() -> None:
    found = parameters(headers={"h": SECRET})
    assert SECRET not in repr(found)
    assert SECRET in found["headers"]
