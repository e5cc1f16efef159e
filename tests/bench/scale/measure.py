"""Relays that share one outbox, and many idle outboxes: called by tests/bench/scale/run, which says how."""

import argparse
import asyncio
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from processes import Relay, Tree, connections, machine_idle_seconds, stop_all, wait_until
from servers import Reader, Servers

PAYLOAD = "x" * 300
OWNERS = "select count(distinct owner), coalesce(max(lanes) - min(lanes), 99) from (select owner, count(*) as lanes from outbox.lane where owner is not null group by owner) as owners"
ALL_OWNED = "select not exists (select from outbox.lane where owner is null)"
EARLIER = 0.5  # seconds before a step, whose rows may wait because of it
running: list[Relay] = []


def numbers(text: str) -> list[int]:
    """A list such as 1,2,4."""
    return [int(part) for part in text.split(",")]


def quantile(values: list[float], q: float) -> float:
    """A quantile of some values."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * q), len(ordered) - 1)] if ordered else float("nan")


def start_relays(servers: Servers, manifest: Path, count: int, cores: float | None) -> None:
    """Starts relays of one outbox."""
    for _ in range(count):
        running.append(Relay(servers.relay, manifest, servers.folder / "relays.log", cores))


def wait_for_lanes(servers: Servers, database: str, relays: int) -> None:
    """Waits until each relay has its share of the lanes."""

    def are_shared() -> bool:
        owners, difference = servers.postgres.psql(database, OWNERS).split("|")
        return int(owners) == relays and int(difference) <= 1 and servers.postgres.psql(database, ALL_OWNED) == "t"

    wait_until(f"{relays} relays share the lanes", 60, are_shared, 0.5)


class Drain:
    """Rows a second out of a backlog, by the number of relays."""

    def __init__(self, servers: Servers, arguments: argparse.Namespace) -> None:
        self.servers, self.arguments = servers, arguments
        self.rates: dict[int, list[float]] = {}

    def run(self) -> None:
        """Measures all numbers of relays, in each round."""
        cap, partitions = self.arguments.cap, self.arguments.partitions
        print(f"\nA backlog; each relay is held to {cap} cores; {partitions} partitions; {len(PAYLOAD)} B; settings are defaults")
        print("| relays | rows | rows/s | steady rows/s | of one relay x relays | CPU us a row | PostgreSQL's | Kafka's | throttled periods | cores idle |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for _ in range(self.arguments.rounds):
            for relays in self.arguments.relays:
                self.measure(relays)
        first = statistics.median(self.rates[self.arguments.relays[0]]) / self.arguments.relays[0]
        for relays, rates in self.rates.items():
            rate = statistics.median(rates)
            print(f"median: {relays} relays {rate:,.0f} rows/s, {rate / first:.2f} times one, {rate / first / relays:.2f} per relay")

    def measure(self, relays: int) -> None:
        """Fills a new outbox in one transaction, and lets relays drain it that share its lanes already."""
        servers, rows = self.servers, self.arguments.rows * relays
        postgres = servers.postgres
        topic = servers.kafka.create_topic(self.arguments.partitions)
        database, manifest = servers.outbox(topic)
        self.start(database, manifest, relays)
        postgres.psql(database, self.fill(topic, rows))
        began, before = time.time(), self.usage()
        samples = asyncio.run(Reader(servers.kafka, topic).progress(rows, 180))
        after = self.usage()
        self.print_row(relays, rows, began, samples, [late - early for early, late in zip(before, after, strict=True)])
        stop_all(running)
        postgres.psql("postgres", f"drop database {database} with (force)")

    def start(self, database: str, manifest: Path, relays: int) -> None:
        """Starts relays, and waits until they share the lanes and their producers are connected."""
        start_relays(self.servers, manifest, relays, self.arguments.cap)
        wait_for_lanes(self.servers, database, relays)
        time.sleep(2)

    def fill(self, topic: str, rows: int) -> str:
        """One transaction with all rows, so that no relay sees a row before the last one is there."""
        return f"""set synchronous_commit = off; insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
            select 'bench', 'key-' || n % 10007, 'BenchEvent', '{topic}', convert_to('{PAYLOAD}', 'UTF8') from generate_series(1, {rows}) as n"""

    def usage(self) -> list[float]:
        """CPU seconds of relays, PostgreSQL and Kafka; idle seconds; throttled periods."""
        throttled = sum(relay.cgroup.throttled()[1] for relay in running)
        relays = sum(relay.tree.cpu_seconds() for relay in running)
        return [relays, self.servers.postgres.tree.cpu_seconds(), self.servers.kafka.tree.cpu_seconds(), machine_idle_seconds(), throttled, time.time()]

    def print_row(self, relays: int, rows: int, began: float, samples: list[tuple[float, int]], used: list[float]) -> None:
        """One line of the table."""
        seconds = samples[-1][0] - began
        rate = rows / seconds
        self.rates.setdefault(relays, []).append(rate)
        # Without the first records, which go alone, and without lanes that are empty earlier than others.
        middle = [sample for sample in samples if 0.15 * rows <= sample[1] <= 0.85 * rows]
        steady = (middle[-1][1] - middle[0][1]) / (middle[-1][0] - middle[0][0]) if len(middle) > 1 else float("nan")
        cpu, postgres, kafka = (value * 1e6 / rows for value in used[:3])
        one = statistics.median(self.rates[self.arguments.relays[0]]) / self.arguments.relays[0] * relays
        print(f"| {relays} | {rows:,} | {rate:,.0f} | {steady:,.0f} | {rate / one:.2f} | {cpu:.1f} | {postgres:.1f} | {kafka:.1f} | {used[4] / used[5] / relays / 10:.2f} | {used[3] / used[5]:.2f} |", flush=True)


class Handover:
    """How long a key waits when relays join, leave and are killed while rows are written."""

    def __init__(self, servers: Servers, arguments: argparse.Namespace) -> None:
        self.servers, self.arguments = servers, arguments
        self.windows: dict[str, list[tuple[float, float]]] = {}
        self.latencies: list[tuple[float, float, str]] = []

    def run(self) -> None:
        """Writes at a steady rate, changes the relays, and reads back how long rows took."""
        servers, arguments = self.servers, self.arguments
        topic = servers.kafka.create_topic(arguments.partitions)
        self.database, self.manifest = servers.outbox(topic)
        script = servers.folder / "write.sql"
        script.write_text(f"""\\set key random(0, 999)
            select outbox.enqueue('bench', 'key-' || :key, 'BenchEvent', '\\x{PAYLOAD.encode().hex()}'::bytea, '{topic}');""")
        steps = [*([("join", 0), ("join", 1), ("SIGTERM", 2), ("SIGTERM", 1)] * arguments.rounds), ("join", 0), ("kill -9", 1), ("join", 0)]
        pauses = {"kill -9": 30.0}
        self.start(1)
        writer = servers.postgres.write(self.database, script, arguments.rate, 24 + sum(pauses.get(name, arguments.pause) for name, _ in steps))
        time.sleep(3)
        self.window("nothing", 10)
        for name, extra in steps:
            self.step(name)
            self.window(self.title(name, extra), pauses.get(name, arguments.pause))
        writer.wait()
        wait_until("all rows are published", 60, lambda: servers.postgres.psql(self.database, "select not exists (select from outbox.event)") == "t")
        self.latencies = asyncio.run(Reader(servers.kafka, topic).latencies())
        stop_all(running)
        self.print_table()

    def title(self, name: str, extra: int) -> str:
        """Name of a window: how many relays there are before and after."""
        before = extra + 1
        return f"{name}: {before} -> {before + (1 if name == 'join' else -1)}"

    def start(self, relays: int) -> None:
        start_relays(self.servers, self.manifest, relays, self.arguments.cap)
        wait_for_lanes(self.servers, self.database, relays)

    def step(self, name: str) -> None:
        """Changes the relays; the oldest one leaves."""
        if name == "join":
            start_relays(self.servers, self.manifest, 1, self.arguments.cap)
        else:
            running[0].signal(signal.SIGKILL if name == "kill -9" else signal.SIGTERM)

    def window(self, title: str, seconds: float) -> None:
        """Notes that all rows of some time belong to a step, those from shortly before it included."""
        began = time.time() - EARLIER
        time.sleep(seconds)
        self.windows.setdefault(title, []).append((began, began + seconds))
        for relay in [relay for relay in running if relay.process.poll() is not None]:
            relay.wait()
            running.remove(relay)

    def print_table(self) -> None:
        """Latencies by step."""
        print(f"\n{self.arguments.rate} rows/s over {self.arguments.partitions} partitions; each relay is held to {self.arguments.cap or 'no'} cores; created_at to append, ms")
        print("| step | times | rows | p50 | p99 | longest | longest of each time | keys that waited over 0.5 s |")
        print("|---|---|---|---|---|---|---|---|")
        for title, windows in self.windows.items():
            each = [[(latency * 1000, key) for created, latency, key in self.latencies if began <= created < end] for began, end in windows]
            values = [latency for window in each for latency, _ in window]
            longest = ", ".join(f"{max(latency for latency, _ in window):,.0f}" for window in each)
            late = max(len({key for latency, key in window if latency > 500}) for window in each)
            print(f"| {title} | {len(windows)} | {len(values):,} | {quantile(values, 0.5):.1f} | {quantile(values, 0.99):,.0f} | {max(values):,.0f} | {longest} | {late} |", flush=True)


class Idle:
    """What idle relays cost PostgreSQL and Kafka, by the number of outboxes."""

    def __init__(self, servers: Servers, arguments: argparse.Namespace) -> None:
        self.servers, self.arguments = servers, arguments
        self.points: list[dict[str, float]] = []

    def run(self) -> None:
        """Adds outboxes, each a database with its relays, and measures at each number."""
        servers, arguments = self.servers, self.arguments
        topic = servers.kafka.create_topic(arguments.partitions)
        template, _ = servers.outbox(topic)
        print(f"\nIdle; {arguments.replicas} relays of each outbox, a database each; {arguments.partitions} partitions; over {arguments.seconds} s")
        print("| outboxes | relays | relays' cores | RSS of a relay, MiB | PSS, MiB | PostgreSQL's cores | connections | transactions/s | PSS, MiB | WAL kB/s | flushes/s | Kafka's cores | connections | cores idle |")
        print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
        self.measure(0)
        outboxes = 0
        for wanted in arguments.outboxes:
            for outboxes in range(outboxes, wanted):
                database = f"idle_{outboxes}"
                servers.postgres.psql("postgres", f"create database {database} template {template} strategy wal_log")
                start_relays(servers, servers.manifest(database, topic), arguments.replicas, None)
            outboxes = wanted
            for number in range(wanted):
                wait_until(f"the lanes of outbox {number} are owned", 120, lambda: servers.postgres.psql(f"idle_{number}", ALL_OWNED) == "t", 1)
            time.sleep(20)
            self.measure(wanted)
        stop_all(running)
        self.extrapolate()

    def measure(self, outboxes: int) -> None:
        """Measures for a while, and prints a line."""
        servers = self.servers
        before, began = self.counters(), time.monotonic()
        time.sleep(self.arguments.seconds)
        after, seconds = self.counters(), time.monotonic() - began
        rate = {name: (after[name] - before[name]) / seconds for name in after}
        count = max(len(running), 1)
        sample = running[:: max(len(running) // 10, 1)]
        point = rate | {
            "relays": len(running),
            "rss": sum(relay.tree.memory_mib("Rss") for relay in sample) / max(len(sample), 1),
            "pss": sum(relay.tree.memory_mib("Pss") for relay in running) / count,
            "backends": servers.postgres.backends(),
            "memory": servers.postgres.tree.memory_mib("Pss"),
            "sockets": connections(servers.kafka.port),
        }
        self.points.append(point)
        print(
            f"| {outboxes} | {len(running)} | {point['relays_cpu']:.3f} | {point['rss']:.1f} | {point['pss']:.1f} | {point['postgres']:.3f} | {point['backends']} |"
            f" {point['transactions']:,.0f} | {point['memory']:,.0f} | {point['wal'] / 1000:,.1f} | {point['flushes']:,.1f} | {point['kafka']:.3f} | {point['sockets']} | {point['idle']:.2f} |",
            flush=True,
        )

    def counters(self) -> dict[str, float]:
        """What only grows."""
        servers = self.servers
        wal, flushes = servers.postgres.wal()
        return {
            "relays_cpu": sum(relay.tree.cpu_seconds() for relay in running),
            "postgres": servers.postgres.tree.cpu_seconds(),
            "kafka": servers.kafka.tree.cpu_seconds(),
            "transactions": servers.postgres.transactions(),
            "wal": wal,
            "flushes": flushes,
            "idle": machine_idle_seconds(),
        }

    def extrapolate(self) -> None:
        """A line through the first point and the last one, up to 1,000 relays."""
        first, last = self.points[0], self.points[-1]
        print("\nOf each relay, and 1,000 relays on the line through the first and the last point:")
        for name, unit in {"relays_cpu": "cores of relays", "postgres": "cores of PostgreSQL", "backends": "connections of PostgreSQL", "transactions": "transactions/s", "memory": "MiB of PostgreSQL", "wal": "bytes of WAL a second", "flushes": "flushes a second", "kafka": "cores of Kafka", "sockets": "connections of Kafka"}.items():
            slope = (last[name] - first[name]) / (last["relays"] - first["relays"])
            print(f"{unit:28} {slope:12.5f} {first[name] + slope * 1000:14,.2f}")


class One:
    """Memory, threads and connections of one relay, by partitions: idle, and after a backlog."""

    def __init__(self, servers: Servers, arguments: argparse.Namespace) -> None:
        self.servers, self.arguments = servers, arguments

    def run(self) -> None:
        """Measures each number of partitions."""
        print("\nOne relay; RSS in MiB after a backlog is its highest")
        print("| partitions | payload | RSS idle | threads | connections to Kafka | to PostgreSQL | RSS after a backlog | connections to PostgreSQL then |")
        print("|---|---|---|---|---|---|---|---|")
        for partitions in self.arguments.partition_counts:
            for payload in self.arguments.payloads:
                self.measure(partitions, payload)

    def measure(self, partitions: int, payload: int) -> None:
        """Measures one relay."""
        servers = self.servers
        topic = servers.kafka.create_topic(partitions)
        database, manifest = servers.outbox(topic)
        start_relays(servers, manifest, 1, None)
        wait_for_lanes(servers, database, 1)
        time.sleep(5)
        tree, before = running[0].tree, self.connections(servers)
        idle, threads = tree.memory_mib("Rss"), tree.threads()
        rows = min(200_000, 200_000_000 // payload)
        servers.postgres.psql(database, f"""insert into outbox.event (aggregate_type, aggregate_id, event_type, topic, payload)
            select 'bench', 'key-' || n % 10007, 'BenchEvent', '{topic}', convert_to((select string_agg(md5(n::text || m), '') from generate_series(0, {payload} / 32) as m), 'UTF8')
            from generate_series(1, {rows}) as n""")
        asyncio.run(Reader(servers.kafka, topic).progress(rows, 120))
        peak = next(int(line.split()[1]) / 1024 for line in Path(f"/proc/{tree.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        after = self.connections(servers)
        print(f"| {partitions:,} | {payload:,} | {idle:.1f} | {threads} | {before[1]} | {before[0]} | {peak:.1f} | {after[0]} |", flush=True)
        stop_all(running)
        servers.postgres.psql("postgres", f"drop database {database} with (force)")

    def connections(self, servers: Servers) -> tuple[int, int]:
        """Connections of PostgreSQL and of Kafka."""
        return servers.postgres.backends(), connections(servers.kafka.port)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--relay", type=Path, required=True)
    parser.add_argument("what", choices=["all", "drain", "handover", "idle", "one"])
    parser.add_argument("--cap", type=float, help="cores of each relay; drain: 0.05, handover: none")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--relays", type=numbers, default=[1, 2, 4, 8])
    parser.add_argument("--rows", type=int, default=60_000, help="rows of a backlog for each relay")
    parser.add_argument("--partitions", type=int, default=12)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--pause", type=float, default=8.0, help="seconds after each step of handover")
    parser.add_argument("--outboxes", type=numbers, default=[10, 25, 50])
    parser.add_argument("--replicas", type=int, default=2, help="idle relays of each outbox")
    parser.add_argument("--seconds", type=float, default=30.0, help="for which each number of idle relays is measured")
    parser.add_argument("--partition-counts", type=numbers, default=[3, 12, 120, 1200])
    parser.add_argument("--payloads", type=numbers, default=[300, 10_000])
    return parser.parse_args()


def conditions(servers: Servers) -> None:
    """Prints where the figures come from."""
    model = next(line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    print(f"{time.strftime('%F %H:%M')}, {revision}, {len(Path('/proc/cpuinfo').read_text().split('processor')) - 1} cores ({model}), fsync on, one broker, cgroup v{2 if Path('/sys/fs/cgroup/cgroup.controllers').exists() else 1}")
    print(servers.postgres.psql("postgres", "select version()"))


def main() -> None:
    options = arguments()
    servers = Servers(options.programs, options.relay)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    try:
        conditions(servers)
        parts = {"drain": Drain, "handover": Handover, "idle": Idle, "one": One}
        for name, part in parts.items():
            if options.what in ("all", name):
                chosen = argparse.Namespace(**vars(options))
                if name == "drain" and chosen.cap is None:
                    chosen.cap = 0.05
                part(servers, chosen).run()
    except Exception:
        log = servers.folder / "relays.log"
        print("".join(log.read_text().splitlines(keepends=True)[-20:]) if log.exists() else "no relay has started", file=sys.stderr)
        raise
    finally:
        stop_all(running)
        servers.stop()


main()
