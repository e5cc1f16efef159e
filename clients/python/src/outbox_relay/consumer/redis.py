"""Stores of event ids in Redis, for effects that are not in PostgreSQL.

Redis is not part of the transaction of the effect. So the store claims an id first, and marks it as
handled when the handler has succeeded:

- The handler fails: the claim is released, and the next attempt handles the event.
- The consumer is killed meanwhile: the claim expires after `handling_max`. The consumer that gets
  the record again waits until then, and handles it. It does not take it for handled.
- The consumer is killed after the effect and before the mark: the event is handled again.

An event is thus never dropped without having been handled. It may be handled twice after a crash.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, Protocol
from uuid import uuid4

from outbox_relay.connections import AnyAsyncConnection, AnyConnection
from outbox_relay.consumer.record import Record
from outbox_relay.errors import StillHandledError

_HANDLED = "handled"
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end"
"""Deletes a claim that is still ours."""
_PAUSE_SECONDS = 0.05
"""Between two checks of a claim of another consumer."""


class RedisClient(Protocol):
    """What this library calls of `redis.Redis` and, awaited, of `redis.asyncio.Redis`."""

    def set(self, name: str, value: str, *, px: int | None = None, nx: bool = False) -> Any:
        """Set a value."""

    def get(self, name: str) -> Any:
        """Get a value."""

    def eval(self, script: str, numkeys: int, /, *keys_and_args: str) -> Any:
        """Run a script."""


class _RedisStore:
    """What both stores have in common."""

    needs_ordered_writers = False

    def __init__(
        self,
        client: RedisClient,
        consumer: str,
        *,
        ttl: timedelta = timedelta(days=1),
        handling_max: timedelta = timedelta(minutes=1),
        prefix: str = "outbox-relay:handled",
    ) -> None:
        self._client = client
        self._consumer = consumer
        self._ttl_ms = _milliseconds("ttl", ttl)
        self._handling_max_ms = _milliseconds("handling_max", handling_max)
        self._prefix = prefix

    def identity(self, record: Record) -> str | None:
        """Return the event's id."""
        return record.event_id()

    def _name(self, record: Record) -> str:
        return f"{self._prefix}:{self._consumer}:{record.topic}:{record.event_id()}"

    def _deadline(self) -> float:
        """Return when to give up: later than any claim that exists now expires."""
        return time.monotonic() + self._handling_max_ms / 1000 + 1

    def _require_time(self, deadline: float, record: Record) -> None:
        if time.monotonic() > deadline:
            raise StillHandledError(
                f"another consumer still handles the record at {record.place()}: do not commit its "
                "offset, and read it again later"
            )


class RedisEventIds(_RedisStore):
    """Remembers event ids in Redis, for asynchronous consumers.

    Args:
        client: A `redis.asyncio.Redis`.
        consumer: Name of the consumer group: each has its own ids.
        ttl: How long an id is kept. A duplicate that comes later is handled again.
        handling_max: How long a claim lasts without being marked as handled. It must be longer
            than the slowest handler: after that time another consumer may handle the event, too.
        prefix: Begin of the names of keys in Redis.
    """

    @asynccontextmanager
    async def claim(
        self,
        record: Record,
        connection: AnyAsyncConnection | None,  # noqa: ARG002
    ) -> AsyncIterator[bool]:
        """Enter with whether the record is new. It is marked as handled unless the body raises."""
        name, token = self._name(record), uuid4().hex
        if not await self._acquire(name, token, record):
            yield False
            return
        try:
            yield True
        except BaseException:
            await self._client.eval(_RELEASE, 1, name, token)
            raise
        await self._client.set(name, _HANDLED, px=self._ttl_ms)

    async def _acquire(self, name: str, token: str, record: Record) -> bool:
        deadline = self._deadline()
        while not await self._client.set(name, token, px=self._handling_max_ms, nx=True):
            if _is_handled(await self._client.get(name)):
                return False
            self._require_time(deadline, record)
            await asyncio.sleep(_PAUSE_SECONDS)
        return True


class RedisEventIdsSync(_RedisStore):
    """Remembers event ids in Redis, for synchronous consumers. See `RedisEventIds`.

    Args:
        client: A `redis.Redis`.
    """

    @contextmanager
    def claim_sync(
        self,
        record: Record,
        connection: AnyConnection | None,  # noqa: ARG002
    ) -> Iterator[bool]:
        """Enter with whether the record is new. It is marked as handled unless the body raises."""
        name, token = self._name(record), uuid4().hex
        if not self._acquire(name, token, record):
            yield False
            return
        try:
            yield True
        except BaseException:
            self._client.eval(_RELEASE, 1, name, token)
            raise
        self._client.set(name, _HANDLED, px=self._ttl_ms)

    def _acquire(self, name: str, token: str, record: Record) -> bool:
        deadline = self._deadline()
        while not self._client.set(name, token, px=self._handling_max_ms, nx=True):
            if _is_handled(self._client.get(name)):
                return False
            self._require_time(deadline, record)
            time.sleep(_PAUSE_SECONDS)
        return True


def _is_handled(value: bytes | str | None) -> bool:
    return value in (_HANDLED, _HANDLED.encode())


def _milliseconds(argument: str, duration: timedelta) -> int:
    milliseconds = int(duration.total_seconds() * 1000)
    if milliseconds < 1:
        raise ValueError(f"{argument} is not positive: pass a longer time")
    return milliseconds
