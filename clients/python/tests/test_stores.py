"""What the stores remember, in a real PostgreSQL and a real Redis."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import redis
import redis.asyncio
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from outbox_relay import NoTransactionError
from outbox_relay.consumer import (
    DeduplicatingConsumer,
    DeduplicatingConsumerSync,
    Ordering,
    PostgresEventIds,
    PostgresHighestSeq,
    Record,
    RedisEventIds,
    RedisEventIdsSync,
    StillHandledError,
)
from tests.drivers import (
    TRANSACTIONS,
    AsyncpgWriter,
    PsycopgSyncWriter,
    PsycopgWriter,
    SqlalchemySyncWriter,
    SqlalchemyWriter,
    Transaction,
    Writer,
)
from tests.servers import Database, Redis, unique
from tests.waiting import wait_until

ORDERED = Ordering.ALL_WRITERS_ORDERED
drivers = pytest.mark.parametrize("begin", TRANSACTIONS.values(), ids=TRANSACTIONS.keys())


def record(seq: int = 1, *, key: bytes = b"file-42", event_id: object = None) -> Record:
    headers = {"event_id": str(event_id or uuid4()), "outbox_seq": str(seq)}
    return Record(
        "files", 0, seq, key, b"{}", tuple((name, text.encode()) for name, text in headers.items())
    )


async def claim(
    store: PostgresEventIds | PostgresHighestSeq, message: Record, writer: Writer
) -> bool:
    """Claim a record on a connection of any kind, through the consumer of that kind."""
    match writer:
        case (
            SqlalchemyWriter(session=connection)
            | AsyncpgWriter(connection=connection)
            | (PsycopgWriter(connection=connection))
        ):
            consumer = DeduplicatingConsumer(store, ordering=ORDERED)
            async with consumer.claim(message, connection) as new:
                return new
        case SqlalchemySyncWriter(session=connection) | PsycopgSyncWriter(connection=connection):
            with DeduplicatingConsumerSync(store, ordering=ORDERED).claim(
                message, connection
            ) as new:
                return new
    raise AssertionError(writer)


@pytest.fixture
def ids(empty_database: Database) -> PostgresEventIds:
    """Event ids in the database."""
    store = PostgresEventIds("grader")
    create(empty_database, store.create_table)
    return store


@pytest.fixture
def highest(empty_database: Database) -> PostgresHighestSeq:
    """Numbers in the database."""
    store = PostgresHighestSeq("grader")
    create(empty_database, store.create_table)
    return store


def create(database: Database, sql: str) -> None:
    with database.connect() as connection:
        connection.execute(sql.encode())
        connection.execute(sql.encode())  # it may be there already


@drivers
async def test_an_id_is_new_once(
    empty_database: Database, ids: PostgresEventIds, begin: Transaction
) -> None:
    first, second = record(2), record(1)
    for message, new in ((first, True), (second, True), (first, False), (second, False)):
        async with begin(empty_database) as writer:
            assert await claim(ids, message, writer) is new


@drivers
async def test_a_number_is_new_if_it_is_the_highest_of_its_key(
    empty_database: Database, highest: PostgresHighestSeq, begin: Transaction
) -> None:
    expected = [
        (5, b"a", True),
        (5, b"a", False),
        (4, b"a", False),
        (3, b"b", True),
        (10, b"a", True),
    ]
    for seq, key, new in expected:
        async with begin(empty_database) as writer:
            assert await claim(highest, record(seq, key=key), writer) is new


@drivers
async def test_what_is_rolled_back_is_forgotten(
    empty_database: Database,
    ids: PostgresEventIds,
    highest: PostgresHighestSeq,
    begin: Transaction,
) -> None:
    message = record()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with begin(empty_database) as writer:
            assert await claim(ids, message, writer)
            assert await claim(highest, message, writer)
            raise ZeroDivisionError
    async with begin(empty_database) as writer:
        assert await claim(ids, message, writer)
        assert await claim(highest, message, writer)


async def test_consumers_and_topics_have_their_own_ids(
    empty_database: Database, ids: PostgresEventIds
) -> None:
    message = record()
    elsewhere = Record("other", 0, 0, b"", b"", message.headers)
    async with TRANSACTIONS["asyncpg"](empty_database) as writer:
        assert await claim(ids, message, writer)
        assert await claim(ids, elsewhere, writer)
        assert await claim(PostgresEventIds("mailer"), message, writer)
        assert not await claim(ids, message, writer)


async def test_expired_ids_are_new_and_are_deleted(
    empty_database: Database, ids: PostgresEventIds
) -> None:
    old = [record() for _ in range(20)]
    async with TRANSACTIONS["asyncpg"](empty_database) as writer:
        for message in old:
            assert await claim(ids, message, writer)
    empty_database.rows("update handled_event set handled_at = now() - interval '8 days'")
    async with TRANSACTIONS["asyncpg"](empty_database) as writer:
        assert await claim(ids, old[0], writer)
        assert not await claim(ids, old[0], writer)
        for _ in range(10):
            assert await claim(ids, record(), writer)
    assert empty_database.rows("select count(*) from handled_event") == [(11,)]


def test_a_claim_reads_no_more_than_it_must(
    empty_database: Database, ids: PostgresEventIds
) -> None:
    kept = 20_000
    empty_database.rows(f"""insert into handled_event
      select 'grader', 'files', gen_random_uuid(), now() from generate_series(1, {kept})""")  # noqa: S608
    consumer = DeduplicatingConsumerSync(ids)
    read = b"select seq_tup_read from pg_stat_xact_user_tables where relname = 'handled_event'"
    for statistics in (b"analyze handled_event", b"delete from pg_statistic where false"):
        with psycopg.connect(empty_database.url()) as connection:
            connection.execute(statistics)
            before = connection.execute(read).fetchone()
            # Often enough that the driver prepares it, and the server plans it for any value.
            for _ in range(30):
                assert consumer.process(record(), lambda _: None, connection)
            assert connection.execute(read).fetchone() == before


def test_a_second_consumer_waits_for_the_first_one(
    empty_database: Database, ids: PostgresEventIds
) -> None:
    message, outcomes = record(), list[bool]()
    consumer = DeduplicatingConsumerSync(ids)

    def second() -> None:
        with psycopg.connect(empty_database.url()) as connection:
            outcomes.append(consumer.process(message, lambda _: None, connection))

    waits = "select 1 from pg_stat_activity where wait_event_type = 'Lock'"
    for rolled_back in (True, False):
        with psycopg.connect(empty_database.url()) as connection:
            with consumer.claim(message, connection) as new:
                assert new is rolled_back
            if rolled_back:
                thread = Thread(target=second)
                thread.start()
                wait_until("the second one to wait", lambda: empty_database.rows(waits), 30)
                connection.rollback()
                thread.join(30)
    assert outcomes == [True]


async def test_a_store_without_a_transaction_is_refused(
    empty_database: Database, ids: PostgresEventIds
) -> None:
    with (
        psycopg.connect(empty_database.url(), autocommit=True) as connection,
        pytest.raises(NoTransactionError),
    ):
        DeduplicatingConsumerSync(ids).process(record(), lambda _: None, connection)
    assert empty_database.rows("select count(*) from handled_event") == [(0,)]


async def test_an_effect_and_its_id_commit_together(
    empty_database: Database, ids: PostgresEventIds
) -> None:
    empty_database.rows("create table effects (id text)")
    engine = create_async_engine(empty_database.url("asyncpg"))
    consumer, message, attempts = DeduplicatingConsumer(ids), record(), 0

    async def handle() -> bool:
        async with AsyncSession(engine) as session, session.begin():

            async def apply(_: Record) -> None:
                nonlocal attempts
                attempts += 1
                await session.execute(sqlalchemy.text("insert into effects values ('x')"))
                if attempts < 3:
                    raise ConnectionError("the handler fails")

            return await consumer.process(message, apply, session)

    for _ in range(2):
        with pytest.raises(ConnectionError):
            await handle()
    assert [await handle(), await handle(), attempts] == [True, False, 3]
    assert empty_database.rows("select count(*) from effects") == [(1,)]
    await engine.dispose()


# Redis

Process = Callable[[Record, Callable[[], None]], Coroutine[Any, Any, bool]]


@pytest.fixture(params=["async", "sync", "async-decoded", "sync-decoded"])
async def process(request: pytest.FixtureRequest, redis_server: Redis) -> Any:
    """Processes a record with a store in Redis."""
    kind, _, decoded = request.param.partition("-")
    options: Any = {"port": redis_server.port, "decode_responses": bool(decoded)}
    timing: Any = {"handling_max": timedelta(seconds=60), "ttl": timedelta(seconds=60)}
    name = unique("grader")
    if kind == "sync":
        sync_client = redis.Redis(**options)
        sync = DeduplicatingConsumerSync(RedisEventIdsSync(sync_client, name, **timing))

        async def process_sync(message: Record, handler: Callable[[], None]) -> bool:
            return await asyncio.to_thread(sync.process, message, lambda _: handler())

        yield process_sync
        sync_client.close()
        return
    client = redis.asyncio.Redis(**options)
    consumer = DeduplicatingConsumer(RedisEventIds(client, name, **timing))

    async def process_async(message: Record, handler: Callable[[], None]) -> bool:
        async def handle(_: Record) -> None:
            await asyncio.to_thread(handler)

        return await consumer.process(message, handle)

    yield process_async
    await client.aclose()


def succeed() -> None:
    """Do nothing."""


def fail() -> None:
    """Fail."""
    raise ConnectionError("the handler fails")


async def test_redis_drops_what_was_handled(process: Process) -> None:
    first, second = record(), record()
    assert [await process(each, succeed) for each in (first, second, first)] == [True, True, False]


async def test_redis_releases_what_failed(process: Process) -> None:
    message = record()
    async with asyncio.timeout(30):  # less than a claim lasts that is not released
        for _ in range(3):
            with pytest.raises(ConnectionError):
                await process(message, fail)
        assert [await process(message, succeed), await process(message, fail)] == [True, False]


async def test_redis_lets_a_second_consumer_wait_for_the_first_one(process: Process) -> None:
    message, entered, leave = record(), Event(), Event()

    def slow() -> None:
        entered.set()
        assert leave.wait(30)

    first = asyncio.create_task(process(message, slow))
    assert await asyncio.to_thread(entered.wait, 30)
    second = asyncio.create_task(process(message, succeed))
    done, _ = await asyncio.wait([second], timeout=0.3)
    assert not done
    leave.set()
    assert [await first, await second] == [True, False]


async def test_redis_hands_over_when_the_first_consumer_has_failed(process: Process) -> None:
    message, entered, leave = record(), Event(), Event()

    def slow() -> None:
        entered.set()
        assert leave.wait(30)
        raise ConnectionError("the handler fails")

    first = asyncio.create_task(process(message, slow))
    assert await asyncio.to_thread(entered.wait, 30)
    second = asyncio.create_task(process(message, succeed))
    leave.set()
    with pytest.raises(ConnectionError):
        await first
    assert await second


async def test_redis_does_not_take_a_claim_of_a_killed_consumer_for_handled(
    redis_server: Redis,
) -> None:
    client, message = redis.Redis(port=redis_server.port), record()
    store = RedisEventIdsSync(client, unique("grader"), handling_max=timedelta(seconds=1))
    killed: AbstractContextManager[bool] = store.claim_sync(message, None)
    assert killed.__enter__()  # and never leaves
    assert DeduplicatingConsumerSync(store).process(message, lambda _: None)
    assert not DeduplicatingConsumerSync(store).process(message, lambda _: None)
    client.close()


async def test_redis_releases_only_the_own_claim(redis_server: Redis) -> None:
    client, name = redis.Redis(port=redis_server.port), unique("grader")
    async_client = redis.asyncio.Redis(port=redis_server.port)
    brief: Any = {"handling_max": timedelta(milliseconds=50)}
    slow = DeduplicatingConsumerSync(RedisEventIdsSync(client, name, **brief))
    slow_async = DeduplicatingConsumer(RedisEventIds(async_client, name, **brief))
    owner, claims = RedisEventIdsSync(client, name), ExitStack()

    def lose(message: Record) -> None:
        """Take longer than the claim lasts, lose it to the owner, and then fail."""
        assert claims.enter_context(owner.claim_sync(message, None))
        raise ConnectionError("the handler fails")

    async def lose_async(message: Record) -> None:
        lose(message)

    with claims:
        first, second = record(), record()
        with pytest.raises(ConnectionError):
            slow.process(first, lose)
        with pytest.raises(ConnectionError):
            await slow_async.process(second, lose_async)
        for message in (first, second):
            with pytest.raises(StillHandledError):
                slow.process(message, _never)
    await async_client.aclose()
    client.close()


async def test_redis_gives_up_on_a_claim_that_does_not_end(redis_server: Redis) -> None:
    sync_client = redis.Redis(port=redis_server.port)
    client, message, name = redis.asyncio.Redis(port=redis_server.port), record(), unique("grader")
    long = RedisEventIdsSync(sync_client, name, handling_max=timedelta(minutes=1))
    brief: dict[str, Any] = {"handling_max": timedelta(milliseconds=100)}
    with long.claim_sync(message, None):
        with pytest.raises(StillHandledError, match="partition 0, offset 1: do not commit"):
            await DeduplicatingConsumer(RedisEventIds(client, name, **brief)).process(
                message, _never
            )
        with pytest.raises(StillHandledError):
            DeduplicatingConsumerSync(RedisEventIdsSync(sync_client, name, **brief)).process(
                message, _never
            )
    await client.aclose()
    sync_client.close()


async def test_redis_forgets_after_a_time(redis_server: Redis) -> None:
    client, name = redis.Redis(port=redis_server.port), unique("grader")
    store = RedisEventIdsSync(client, name, ttl=timedelta(hours=1))
    DeduplicatingConsumerSync(store).process(record(), lambda _: None)
    (key,) = client.scan_iter(f"outbox-relay:handled:{name}:*")
    assert 3590 < int(str(client.ttl(key))) <= 3600
    with pytest.raises(ValueError, match="ttl is not positive"):
        RedisEventIdsSync(client, name, ttl=timedelta())
    client.close()


async def test_redis_releases_when_a_handler_is_cancelled(redis_server: Redis) -> None:
    client, message = redis.asyncio.Redis(port=redis_server.port), record()
    consumer = DeduplicatingConsumer(RedisEventIds(client, unique("grader")))
    entered = asyncio.Event()

    async def hang(_: Record) -> None:
        entered.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(consumer.process(message, hang))
    await asyncio.wait_for(entered.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def handle(_: Record) -> None:
        return

    assert await asyncio.wait_for(consumer.process(message, handle), 30)
    await client.aclose()


def _never(message: object) -> Any:
    raise AssertionError(f"handled {message}")
