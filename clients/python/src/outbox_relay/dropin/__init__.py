"""Replaces an outbox library that had `OutboxManager`, a table and a worker in each service.

A service changes the import and deletes its worker. The names and arguments are those that it
uses already; rows go to `outbox.enqueue`, and OutboxRelay publishes them. The README lists the
steps.
"""

from typing import TYPE_CHECKING, Any

from outbox_relay.dropin.manager import OutboxManager
from outbox_relay.dropin.protocols import OutboxRepositoryProtocol
from outbox_relay.dropin.repository import PostgreSQLOutboxRepository

if TYPE_CHECKING:
    from outbox_relay.dropin.provider import OutboxProvider

__all__ = [
    "OutboxManager",
    "OutboxProvider",
    "OutboxRepositoryProtocol",
    "PostgreSQLOutboxRepository",
]


def __getattr__(name: str) -> Any:
    """Import `OutboxProvider` when it is used: it needs the extra `dishka`."""
    if name == "OutboxProvider":
        from outbox_relay.dropin.provider import OutboxProvider

        return OutboxProvider
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
