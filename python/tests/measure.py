"""Prints what reading one record of 64 bytes costs, each payload looked at: single calls, polls of 64 by record and by column, and into a buffer.
Medians of five rounds, each the best of five tries, and how far they spread. Not a test: it measures."""

import os
import time

import lapwing

PATH = f"/dev/shm/lapwing-measure-{os.getpid()}"
RECORDS = 1 << 15


def measure(read):
    best = float("inf")
    for _ in range(5):
        with lapwing.Writer.create(PATH, capacity=16 << 20, existing=lapwing.REPLACE) as writer:
            with lapwing.Reader(PATH) as reader:
                for _ in range(RECORDS):
                    writer.publish(b"x" * 64)
                start = time.perf_counter()
                read(reader)
                best = min(best, time.perf_counter() - start)
    return best / RECORDS * 1e9


def single(reader):
    for _ in range(RECORDS):
        if len(reader.next(0).data) != 64:
            raise SystemExit("a record of another length came")


def poll(reader):
    seen = 0
    while seen < RECORDS:
        for record in reader.poll(64, 0):
            seen += len(record.data) // 64


def payloads(reader):
    seen = 0
    while seen < RECORDS:
        for data in reader.poll(64, 0).payloads:
            seen += len(data) // 64


def columns(reader):
    seen = 0
    while seen < RECORDS:
        batch = reader.poll(64, 0)
        for _sequence, _tag, data in zip(batch.sequences, batch.tags, batch.payloads):
            seen += len(data) // 64


def poll_into(reader):
    buffer = bytearray(64 * 64)
    seen = 0
    while seen < RECORDS:
        seen += len(reader.poll_into(buffer, 64, 0))


def poll_into_and_look(reader):
    buffer = bytearray(64 * 64)
    seen = 0
    while seen < RECORDS:
        for data in reader.poll_into(buffer, 64, 0).payloads:
            seen += len(data) // 64


WAYS = (
    ("next(0)", single),
    ("poll(64), its records", poll),
    ("poll(64), its payloads", payloads),
    ("poll(64), sequences, tags, payloads", columns),
    ("poll_into, its payloads", poll_into_and_look),
    ("poll_into, not looked at", poll_into),
)
rounds = [[measure(read) for _, read in WAYS] for _ in range(5)]
for at, (name, _) in enumerate(WAYS):
    cost, times = (sorted(of(round) for round in rounds) for of in (lambda round: round[at], lambda round: round[0] / round[at]))
    print(f"{name:36} {cost[2]:6.0f} ns a record, {times[2]:5.1f} times as fast as next(0) ({times[0]:.1f} to {times[-1]:.1f})")
lapwing.remove(PATH)
