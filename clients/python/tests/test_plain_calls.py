"""Calls of the functions of the outbox without the library: text arrives byte for byte."""

import json

import asyncpg
import psycopg
import pytest
import sqlalchemy
from psycopg.types.json import Json, Jsonb
from sqlalchemy.orm import Session

from tests.servers import Database

SERIALISED = [
    json.dumps({"path": "C:\\U", "quotes": '"it\'s"', "line": "\n", "é": "\u00e9 😀"}),
    json.dumps({"b": 1e2, "a": "\\'"}, ensure_ascii=False, indent=1),
    '{"b": 1e2, "a": 2, "a":3 ,  "nul": "\\u0000", "sql": "$1 %s :name \\\\000"}',
]
FUNCTIONS = ("enqueue_text", "enqueue_json")


def stored(database: Database) -> list[object]:
    return [row[0] for row in database.rows("select payload from outbox.event order by id")]


EXPECTED = [text.encode() for text in SERIALISED]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_psycopg(database: Database, function: str) -> None:
    call = f"select outbox.{function}('file', 'f1', 'Renamed', %s)".encode()
    with psycopg.connect(database.url()) as connection:
        for text in SERIALISED:
            connection.execute(call, [text])
        for text in SERIALISED:
            connection.execute(call, [text], prepare=True)
    assert stored(database) == EXPECTED * 2


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_asyncpg(database: Database, function: str) -> None:
    connection = await asyncpg.connect(database.url())
    for text in SERIALISED:
        await connection.execute(f"select outbox.{function}('file', 'f1', 'Renamed', $1)", text)
    await connection.close()
    assert stored(database) == EXPECTED


def test_sqlalchemy(database: Database) -> None:
    engine = sqlalchemy.create_engine(database.url("psycopg"))
    with Session(engine) as session, session.begin():
        for text in SERIALISED:
            call = sqlalchemy.func.outbox.enqueue_text("file", "f1", "Renamed", text)
            session.execute(sqlalchemy.select(call))
    engine.dispose()
    assert stored(database) == EXPECTED


def test_json_of_psycopg_is_its_text_and_jsonb_is_refused(database: Database) -> None:
    call = "select outbox.enqueue_json('file', 'f1', 'Renamed', %s)"
    value = {"b": 1e2, "a": ["é", "\\"]}
    with psycopg.connect(database.url()) as connection:
        connection.execute(call, [Json(value)])
        connection.commit()
        with pytest.raises(psycopg.errors.UndefinedFunction):
            connection.execute(call, [Jsonb(value)])
    assert stored(database) == [json.dumps(value).encode()]
