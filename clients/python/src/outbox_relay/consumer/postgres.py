"""Stores in the database of the consumer. They take part in its transaction.

What a transaction remembers and the effect of the event commit together, or not at all. So the
effect happens once, also through crashes.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

from outbox_relay.connections import (
    AnyAsyncConnection,
    AnyConnection,
    fetch_value,
    fetch_value_of_async,
)
from outbox_relay.consumer.record import Record
from outbox_relay.identifiers import quoted_name
from outbox_relay.statement import Statement

_CLAIM_ID = """\
with expired as (
  delete from {table} where ctid in (
    select ctid from {table}
    where handled_at < now() - make_interval(secs => cast({{ttl}} as double precision))
      and event_id <> cast({{event_id}} as text)
    order by handled_at limit 2 for update skip locked))
insert into {table} as handled (consumer, topic, event_id)
values (cast({{consumer}} as text), cast({{topic}} as text), cast({{event_id}} as text))
on conflict (consumer, topic, event_id) do update set handled_at = now()
  where handled.handled_at < now() - make_interval(secs => cast({{ttl}} as double precision))
returning 1"""
"""Each claim deletes up to two expired rows, so the table holds little more than the ids that are
kept. `order by` makes the planner use the index even if it expects many expired rows."""

_CREATE_IDS = """\
create table if not exists {table} (
  consumer text not null,
  topic text not null,
  event_id text not null,
  handled_at timestamptz not null default now(),
  primary key (consumer, topic, event_id)
);
create index if not exists {index} on {table} (handled_at);"""

_CLAIM_SEQ = """\
insert into {table} as highest (consumer, topic, key, seq)
values (cast({{consumer}} as text), cast({{topic}} as text), cast({{key}} as bytea),
  cast(cast({{seq}} as text) as bigint))
on conflict (consumer, topic, key) do update set seq = excluded.seq
  where highest.seq < excluded.seq
returning 1"""

_CREATE_SEQS = """\
create table if not exists {table} (
  consumer text not null,
  topic text not null,
  key bytea not null,
  seq bigint not null,
  primary key (consumer, topic, key)
);"""


class _PostgresStore:
    """What both stores have in common."""

    def __init__(self, consumer: str, template: str, schema: str | None, table: str) -> None:
        self._consumer = consumer
        self._table = quoted_name("table", table)
        if schema is not None:
            self._table = f"{quoted_name('schema', schema)}.{self._table}"
        self._template = template.format(table=self._table)

    def _parameters(self, record: Record) -> Mapping[str, object]:
        raise NotImplementedError

    @asynccontextmanager
    async def claim(
        self, record: Record, connection: AnyAsyncConnection | None
    ) -> AsyncIterator[bool]:
        """Enter with whether the record is new. The transaction remembers it if it commits."""
        if connection is None:
            raise _no_connection()
        statement = Statement(self._template, self._parameters(record))
        yield await fetch_value_of_async(connection, statement) is not None

    @contextmanager
    def claim_sync(self, record: Record, connection: AnyConnection | None) -> Iterator[bool]:
        """Enter with whether the record is new. The transaction remembers it if it commits."""
        if connection is None:
            raise _no_connection()
        statement = Statement(self._template, self._parameters(record))
        yield fetch_value(connection, statement) is not None


class PostgresEventIds(_PostgresStore):
    """Remembers event ids in a table, in the consumer's own transaction.

    If two consumers claim an id at once, the second one waits until the first transaction ends.

    Args:
        consumer: Name of the consumer group: each has its own ids.
        ttl: How long an id is kept. A duplicate that comes later is handled again. Duplicates come
            after a fault of a relay, of Kafka or of the consumer, or when offsets are reset.
        schema: Schema of the table. None: the connection's search_path decides.
        table: Name of the table. `create_table` is its SQL.
    """

    needs_ordered_writers = False

    def __init__(
        self,
        consumer: str,
        *,
        ttl: timedelta = timedelta(days=7),
        schema: str | None = None,
        table: str = "handled_event",
    ) -> None:
        super().__init__(consumer, _CLAIM_ID, schema, table)
        self._ttl = ttl.total_seconds()
        index = quoted_name("table", f"{table}_handled_at"[:63])
        self.create_table = _CREATE_IDS.format(table=self._table, index=index)

    def identity(self, record: Record) -> str | None:
        """Return the event's id."""
        return record.event_id()

    def _parameters(self, record: Record) -> Mapping[str, object]:
        return {
            "ttl": self._ttl,
            "event_id": record.event_id(),
            "consumer": self._consumer,
            "topic": record.topic,
        }


class PostgresHighestSeq(_PostgresStore):
    """Remembers the highest `outbox_seq` of each topic and key, in the consumer's transaction.

    Only for topics whose writers are all ordered: see `Ordering`.

    Args:
        consumer: Name of the consumer group: each has its own numbers.
        schema: Schema of the table. None: the connection's search_path decides.
        table: Name of the table. `create_table` is its SQL.
    """

    needs_ordered_writers = True

    def __init__(
        self, consumer: str, *, schema: str | None = None, table: str = "highest_seq"
    ) -> None:
        super().__init__(consumer, _CLAIM_SEQ, schema, table)
        self.create_table = _CREATE_SEQS.format(table=self._table)

    def identity(self, record: Record) -> int | None:
        """Return the event's number."""
        return record.outbox_seq()

    def _parameters(self, record: Record) -> Mapping[str, object]:
        return {
            "consumer": self._consumer,
            "topic": record.topic,
            "key": record.key_bytes(),
            "seq": str(record.outbox_seq()),
        }


def _no_connection() -> TypeError:
    return TypeError(
        "this store is part of your transaction: pass the session or connection in which the event "
        "takes effect"
    )
