"""The examples of README.md, run as they are."""

import ast
import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from outbox_relay.consumer import PostgresEventIds, Record
from tests.servers import Database

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = [
    re.sub(r"(?m)^   ", "", code) if code.startswith("   ") else code
    for code in re.findall(r"(?s)```python\n(.*?)```", README)
]


async def run(example: int, **names: Any) -> None:
    """Run an example, which may await."""
    code = compile(EXAMPLES[example], "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, {**names})  # noqa: S307
    if asyncio.iscoroutine(result):
        await result


class Records:
    """A consumer of Kafka that has one record twice."""

    def __init__(self) -> None:
        headers = (("event_id", str(uuid4()).encode()),)
        self._records = [Record("files", 0, offset, b"k", b"{}", headers) for offset in (1, 2)]
        self._polled: Iterator[Record] = iter(self._records)
        self.commits = 0

    async def __aiter__(self) -> AsyncIterator[Record]:
        for record in self._records:
            yield record

    def poll(self) -> Record | None:
        return next(self._polled, None)

    def commit(self, **options: object) -> "asyncio.Future[None] | None":
        self.commits += 1
        if options:
            return None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """What a service has."""
    database.rows(PostgresEventIds("grader").create_table)
    engine = create_async_engine(database.url("asyncpg"))
    yield async_sessionmaker(engine)
    await engine.dispose()


async def test_writing(database: Database, sessions: async_sessionmaker[AsyncSession]) -> None:
    await run(0, sessions=sessions, file=SimpleNamespace(id="file-42", state="uploaded"))
    rows = database.rows("select aggregate_id, payload from outbox.event")
    assert rows == [("file-42", b'{"file_id": "file-42"}')]


async def test_the_import_of_the_drop_in() -> None:
    await run(1)


async def test_consuming(sessions: async_sessionmaker[AsyncSession]) -> None:
    graded, kafka = [], Records()

    async def grade(record: Record, session: AsyncSession) -> None:
        assert session.in_transaction()
        graded.append(record.offset)

    await run(2, sessions=sessions, kafka=kafka, grade=grade)
    assert (graded, kafka.commits) == ([1], 2)


async def test_consuming_without_asyncio(
    database: Database, sessions: async_sessionmaker[AsyncSession]
) -> None:
    assert sessions
    graded, kafka = [], Records()
    with psycopg.connect(database.url(), autocommit=True) as connection:
        await run(
            3,
            kafka=kafka,
            connection=connection,
            grade=lambda record, _: graded.append(record.offset),
        )
    assert (graded, kafka.commits) == ([1], 2)


def test_there_are_no_other_examples() -> None:
    assert len(EXAMPLES) == 4
