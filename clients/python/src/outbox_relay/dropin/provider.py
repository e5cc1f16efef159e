"""Components of the outbox for a container of Dishka."""

from dishka import Provider, Scope, provide
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox_relay.dropin.envelope import RecordHeaders
from outbox_relay.dropin.manager import OutboxManager
from outbox_relay.dropin.protocols import OutboxRepositoryProtocol
from outbox_relay.dropin.repository import PostgreSQLOutboxRepository


class OutboxProvider(Provider):
    """Provides `OutboxRepositoryProtocol` and `OutboxManager`. The service provides `AsyncEngine`.

    Args:
        service_name: Header `source_service` of envelopes that have no field of this name.
        schema: Schema of the outbox: `spec.database.schema` of the manifest.
        record_headers: `spec.recordHeaders` of the manifest.
    """

    scope = Scope.APP

    def __init__(
        self,
        service_name: str | None = None,
        *,
        schema: str = "outbox",
        record_headers: RecordHeaders = "Standard",
    ) -> None:
        super().__init__()
        self._service_name = service_name
        self._schema = schema
        self._record_headers = record_headers

    @provide
    def outbox_repository(self, engine: AsyncEngine) -> OutboxRepositoryProtocol:
        """Return the repository, which opens transactions of its own on the service's engine."""
        return PostgreSQLOutboxRepository(
            engine, self._service_name, schema=self._schema, record_headers=self._record_headers
        )

    @provide
    def outbox_manager(self, repository: OutboxRepositoryProtocol) -> OutboxManager:
        """Return the manager."""
        return OutboxManager(repository, service_name=self._service_name)
