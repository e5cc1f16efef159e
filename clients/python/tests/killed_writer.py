"""A process that adds an event, reports it, and then waits to be killed."""

import asyncio
import sys

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from outbox_relay.sqlalchemy import add_event_async


async def main() -> None:
    """Add a row and an event, and never commit."""
    async with AsyncSession(create_async_engine(sys.argv[1])) as session:
        await session.execute(text("insert into files values ('file-42')"))
        seq = await add_event_async(
            session,
            aggregate_type="file",
            aggregate_id="file-42",
            event_type="Uploaded",
            payload={"file": 42},
            topic=sys.argv[2],
        )
        await session.flush()
        print(seq, flush=True)
        await asyncio.Event().wait()


asyncio.run(main())
