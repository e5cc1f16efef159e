"""Compares what was committed with what Kafka has. Pure."""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Row:
    """A committed row: its identity, its key, and the revision of its key, from 1 without gaps."""

    id: str
    key: str
    revision: int


@dataclass(frozen=True)
class Record:
    """A record in Kafka, in the order of its partition."""

    row: str
    event_id: str


@dataclass(frozen=True)
class Counts:
    """What a way did to the rows of a run."""

    committed: int
    # Rows without a record.
    lost: int
    # Rows whose first record came after that of a later revision of their key.
    reordered: int
    # Records after the first one of their row.
    duplicates: int
    # Duplicates whose event_id differs from that of the first record of their row.
    other_id: int
    # Records of rows that were not committed.
    uncommitted: int


def count(rows, records):
    """Counts over committed rows and over records, those of one partition in their order."""
    by_id = {row.id: row for row in rows}
    event_ids, latest = {}, {}
    reordered = duplicates = other_id = uncommitted = 0
    for record in records:
        row = by_id.get(record.row)
        if row is None:
            uncommitted += 1
        elif record.row in event_ids:
            duplicates += 1
            other_id += record.event_id != event_ids[record.row]
        else:
            event_ids[record.row] = record.event_id
            reordered += row.revision < latest.get(row.key, 0)
            latest[row.key] = max(row.revision, latest.get(row.key, 0))
    return Counts(
        len(by_id), len(by_id) - len(event_ids), reordered, duplicates, other_id, uncommitted
    )


def gaps(rows):
    """Keys whose revisions are not 1, 2, 3 and so on: then the run itself is at fault."""
    revisions = {}
    for row in rows:
        revisions.setdefault(row.key, []).append(row.revision)
    return sorted(
        key
        for key, of_key in revisions.items()
        if any(after != before + 1 for before, after in pairwise([0, *sorted(of_key)]))
    )


def broken_promises(counts):
    """What OutboxRelay promises and `counts` contradicts, as sentences. Duplicates are allowed."""
    claims = [
        (counts.committed == 0, "no row was committed: the run proves nothing"),
        (counts.lost, f"{counts.lost} committed rows have no record"),
        (counts.reordered, f"{counts.reordered} rows came after a later revision of their key"),
        (counts.other_id, f"{counts.other_id} duplicates have another event_id"),
        (counts.uncommitted, f"{counts.uncommitted} records are of rows that were not committed"),
    ]
    return [text for is_broken, text in claims if is_broken]
