"""A PostgreSQL and a Kafka broker on free ports, which nothing else uses."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from processes import Tree, wait_until

MANIFEST = """\
apiVersion: outboxrelay.dev/v1alpha1
kind: OutboxRelay
metadata: {{name: bench, namespace: bench}}
spec:
  database: {{urlSecretRef: {{name: database, key: url}}, tls: {{mode: disable}}}}
  kafka: {{bootstrapServers: ["{kafka}"], tls: {{mode: disable}}}}
  topics: [{{name: {topic}}}]
---
apiVersion: v1
kind: Secret
metadata: {{name: database, namespace: bench}}
stringData: {{url: "{url}"}}
"""
POSTGRES_CONF = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 4000
shared_buffers = 256MB
max_wal_size = 4GB
log_min_messages = warning
"""
KAFKA_CONF = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
log.dirs={logs}
offsets.topic.replication.factor=1
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
"""


def free_port() -> int:
    """A port that no process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(command: list[str | Path], log: Path) -> subprocess.Popen[bytes]:
    """Starts a server in a session of its own."""
    with log.open("ab") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, cwd="/")


class Postgres:
    """A new cluster of PostgreSQL 17, with fsync as in production."""

    def __init__(self, programs: Path, folder: Path) -> None:
        bin_folder, self.port = programs / "postgres-17.11.0" / "bin", free_port()
        data = folder / "postgres"
        # PostgreSQL refuses to run as root, and its user may lack the way to its programs.
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        data.mkdir(mode=0o700)
        shutil.chown(data, "postgres")
        initdb = [bin_folder / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        subprocess.run([*user, *initdb], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(POSTGRES_CONF.format(port=self.port))
        self.process = start([*user, bin_folder / "postgres", "-D", data], folder / "postgres.log")
        self.tree = Tree(self.process.pid)
        ready = ["pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        try:
            wait_until("PostgreSQL accepts connections", 30, lambda: subprocess.run(ready, check=False).returncode == 0)
        except BaseException:
            self.stop()
            raise

    def url(self, database: str) -> str:
        """URL of a database."""
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def psql(self, database: str, *statements: str) -> str:
        """Runs statements, each as a transaction."""
        command = ["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", self.url(database)]
        for statement in statements:
            command += ["-c", statement]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def transactions(self) -> int:
        """Transactions of all databases so far."""
        return int(self.psql("postgres", "select sum(xact_commit + xact_rollback)::bigint from pg_stat_database"))

    def backends(self) -> int:
        """Connections of clients, without the one that asks."""
        return int(self.psql("postgres", "select count(*) - 1 from pg_stat_activity where backend_type = 'client backend'"))

    def wal(self) -> tuple[int, int]:
        """Bytes written and flushes so far."""
        size, flushes = self.psql("postgres", "select wal_bytes, wal_sync from pg_stat_wal").split("|")
        return int(size), int(flushes)

    def write(self, database: str, script: Path, rate: int, seconds: float) -> subprocess.Popen[bytes]:
        """Starts pgbench with a script at a rate of transactions."""
        command = ["pgbench", "-n", "-M", "prepared", "-c", "4", "-j", "1", "-R", str(rate), "-T", str(int(seconds)), "-f", str(script)]
        return subprocess.Popen([*command, self.url(database)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        """Stops at once."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)


class Kafka:
    """A broker with a new log."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.port, self.topics = free_port(), 0
        self.address = f"127.0.0.1:{self.port}"
        conf = folder / "kafka.properties"
        conf.write_text(KAFKA_CONF.format(port=self.port, controller=free_port(), logs=folder / "kafka"))
        log4j = Path(__file__).parents[2] / "rig" / "kafka" / "log4j2.yaml"
        java: list[str | Path] = ["java", "-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{programs}/kafka/*"]
        storage = [*java, "kafka.tools.StorageTool", "format", "-t", "cmVsYXktdGVzdC1yaWctMQ", "-c", conf]
        environment = os.environ | {"RIG_LOG": "ERROR"}
        subprocess.run(storage, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        self.process = start([*java, "kafka.Kafka", conf], folder / "kafka.log")
        self.tree = Tree(self.process.pid)
        try:
            wait_until("the broker is started", 60, lambda: "Kafka Server started" in (folder / "kafka.log").read_text())
        except BaseException:
            self.stop()
            raise

    def create_topic(self, partitions: int) -> str:
        """Creates a topic whose records have the time of their append."""
        self.topics += 1
        name = f"scale-{self.topics}"

        async def create() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
            await admin.start()
            await admin.create_topics([NewTopic(name, partitions, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})])
            await admin.close()

        asyncio.run(create())
        return name

    def stop(self) -> None:
        """Stops at once."""
        self.process.kill()
        self.process.wait(30)


class Reader:
    """Reads a topic."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self.kafka, self.topic = kafka, topic

    async def consumer(self) -> tuple[AIOKafkaConsumer, list[TopicPartition]]:
        """A consumer of all partitions."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka.address, enable_auto_commit=False, auto_offset_reset="earliest")
        await consumer.start()
        await consumer._client.add_topic(self.topic)  # otherwise it does not know the partitions yet
        partitions = [TopicPartition(self.topic, number) for number in sorted(consumer.partitions_for_topic(self.topic) or set())]
        consumer.assign(partitions)
        return consumer, partitions

    async def progress(self, records: int, seconds: float) -> list[tuple[float, int]]:
        """Times and numbers of records, until there are that many."""
        consumer, partitions = await self.consumer()
        samples: list[tuple[float, int]] = []
        end = time.time() + seconds
        try:
            while time.time() < end:
                count = sum((await consumer.end_offsets(partitions)).values())
                samples.append((time.time(), count))
                if count >= records:
                    return samples
                await asyncio.sleep(0.1)
        finally:
            await consumer.stop()
        raise TimeoutError(f"only {samples[-1]} of {records} records after {seconds} s")

    async def latencies(self) -> list[tuple[float, float, str]]:
        """Of each record: when its row was written, how long until the append in seconds, and its key."""
        consumer, partitions = await self.consumer()
        found: list[tuple[float, float, str]] = []
        try:
            missing = sum((await consumer.end_offsets(partitions)).values())
            while missing > 0:
                for records in (await consumer.getmany(timeout_ms=1000)).values():
                    missing -= len(records)
                    found += [latency(record) for record in records]
        finally:
            await consumer.stop()
        return sorted(found)


def latency(record: object) -> tuple[float, float, str]:
    """When a record's row was written, how long until its append, and its key."""
    from datetime import datetime

    created = datetime.fromisoformat(dict(record.headers)["outbox_created_at"].decode()).timestamp()
    return created, record.timestamp / 1000 - created, record.key.decode()


class Servers:
    """PostgreSQL and Kafka in a folder that is removed at the end."""

    def __init__(self, programs: Path, relay: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="outbox-scale-"))
        self.folder.chmod(0o755)
        self.relay = relay
        self.databases = 0
        self.postgres = Postgres(programs, self.folder)
        try:
            self.kafka = Kafka(programs, self.folder)
        except BaseException:
            self.postgres.stop()
            raise

    def manifest(self, database: str, topic: str) -> Path:
        """Writes the manifest of an OutboxRelay."""
        path = self.folder / f"{database}.yaml"
        path.write_text(MANIFEST.format(kafka=self.kafka.address, topic=topic, url=self.postgres.url(database)))
        return path

    def outbox(self, topic: str) -> tuple[str, Path]:
        """A new database with an outbox, and its manifest."""
        self.databases += 1
        database = f"outbox_{self.databases}"
        self.postgres.psql("postgres", f"create database {database}")
        manifest = self.manifest(database, topic)
        subprocess.run([self.relay, "migrate", "--manifest", manifest], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return database, manifest

    def stop(self) -> None:
        """Stops both and removes the folder."""
        self.postgres.stop()
        self.kafka.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
