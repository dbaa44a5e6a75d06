"""interop.py write PATH WHICH COUNT END | interop.py read PATH: the Python side of the matrix; see ffi/tests/interop.rs."""

import sys
from zlib import adler32

import lapwing

POOL = bytes((i * i >> 4) & 255 for i in range(8192))
WORD = (1 << 64) - 1


def fold(total, data):
    return (total * 33 + adler32(data) + len(data)) & WORD


def write(path, which, count, end):
    writer = lapwing.Writer.standby(path)
    writer.wait()
    state, total = which, 0
    for i in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) & WORD
        random = state >> 33
        data = POOL[random % 4096 : random % 4096 + (random >> 12) % 300]
        total = fold(total, data)
        if i % 2:
            writer.publish(data, which)
        else:
            writer.publish_batch([(data, which)])
    print(which, count, total)
    if end:
        writer.close()
    else:
        writer.abandon()


def read(path):
    reader = lapwing.Reader(path)
    print("attached", flush=True)
    totals, counts, following = [0] * 16, [0] * 16, 0
    while True:
        try:
            for record in reader:
                assert record.sequence == following
                following += 1
                tag = record.tag % 16
                totals[tag] = fold(totals[tag], record.data)
                counts[tag] += 1
            break
        except lapwing.Absent:
            continue
    for tag in range(16):
        if counts[tag]:
            print(tag, counts[tag], totals[tag])


if sys.argv[1] == "write":
    write(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "end")
else:
    read(sys.argv[2])
