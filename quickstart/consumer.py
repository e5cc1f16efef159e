#!/usr/bin/env python3
"""The consumer of the quickstart, and its judge.

  consumer.py read FOLDER KEY   lines of kcat on stdin: notes when each came, prints those of one key
  consumer.py reached FOLDER    exit code 0 if the newest committed event of each key was read
  consumer.py judge FOLDER      compares what was committed with what was read; exit code 1: a promise was broken

FOLDER has files with tabs between the columns: committed.tsv (key, version), which is the service's own
table; records.tsv (when, partition, offset, key, payload), which `read` writes; disturbed.tsv (from, to), the
times when something was broken or began. Times are in seconds since 1970.
"""

import json
import sys
import time
from collections import namedtuple
from pathlib import Path

Record = namedtuple("Record", "arrived key version written")
Verdict = namedtuple("Verdict", "lost reordered duplicates uncommitted")


def judge(committed, records):
    """Compares the newest version of each key, from 1 on, with the records in the order they came."""
    lost = reordered = duplicates = uncommitted = 0
    seen, newest = set(), {}
    for record in records:
        event = (record.key, record.version)
        if event in seen:
            duplicates += 1
            continue
        seen.add(event)
        if not 1 <= record.version <= committed.get(record.key, 0):
            uncommitted += 1
        elif record.version < newest.get(record.key, 0):
            reordered += 1
        newest[record.key] = max(record.version, newest.get(record.key, 0))
    for key, version in committed.items():
        lost += sum((key, number) not in seen for number in range(1, version + 1))
    return Verdict(lost, reordered, duplicates, uncommitted)


def waits(records, disturbed):
    """The seconds from INSERT to consumer of each event: those that nothing disturbed, and all."""
    first = {}
    for record in records:
        first.setdefault((record.key, record.version), record)
    every = [record.arrived - record.written for record in first.values() if record.version]
    quiet = [
        record.arrived - record.written
        for record in first.values()
        if record.version and not any(start <= record.written <= end for start, end in disturbed)
    ]
    return sorted(quiet), sorted(every)


def quantile(values, share):
    """The smallest of the sorted values that this share of them does not exceed."""
    return values[max(0, -(-len(values) * share // 100) - 1)] if values else float("nan")


def duration(seconds):
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def rows(folder, name):
    path = Path(folder) / name
    text = path.read_text() if path.exists() else ""
    # The last line may still be on its way.
    return [line.split("\t") for line in text[: text.rfind("\n") + 1].splitlines()]


def event_of(payload):
    """Version and time of writing; a payload that nobody wrote has the version 0."""
    try:
        event = json.loads(payload)
        return int(event["version"]), float(event["written"])
    except (ValueError, KeyError, TypeError):
        return 0, float("nan")


def load(folder):
    committed = {key: int(version) for key, version in rows(folder, "committed.tsv")}
    records = []
    for arrived, _partition, _offset, key, payload in rows(folder, "records.tsv"):
        records.append(Record(float(arrived), key, *event_of(payload)))
    return committed, records


def read(folder, shown):
    with open(Path(folder) / "records.tsv", "a", buffering=1) as file:
        for line in sys.stdin:
            arrived = time.time()
            file.write(f"{arrived:.6f}\t{line}")
            partition, offset, key, payload = line.rstrip("\n").split("\t")
            if key == shown:
                wait = duration(arrived - event_of(payload)[1])
                print(f"     partition {partition}, offset {offset}: {key} {payload}  after {wait}", flush=True)


def reached(folder):
    committed, records = load(folder)
    newest = {}
    for record in records:
        newest[record.key] = max(record.version, newest.get(record.key, 0))
    return bool(committed) and all(newest.get(key, 0) >= version for key, version in committed.items())


def report(folder):
    committed, records = load(folder)
    verdict = judge(committed, records)
    disturbed = [(float(start), float(end)) for start, end in rows(folder, "disturbed.tsv")]
    quiet, every = waits(records, disturbed)
    figures = [
        ("committed", f"{sum(committed.values()):,}", f"events of {len(committed)} keys"),
        ("read from Kafka", f"{len(records):,}", "records"),
        ("lost", f"{verdict.lost:,}", ""),
        ("reordered", f"{verdict.reordered:,}", ""),
        ("never committed", f"{verdict.uncommitted:,}", ""),
        ("duplicates", f"{verdict.duplicates:,}", "a fault may cause some; consumers drop them by the header outbox_seq"),
        ("p50", duration(quantile(quiet, 50)), f"from INSERT to the consumer, of the {len(quiet):,} events"),
        ("p99", duration(quantile(quiet, 99)), "that were written while nothing was broken or just began"),
        ("longest wait", duration(every[-1] if every else float("nan")), "of all events, through both faults"),
    ]
    for name, value, remark in figures:
        print(f"   {name:<16} {value:>9}   {remark}".rstrip())
    return committed != {} and verdict.lost + verdict.reordered + verdict.uncommitted == 0


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    answer = {"read": read, "reached": reached, "judge": report}[command](*arguments)
    sys.exit(0 if answer in (True, None) else 1)
