"""Storage of events in the outbox of OutboxRelay."""

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from outbox_relay.dropin import envelope as envelopes
from outbox_relay.dropin.envelope import RecordHeaders
from outbox_relay.sqlalchemy import add_event_async


class PostgreSQLOutboxRepository:
    """Adds events with `outbox.enqueue`. It implements `OutboxRepositoryProtocol`.

    Args:
        engine: An engine, or a factory of sessions, for calls without a session.
        service_name: Header `source_service` of envelopes that have no field of this name.
        enable_metrics: Not used. The relay exports metrics.
        schema: Schema of the outbox: `spec.database.schema` of the manifest.
        record_headers: `spec.recordHeaders` of the manifest.
    """

    def __init__(
        self,
        engine: AsyncEngine | async_sessionmaker[AsyncSession],
        service_name: str | None = None,
        enable_metrics: bool = True,  # noqa: ARG002, FBT001, FBT002
        *,
        schema: str = "outbox",
        record_headers: RecordHeaders = "Standard",
    ) -> None:
        self._sessions = (
            engine if isinstance(engine, async_sessionmaker) else async_sessionmaker(engine)
        )
        self._service_name = service_name
        self._schema = schema
        self._record_headers = record_headers

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
        """Add an event, and return its id. See `OutboxRepositoryProtocol.add_event`.

        Raises:
            InvalidEventError: If an argument is not usable. Nothing was sent.
        """
        if session is None:
            async with self._sessions.begin() as own:
                return await self.add_event(
                    aggregate_id, aggregate_type, event_type, event_data, topic, event_key, own
                )
        parts = envelopes.split(event_data, topic)
        event_id, envelope = envelopes.with_event_id(parts.envelope)
        await add_event_async(
            session,
            aggregate_type=aggregate_type,
            aggregate_id=aggregate_id,
            event_type=event_type,
            payload=envelope,
            topic=topic,
            key=event_key,
            headers=self._headers(envelope, parts.headers, event_id, event_type),
            correlation_id=envelopes.correlation_id(envelope),
            event_id=event_id,
            schema=self._schema,
        )
        return event_id

    def _headers(
        self, envelope: dict[str, Any], given: dict[str, str], event_id: UUID, event_type: str
    ) -> dict[str, str]:
        headers = envelopes.standard_headers(
            envelope, given, event_id, event_type, self._record_headers
        )
        if self._service_name is not None:
            headers.setdefault("source_service", self._service_name)
        return headers
