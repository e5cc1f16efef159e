"""Interface between `OutboxManager` and the storage of events."""

from typing import Any, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession


class OutboxRepositoryProtocol(Protocol):
    """Adds events to the outbox. Tests of a service can implement it."""

    async def add_event(
        self,
        aggregate_id: str,
        aggregate_type: str,
        event_type: str,
        event_data: dict[str, Any],
        topic: str,
        event_key: str | None = None,
        session: AsyncSession | None = None,
    ) -> UUID:
        """Add an event, and return its id.

        Args:
            aggregate_id: Which thing changed.
            aggregate_type: What kind of thing it is.
            event_type: What happened.
            event_data: The envelope. `OutboxManager` adds fields `topic` and `headers` to it, which
                are not part of the record's value.
            topic: Topic of Kafka.
            event_key: Key of the record. None: the aggregate's id.
            session: Session in whose transaction the event is added. None: a transaction of its
                own, which is committed.
        """
        ...
