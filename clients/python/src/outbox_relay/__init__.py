"""Writes events to an outbox of OutboxRelay, and drops duplicates in consumers.

Import `add_event` from the module of your database library:

- `outbox_relay.sqlalchemy`: `add_event`, `add_event_async`
- `outbox_relay.psycopg`: `add_event`, `add_event_async`
- `outbox_relay.asyncpg`: `add_event`

`outbox_relay.consumer` has `DeduplicatingConsumer`. `outbox_relay.dropin` replaces an outbox
library that has `OutboxManager` and a worker in each service.
"""

from outbox_relay.context import correlation_id
from outbox_relay.errors import InvalidEventError, NoTransactionError, OutboxClientError
from outbox_relay.event import EventArguments, Payload

__all__ = [
    "EventArguments",
    "InvalidEventError",
    "NoTransactionError",
    "OutboxClientError",
    "Payload",
    "correlation_id",
]
