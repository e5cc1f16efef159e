"""Drops duplicates in consumers, whatever client of Kafka they use.

A relay publishes a record again after a fault, when it cannot find out whether Kafka has it. The
duplicate has the same key, value and headers. A consumer recognises it by one of two headers:

- **By `event_id`**: remember the ids that were handled, for a time. This is right whenever the
  duplicate comes within that time. Use `PostgresEventIds`, `RedisEventIds` or `RedisEventIdsSync`.
- **By `outbox_seq`**: remember the highest number of each topic and key, and drop what is not
  higher. This needs one row for each key and has no limit of time. It does not recognise an event
  that a restored database publishes under a new number. It loses events unless **every** writer of
  the topic is ordered: see `Ordering`. Use `PostgresHighestSeq`.
"""

from outbox_relay.consumer.deduplicating import (
    DeduplicatingConsumer,
    DeduplicatingConsumerSync,
    Ordering,
    WhenMissing,
)
from outbox_relay.consumer.postgres import PostgresEventIds, PostgresHighestSeq
from outbox_relay.consumer.record import Record
from outbox_relay.consumer.redis import RedisEventIds, RedisEventIdsSync
from outbox_relay.errors import MissingHeaderError, StillHandledError

__all__ = [
    "DeduplicatingConsumer",
    "DeduplicatingConsumerSync",
    "MissingHeaderError",
    "Ordering",
    "PostgresEventIds",
    "PostgresHighestSeq",
    "Record",
    "RedisEventIds",
    "RedisEventIdsSync",
    "StillHandledError",
    "WhenMissing",
]
