"""What a service calls to publish an envelope."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from outbox_relay.dropin import envelope as envelopes
from outbox_relay.dropin.protocols import OutboxRepositoryProtocol


class OutboxManager:
    """Publishes envelopes through the outbox.

    Args:
        outbox_repository: Where events are added.
        redis_client: Not used. The relay polls the outbox.
        service_name: Header `source_service` of envelopes that have no field of this name.
    """

    def __init__(
        self,
        outbox_repository: OutboxRepositoryProtocol,
        redis_client: object = None,  # noqa: ARG002
        service_name: str | None = None,
    ) -> None:
        self.outbox_repository = outbox_repository
        self.service_name = service_name

    async def publish_to_outbox(
        self,
        aggregate_type: str,
        aggregate_id: str,
        event_type: str,
        event_data: Any,
        topic: str,
        message_key: str | None = None,
        headers: dict[str, str] | None = None,
        session: AsyncSession | None = None,
    ) -> None:
        """Add an envelope to the outbox.

        The record's key is `metadata.partition_key` of the envelope, else `message_key`, else
        `aggregate_id`. Its headers are `headers`, and these where the caller gives no other:
        `event_id`, `trace_id`, `schema_version`, `occurred_at`, `content_type`, `source_service`,
        `event_type`. Without a usable `event_id` the envelope gets a new one.

        Args:
            aggregate_type: What kind of thing changed.
            aggregate_id: Which thing changed.
            event_type: What happened.
            event_data: The envelope: a dict, or a model with `model_dump` or `model_dump_json`.
            topic: Topic of Kafka.
            message_key: Key of the record, if the envelope has no `metadata.partition_key`.
            headers: Headers of the record.
            session: Session in whose transaction the event is added; it is not committed here.
                None: a transaction of its own, which is committed. The event is then published
                even if the change that it reports is rolled back.

        Raises:
            InvalidEventError: If an argument is not usable. Nothing was sent.
        """
        _, envelope = envelopes.with_event_id(envelopes.as_dict(event_data))
        if self.service_name is not None and envelope.get("source_service") is None:
            headers = {"source_service": self.service_name, **(headers or {})}
        await self.outbox_repository.add_event(
            aggregate_id=aggregate_id,
            aggregate_type=aggregate_type,
            event_type=event_type,
            event_data=envelopes.joined(envelope, topic, headers),
            topic=topic,
            event_key=envelopes.partition_key(envelope, message_key, aggregate_id),
            session=session,
        )
