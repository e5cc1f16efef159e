"""Waits for conditions, each with a limit. Tests never sleep to synchronise."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
LIMIT_SECONDS = 120.0
"""Long, since a relay that takes over waits 20 s for the lease of the one that was killed."""
PAUSE_SECONDS = 0.02


def wait_until(
    what: str, condition: Callable[[], T | None], limit_seconds: float = LIMIT_SECONDS
) -> T:
    """Repeat a check until it returns something true, and return that."""
    deadline = time.monotonic() + limit_seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {limit_seconds} s for {what}"
        time.sleep(PAUSE_SECONDS)
    return result


async def wait_until_async(
    what: str, condition: Callable[[], Awaitable[T | None]], limit_seconds: float = LIMIT_SECONDS
) -> T:
    """Repeat a check until it returns something true, and return that."""
    deadline = time.monotonic() + limit_seconds
    while not (result := await condition()):
        assert time.monotonic() < deadline, f"waited {limit_seconds} s for {what}"
        await asyncio.sleep(PAUSE_SECONDS)
    return result
