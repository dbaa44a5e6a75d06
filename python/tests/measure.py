"""Prints what reading one record of 64 bytes costs: single calls, polls of 64, polls of 64 into a buffer. Not a test: it measures."""

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
        assert reader.next(0) is not None


def poll(reader):
    seen = 0
    while seen < RECORDS:
        seen += len(reader.poll(64, 0))


def poll_into(reader):
    buffer = bytearray(64 * 64)
    seen = 0
    while seen < RECORDS:
        seen += len(reader.poll_into(buffer, 64, 0))


def poll_into_and_look(reader):
    buffer = bytearray(64 * 64)
    seen = 0
    while seen < RECORDS:
        for record in reader.poll_into(buffer, 64, 0):
            seen += len(record.data) // 64


one = measure(single)
for name, read in (("single calls", single), ("poll of 64", poll), ("poll_into of 64", poll_into),
                   ("... each looked at", poll_into_and_look)):
    cost = measure(read)
    print(f"{name:18} {cost:7.0f} ns a record, {one / cost:5.1f} times as fast as single calls")
lapwing.remove(PATH)
