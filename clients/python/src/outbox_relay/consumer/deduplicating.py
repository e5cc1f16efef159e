"""The consumer that handles each event once, with the store of your choice."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from enum import Enum
from typing import Protocol, TypeVar

from outbox_relay.connections import AnyAsyncConnection, AnyConnection
from outbox_relay.consumer.record import AnyRecord, Record, record_of
from outbox_relay.errors import MissingHeaderError

M = TypeVar("M", bound=AnyRecord)


class Ordering(Enum):
    """What you state about the services that write to the topics of a consumer.

    `outbox_seq` is drawn when an event is inserted, but an event is published when its transaction
    has committed. `outbox.enqueue` locks the key until the commit, so for one key the order of
    numbers is the order of commits. This library uses `enqueue`. A service that inserts rows
    without it, and without a lock on the aggregate's row, can commit number 8 before number 7:

        writer A   inserts 7 ......................... commits
        writer B              inserts 8 ... commits
        consumer                              gets 8 ........... gets 7

    A consumer that keeps the highest number drops 7, an event that it has never seen. A consumer
    that keeps the ids does not.
    """

    UNKNOWN = "unknown"
    """Some writers may be unordered. Records can only be compared by `event_id`."""
    ALL_WRITERS_ORDERED = "all writers ordered"
    """Each writer of each of these topics uses the functions of the outbox without
    `ordered => false`, or locks the aggregate's row before it inserts."""


class WhenMissing(Enum):
    """What to do with a record that has nothing by which a duplicate could be recognised."""

    REFUSE = "refuse"
    """Raise `MissingHeaderError`."""
    HANDLE = "handle"
    """Handle it, and handle its duplicates, too."""


class Store(Protocol):
    """What both kinds of stores have."""

    needs_ordered_writers: bool

    def identity(self, record: Record) -> str | int | None:
        """Return what the store compares. None if the record lacks it."""


class AsyncStore(Store, Protocol):
    """Remembers what was handled, for asynchronous consumers."""

    def claim(
        self, record: Record, connection: AnyAsyncConnection | None
    ) -> AbstractAsyncContextManager[bool]:
        """Enter with whether the record is new; remember it unless the body raises."""


class SyncStore(Store, Protocol):
    """Remembers what was handled, for synchronous consumers."""

    def claim_sync(
        self, record: Record, connection: AnyConnection | None
    ) -> AbstractContextManager[bool]:
        """Enter with whether the record is new; remember it unless the body raises."""


class DeduplicatingConsumer:
    """Handles each event once, in an asynchronous consumer.

    It reads no records and commits no offsets: your loop does. Commit an offset after `process` has
    returned, or `claim` has ended.

        deduplicating = DeduplicatingConsumer(PostgresEventIds("grader"))
        async for record in kafka:
            async with sessions.begin() as session:
                async with deduplicating.claim(record, session) as new:
                    if new:
                        await grade(record, session)
            await kafka.commit()

    Args:
        store: Where it remembers what was handled.
        ordering: State `Ordering.ALL_WRITERS_ORDERED` to use a store that compares `outbox_seq`.
            `Ordering` explains what is lost if the statement is not true.
        when_missing: What to do with records that cannot be compared.

    Raises:
        ValueError: If the store compares `outbox_seq` and that statement is missing.
    """

    def __init__(
        self,
        store: AsyncStore,
        *,
        ordering: Ordering = Ordering.UNKNOWN,
        when_missing: WhenMissing = WhenMissing.REFUSE,
    ) -> None:
        _require_ordered_writers(store, ordering)
        self._store = store
        self._when_missing = when_missing

    @asynccontextmanager
    async def claim(
        self, message: AnyRecord, connection: AnyAsyncConnection | None = None
    ) -> AsyncIterator[bool]:
        """Enter with True if the record is new, and with False if it is a duplicate.

        Args:
            message: A record of aiokafka or confluent-kafka, or a `Record`.
            connection: For a store in PostgreSQL: the session or connection in whose transaction
                the event takes effect. If the body raises, roll that transaction back.

        Raises:
            MissingHeaderError: If the record cannot be compared.
            NoTransactionError: If the connection has no transaction.
            StillHandledError: If another consumer has not finished with it in time.
        """
        record = record_of(message)
        if _is_comparable(self._store, record, self._when_missing):
            async with self._store.claim(record, connection) as new:
                yield new
        else:
            yield True

    async def process(
        self,
        message: M,
        handler: Callable[[M], Awaitable[object]],
        connection: AnyAsyncConnection | None = None,
    ) -> bool:
        """Call the handler unless the record is a duplicate; return whether it was called.

        See `claim` for arguments and errors. An error of the handler is passed on.
        """
        async with self.claim(message, connection) as new:
            if new:
                await handler(message)
        return new


class DeduplicatingConsumerSync:
    """Handles each event once, in a synchronous consumer. See `DeduplicatingConsumer`."""

    def __init__(
        self,
        store: SyncStore,
        *,
        ordering: Ordering = Ordering.UNKNOWN,
        when_missing: WhenMissing = WhenMissing.REFUSE,
    ) -> None:
        _require_ordered_writers(store, ordering)
        self._store = store
        self._when_missing = when_missing

    @contextmanager
    def claim(self, message: AnyRecord, connection: AnyConnection | None = None) -> Iterator[bool]:
        """Enter with True if the record is new, and with False if it is a duplicate.

        See `DeduplicatingConsumer.claim`.
        """
        record = record_of(message)
        if _is_comparable(self._store, record, self._when_missing):
            with self._store.claim_sync(record, connection) as new:
                yield new
        else:
            yield True

    def process(
        self,
        message: M,
        handler: Callable[[M], object],
        connection: AnyConnection | None = None,
    ) -> bool:
        """Call the handler unless the record is a duplicate; return whether it was called."""
        with self.claim(message, connection) as new:
            if new:
                handler(message)
        return new


def _require_ordered_writers(store: Store, ordering: Ordering) -> None:
    if store.needs_ordered_writers and ordering is not Ordering.ALL_WRITERS_ORDERED:
        raise ValueError(
            "this store compares outbox_seq, which loses events of a writer that commits them in "
            "another order than their numbers: pass ordering=Ordering.ALL_WRITERS_ORDERED if every "
            "writer of the topics uses outbox.enqueue or locks the aggregate's row; otherwise use "
            "a store of event ids"
        )


def _is_comparable(store: Store, record: Record, when_missing: WhenMissing) -> bool:
    if store.identity(record) is not None:
        return True
    if when_missing is WhenMissing.HANDLE:
        return False
    header = "outbox_seq" if store.needs_ordered_writers else "event_id"
    raise MissingHeaderError(
        f"the record at {record.place()} has no usable header {header}: let its producer set one, "
        "or pass when_missing=WhenMissing.HANDLE to handle such records without a check"
    )
