"""Judges the results of the three ways, prints the table, and writes the page.

report.py FOLDER [--page FILE] [--spoil lost|reordered|id]. The exit code is 1 if OutboxRelay broke
a promise.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from string import Template

from checker import Record, Row, broken_promises, count, gaps

WAYS = {
    "platform": "polling worker with circuit breaker",
    "skip-locked": "two workers with SKIP LOCKED",
    "outbox-relay": "OutboxRelay, two relays",
}
COLUMNS = ("way", "faults", "committed", "lost", "reordered", "duplicates", "with another event_id")
# What breaks, and how the page describes it.
KINDS = {
    "kill": "a worker or relay: kill -9, starts again after 0.5 to 2 s",
    "deploy": "deployment: each worker or relay is replaced, old and new overlap for 2 to 5 s",
    "broker-stopped": "broker: SIGSTOP for 1 to 8 s",
    "broker-killed": "broker: kill -9, starts again within a second",
    "kafka-down": "broker: kill -9, starts again after 15 to 25 s",
    "kafka-cut": "connections to Kafka: aborted, and refused for 0.5 to 4 s",
    "kafka-answers-lost": "connections to Kafka: answers lost for 0.5 to 3 s, then aborted",
    "database-cut": "connections to PostgreSQL: aborted, and refused for 0.5 to 4 s",
    "database-answers-lost": "connections to PostgreSQL: answers lost for 0.5 to 3 s, then aborted",
    "postgres-killed": "PostgreSQL: kill -9, starts again within a second",
}


def spoil(result, how):
    """Plants a defect in a result, to show that it turns the verdict."""
    rows = {row: (key, revision) for row, key, revision in result["rows"]}
    records = result["records"]
    match how:
        case "lost":
            row = records[len(records) // 2][0]
            result["records"] = [record for record in records if record[0] != row]
        case "reordered":
            first = len(records) // 2
            key = rows[records[first][0]][0]
            second = next(
                place
                for place in range(first + 1, len(records))
                if rows[records[place][0]][0] == key and records[place][0] != records[first][0]
            )
            records[first], records[second] = records[second], records[first]
        case "id":
            records.append((records[0][0], "00000000-0000-0000-0000-000000000001"))


def judge(result):
    """Counts, and what is wrong with the run itself."""
    rows = [Row(*row) for row in result["rows"]]
    counts = count(rows, [Record(*record) for record in result["records"]])
    last = Counter()
    for row in rows:
        last[row.key] = max(last[row.key], row.revision)
    # Both must agree: the rows of the table, and the services' own count.
    is_whole = not gaps(rows) and dict(last) == result["revisions"]
    return counts, [] if is_whole else ["rows of event_outbox are missing: the run proves nothing"]


def table(results, counted):
    """One line a way, absolute and per 1,000 faults."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * (len(COLUMNS) - 1)]
    for way, counts in counted.items():
        faults = len(results[way]["faults"])

        def shown(number, faults=faults):
            return f"{number:,} ({number / faults * 1000:,.0f})" if faults else f"{number:,}"

        figures = [counts.lost, counts.reordered, counts.duplicates, counts.other_id]
        cells = [WAYS[way], str(faults), f"{counts.committed:,}", *map(shown, figures)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def until_published(result):
    seconds = result["seconds_until_published"]
    return "not within 180 s" if seconds is None else f"{seconds} s"


def twice(result):
    """Rows with several records."""
    return sum(number > 1 for number in Counter(row for row, _ in result["records"]).values())


def page(results, counted):
    relay = results["outbox-relay"]
    times = Counter(fault["kind"] for fault in relay["faults"])
    template = Template(Path(__file__).with_name("page.template").read_text())
    return template.substitute(
        relay["conditions"],
        table=table(results, counted),
        faults="\n".join(f"| {text} | {times[kind]} |" for kind, text in KINDS.items()),
        date=relay["date"],
        seed=relay["seed"],
        seconds=relay["seconds"],
        given_up=results["platform"]["gave_up"],
        after_platform=until_published(results["platform"]),
        after_locked=until_published(results["skip-locked"]),
        after_relay=until_published(relay),
        twice=f"{twice(relay):,}",
        committed=f"{counted['outbox-relay'].committed:,}",
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--spoil", choices=["lost", "reordered", "id"])
    arguments = parser.parse_args()
    results = {
        way: json.loads((arguments.folder / way / "result.json").read_text()) for way in WAYS
    }
    if arguments.spoil:
        spoil(results["outbox-relay"], arguments.spoil)
    counted, broken = {}, []
    for way, result in results.items():
        counted[way], defects = judge(result)
        broken += [f"{way}: {defect}" for defect in defects]
    broken += [f"outbox-relay: {text}" for text in broken_promises(counted["outbox-relay"])]
    print(table(results, counted))
    has_faults = all(result["faults"] for result in results.values())
    if has_faults and not broken and arguments.page and not arguments.spoil:
        arguments.page.write_text(page(results, counted))
        print(f"written: {arguments.page}")
    for text in broken:
        print(f"BAD  {text}")
    print("BAD" if broken else "ok   OutboxRelay lost nothing and kept the order of each key")
    sys.exit(bool(broken))


main()
