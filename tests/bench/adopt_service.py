"""Rate of a service's transaction of five statements with SQLAlchemy over asyncpg, by table.

adopt_service.py URL SECONDS ROUNDS WRITERS: called by tests/bench/adopt, whose database it needs.
"""

import asyncio
import json
import statistics
import sys
import time
import uuid

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

TABLES = ("plain", "columns", "preset")
BEFORE = (
    "select value from state where id = :key",
    "update state set value = value + 1 where id = :key",
    "select count(*) from state where id between :key and :key + 10",
    "select value from state where id = 9999 - :key",
)


def envelope() -> str:
    """An event of about 800 bytes, as the platform's library writes it."""
    return json.dumps(
        {
            "event_id": str(uuid.uuid4()),
            "event_type": "huleedu.file.batch.file.added.v1",
            "event_timestamp": "2026-01-01T00:00:00Z",
            "source_service": "file-service",
            "schema_version": 1,
            "correlation_id": str(uuid.uuid4()),
            "data_schema_uri": None,
            "data": {"batch_id": "b1", "text": "x" * 300},
            "metadata": {"partition_key": "b1"},
            "topic": "files",
            "headers": {"tenant": "a"},
        }
    )


async def transaction(engine: AsyncEngine, table: str, number: int) -> None:
    """Four statements of a service, and the insert of one event."""
    insert = f"""insert into {table} (id, aggregate_id, aggregate_type, event_type, event_data, event_key, topic)
        values (:id, 'b1', 'batch', 'huleedu.file.batch.file.added.v1', cast(:data as json), :key, 'files')"""
    async with engine.begin() as connection:
        for statement in BEFORE:
            await connection.execute(text(statement), {"key": number % 10000})
        event = {"id": uuid.uuid4(), "data": envelope(), "key": f"k{number}"}
        await connection.execute(text(insert), event)


async def rate(engine: AsyncEngine, table: str, seconds: float, writers: int) -> float:
    """Transactions a second of all writers together."""
    end = time.monotonic() + seconds
    done = 0

    async def write(first: int) -> None:
        nonlocal done
        number = first
        while time.monotonic() < end:
            await transaction(engine, table, number)
            number += writers
            done += 1

    await asyncio.gather(*(write(first) for first in range(writers)))
    return done / seconds


async def main() -> None:
    url, seconds, rounds, writers = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    engine = create_async_engine(url.replace("postgres://", "postgresql+asyncpg://"), pool_size=writers)
    rates: dict[str, list[float]] = {table: [] for table in TABLES}
    await rate(engine, "plain", seconds, writers)  # warm
    for _ in range(rounds):
        for table in TABLES:
            async with engine.begin() as connection:
                await connection.execute(text("truncate outbox.event"))
            rates[table].append(await rate(engine, table, seconds, writers))
    plain = statistics.median(rates["plain"])
    for table in TABLES:
        median = statistics.median(rates[table])
        print(f"{table:10} {median:8.0f} per s {median / plain:6.2f} of plain")
    await engine.dispose()


asyncio.run(main())
