"""Sends records as a relay does, through aiokafka, which puts all ready partitions of a broker into one request.

The options and the figures are those of the program's `client`.
"""

import argparse
import asyncio
import json
import os
import time

import uvloop
from aiokafka import AIOKafkaProducer

FETCH_SECONDS = 0.005

options = argparse.ArgumentParser()
options.add_argument("--kafka")
options.add_argument("--topics", type=lambda text: text.split(","))
for name in ["--partitions", "--rate", "--warm-up", "--seconds", "--bytes"]:
    options.add_argument(name, type=int)
options = options.parse_args()


def place(number):
    mixed = ((number ^ (number >> 7)) * 0x9E3779B97F4A7C15) % 2**64
    return divmod((mixed >> 33) % (len(options.topics) * options.partitions), options.partitions)


def quantile(values, q):
    return values[max(-(-int(len(values) * q * 1000) // 1000), 1) - 1] if values else None


def rss_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


async def main():
    producer = AIOKafkaProducer(
        bootstrap_servers=options.kafka, acks="all", enable_idempotence=True, linger_ms=0, max_batch_size=1_000_000, compression_type="lz4"
    )
    await producer.start()
    text = (b"a1" * options.bytes)[: options.bytes]
    latencies, waiting = [], set()
    began = time.monotonic()
    measured_from, end = began + options.warm_up, began + options.warm_up + options.seconds
    sent, cpu, next_fetch = 0, None, began

    def acknowledged(future, since):
        waiting.discard(future)
        future.result()
        if since >= measured_from:
            latencies.append((time.monotonic() - since) * 1000)

    while (now := time.monotonic()) < end:
        if cpu is None and now >= measured_from:
            cpu = time.process_time()
        due = int((now - began) * options.rate)
        for number in range(sent, due):
            topic, partition = place(number)
            since = time.monotonic()
            future = await producer.send(options.topics[topic], text, key=b"key-%d" % number, partition=partition)
            waiting.add(future)
            future.add_done_callback(lambda future, since=since: acknowledged(future, since))
        sent = due
        next_fetch += FETCH_SECONDS
        await asyncio.sleep(max(next_fetch - time.monotonic(), 0))
    cpu = time.process_time() - cpu
    rss = rss_mib()
    await producer.stop()
    latencies.sort()
    print(
        json.dumps(
            {
                "rows_per_second": len(latencies) / options.seconds,
                "p50_ms": quantile(latencies, 0.5),
                "p99_ms": quantile(latencies, 0.99),
                "cores": cpu / options.seconds,
                "rss_mib": rss,
            }
        )
    )
    os._exit(0)


uvloop.run(main())
