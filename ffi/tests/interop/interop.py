"""interop.py write PATH WHICH COUNT END | read PATH | tell PATH CLASS NAME | hold PATH: the Python side of the matrix and the stories; see
ffi/tests/interop.rs."""

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


def tell(path, reader_class, name):
    """A reader that does what each line of its input says, and tells what came of it."""
    named = {"name": name, "start": lapwing.RESUME, "hold_while_away": True} if name else {}
    reader = lapwing.Reader(path, reader_class=lapwing.LOSSY if reader_class == "lossy" else lapwing.GATING, **named)
    print("attached", flush=True)
    for line in sys.stdin:
        try:
            if line == "rejoin\n":
                print("rejoined", *reader.rejoin(lapwing.OLDEST), flush=True)
            else:
                print("record", reader.next(30).sequence, flush=True)
        except lapwing.Evicted as evicted:
            print("evicted", *evicted.gap, flush=True)
        except lapwing.Missed as missed:
            print("gap", *missed.gap, flush=True)
    reader.close()


def hold(path):
    """A writer that takes over, and publishes each line of its input."""
    writer = lapwing.Writer.standby(path)
    print("writer", writer.info.resumed_at, flush=True)
    for line in sys.stdin:
        print("published", writer.publish(line.encode()), flush=True)
    writer.abandon()


what, *arguments = sys.argv[1:]
if what == "write":
    write(arguments[0], int(arguments[1]), int(arguments[2]), arguments[3] == "end")
else:
    {"read": read, "tell": tell, "hold": hold}[what](*arguments)
