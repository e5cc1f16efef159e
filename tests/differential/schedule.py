"""Which faults come when, from a seed. Pure."""

import random
from dataclasses import dataclass

# Seconds that each kind of fault lasts, from and to. A repair takes longer where a server starts.
SECONDS = {
    "kill": (0.5, 2.0),
    "deploy": (2.0, 5.0),
    "broker-stopped": (1.0, 8.0),
    "broker-killed": (0.0, 1.0),
    "kafka-down": (15.0, 25.0),
    "kafka-cut": (0.5, 4.0),
    "kafka-answers-lost": (0.5, 3.0),
    "database-cut": (0.5, 4.0),
    "database-answers-lost": (0.5, 3.0),
    "postgres-killed": (0.0, 1.0),
}
# What a repair takes: a broker or PostgreSQL starts, an old worker ends.
REPAIR_SECONDS = {"kafka-down": 8.0, "broker-killed": 8.0, "postgres-killed": 2.0, "deploy": 2.0}
WORKER_KINDS = ("deploy", "kill")
SERVER_KINDS = tuple(kind for kind in sorted(SECONDS) if kind not in WORKER_KINDS)
# Pauses between faults of one stream.
SERVER_PAUSE_SECONDS = (1.0, 4.0)
WORKER_PAUSE_SECONDS = (5.0, 15.0)


@dataclass(frozen=True)
class Fault:
    """A fault: when it begins, in seconds of the run, how long it lasts, which worker it hits."""

    at: float
    kind: str
    seconds: float
    # From 0 to 1: a part of the list of running workers.
    target: float


def stream(draw, kinds, pause, seconds):
    """Faults one after the other. Each kind comes once before any comes again."""
    faults, deck, at = [], [], draw.uniform(*pause)
    while True:
        if not deck:
            deck = list(kinds)
            draw.shuffle(deck)
        kind = deck.pop()
        fault = Fault(
            round(at, 2), kind, round(draw.uniform(*SECONDS[kind]), 2), round(draw.random(), 3)
        )
        at += fault.seconds + REPAIR_SECONDS.get(kind, 0.0) + draw.uniform(*pause)
        if at > seconds:
            return faults
        faults.append(fault)


def schedule(seed, seconds):
    """Returns two streams, which may overlap: faults of servers and network, and of workers."""
    draw = random.Random(seed)
    return [
        stream(draw, SERVER_KINDS, SERVER_PAUSE_SECONDS, seconds),
        stream(draw, WORKER_KINDS, WORKER_PAUSE_SECONDS, seconds),
    ]
