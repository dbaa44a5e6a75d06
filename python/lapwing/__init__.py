"""lapwing: a broadcast bus between the processes of one machine. One writer, many readers, no event lost in silence.

    import lapwing

    with lapwing.Writer.create("/dev/shm/hello") as writer, lapwing.Reader("/dev/shm/hello") as reader:
        writer.publish(b"hello", tag=7)
        print(reader.next())  # Record(sequence=0, tag=7, stamp_ns=0, data=b'hello')

What a bus is and promises stands in lapwing.h. Here loss is an exception that carries the gap (`Missed`, `Evicted`), so it cannot be
overlooked; the reader goes on behind it. A handle is used by one thread at a time; a call that waits lets other threads run.
"""

import ctypes
import os
import struct
import time
from ctypes import byref
from typing import NamedTuple, Optional

from . import _abi
from ._abi import Status, lib

__version__ = lib.lapwing_version().decode()

# Existing buses, classes, starts, waits: numbers of lapwing.h.
REFUSE, OPEN, REPLACE = 0, 1, 2
GATING, LOSSY, PINNED, OBSERVER = 1, 2, 3, 4
LATEST, OLDEST, AFTER, SINCE, RESUME = 0, 1, 2, 3, 4
PARK, YIELD, SPIN = 0, 1, 2

_STAMPED, _NO_PINNED, _PREFAULT, _LOCK_MEMORY, _GROUP, _MANUAL_COMMIT, _HOLD = 1, 2, 4, 8, 16, 32, 64
#: Longest time in one call of the library, so that signals (Ctrl-C) are seen.
_TURN = 0.1
#: What `Record(...)` does, without the call of a Python function.
_new = tuple.__new__
_RECORD = struct.Struct("=QQQQII")
assert _RECORD.size == ctypes.sizeof(_abi.Record)


class Record(NamedTuple):
    """A record: `data` is bytes of its own, or a view of the buffer it was read into."""

    sequence: int
    tag: int
    stamp_ns: int
    data: bytes


class Gap(NamedTuple):
    """Sequences missed: from `first` up to, but not including, `end`."""

    first: int
    end: int

    @property
    def count(self):
        return self.end - self.first


class Closed(NamedTuple):
    """How a stream ended."""

    sequence: int
    epoch: int
    code: int
    reason: str


class ReaderInfo(NamedTuple):
    """A registered reader as seen at one moment."""

    id: int
    name: Optional[str]
    pid: int
    reader_class: int
    state: str
    alive: bool
    evictable: bool
    lag_records: int
    lag_bytes: int
    delivered: int
    missed: int
    pending: int


class Error(Exception):
    """A call failed. `status` is its number, `name` the number's name."""

    def __init__(self, status, text=None):
        self.status = status
        self.name = lib.lapwing_status_name(status).decode()
        super().__init__(text or f"{self.name}: {lib.lapwing_last_error().decode(errors='replace')}")


class WouldOverrun(Error):
    """Readers are in the way; nothing was published. `sequence` is the record's, `readers` says who they are."""

    def __init__(self, sequence, readers):
        self.sequence = sequence
        self.readers = readers
        who = ", ".join(f"{reader.name or reader.id} ({reader.lag_records} records behind)" for reader in readers)
        super().__init__(Status.WOULD_OVERRUN, f"record {sequence} would overrun {who}")


class Missed(Error):
    """Records were missed: `gap` says which. The reader goes on with the record at the gap's end."""

    def __init__(self, gap, status=Status.GAP):
        self.gap = gap
        super().__init__(status, f"missed {gap.count} records, from {gap.first} up to {gap.end}")


class Evicted(Missed):
    """The reader was evicted, and has missed `gap` so far. It goes on after `rejoin`."""

    def __init__(self, gap):
        super().__init__(gap, Status.EVICTED)


class EndOfStream(Error):
    """The writer closed the stream: `closed` says how. A later call waits for the next writer."""

    def __init__(self, closed):
        self.closed = closed
        super().__init__(Status.CLOSED, f"closed at {closed.sequence}: code {closed.code} {closed.reason}".rstrip())


class Absent(Error):
    """No writer lives, and the stream was not closed. Told once; a later call waits for the next writer."""


class Replaced(Error):
    """The bus was created anew, removed or moved, and nothing more comes here: open it again."""


_STATES = {1: "joining", 2: "active", 3: "evicted", 4: "detached"}


def _check(status):
    if status < 0:
        raise Error(status)
    return status


def _path(path):
    return os.fsencode(path)


def _ns(seconds):
    return -1 if seconds is None else max(0, min(int(seconds * 1e9), 2**63 - 1))


def _reader(info):
    return ReaderInfo(
        info.id,
        info.name.decode() or None,
        info.pid,
        info.reader_class,
        _STATES.get(info.state, "unknown"),
        bool(info.flags & 1),
        bool(info.flags & 2),
        info.lag_records,
        info.lag_bytes,
        info.delivered,
        info.missed,
        info.pending,
    )


def _infos(call):
    """Calls with arrays of growing size until all fit."""
    capacity = 16
    while True:
        infos = (_abi.ReaderInfo * capacity)()
        infos[0].size = ctypes.sizeof(_abi.ReaderInfo)
        count = ctypes.c_size_t()
        if _check(call(infos, capacity, byref(count))) != Status.TRUNCATED:
            return [_reader(info) for info in infos[: count.value]]
        capacity = count.value + 16


def _bytes_of(data):
    """Address and length of bytes-like data, and what keeps them alive."""
    if isinstance(data, bytes):
        return data, len(data), data
    view = memoryview(data).cast("B")
    if view.readonly:
        copy = bytes(view)
        return copy, len(copy), copy
    if not view.nbytes:
        return None, 0, view
    array = (ctypes.c_char * view.nbytes).from_buffer(view)
    return ctypes.addressof(array), view.nbytes, array


class _Handle:
    """What writers and readers share: a pointer that is closed once."""

    def __init__(self):
        self._raw = ctypes.c_void_p()

    def __del__(self):
        if getattr(self, "_raw", None):
            self._let_go()


class Claim:
    """A record being written in place: `view` is its bytes, until `commit` or `abort`."""

    def __init__(self, writer, address, length):
        self._writer = writer
        self.view = memoryview((ctypes.c_ubyte * length).from_address(address)).cast("B") if length else memoryview(bytearray())

    def _done(self):
        self.view.release()
        self._writer = None

    def commit(self, length=None):
        """Publishes the first `length` bytes, by default all; returns the sequence."""
        if self._writer is None:
            raise Error(Status.E_STATE, "the claim is done with")
        sequence = ctypes.c_uint64()
        wanted = len(self.view) if length is None else length
        _check(lib.lapwing_writer_commit(self._writer._raw, wanted, byref(sequence)))
        self._done()
        return sequence.value

    def abort(self):
        """Gives it up; harmless after a commit."""
        if self._writer is not None:
            lib.lapwing_writer_abort(self._writer._raw)
            self._done()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.abort()


class Writer(_Handle):
    """The writer of a bus. As a context manager it ends the stream, unless an exception passes: then it lets go, as a crash would."""

    def __init__(self, path):
        """Opens a bus, going on where the last writer stopped or died."""
        super().__init__()
        self._opened(lib.lapwing_writer_open(_path(path), byref(self._raw)))

    def _opened(self, status):
        _check(status)
        self._sequence = ctypes.c_uint64()

    @classmethod
    def create(cls, path, *, existing=REFUSE, capacity=0, readers=0, mode=0, group=None, schema=0, stamped=False,
               max_age=0, pinned=True, prefault=False, lock_memory=False):
        """Creates a bus. Sizes of zero are the defaults; `max_age` is in seconds."""
        flags = (
            (_STAMPED if stamped else 0) | (0 if pinned else _NO_PINNED) | (_PREFAULT if prefault else 0)
            | (_LOCK_MEMORY if lock_memory else 0) | (0 if group is None else _GROUP)
        )
        options = _abi.WriterOptions(existing=existing, capacity=capacity, readers=readers, mode=mode, schema=schema,
                                     max_age_ns=int(max_age * 1e9), flags=flags, group=group or 0)
        writer = cls.__new__(cls)
        _Handle.__init__(writer)
        writer._opened(lib.lapwing_writer_create(_path(path), byref(options), byref(writer._raw)))
        return writer

    @classmethod
    def standby(cls, path):
        """Waits until the bus has no writer, then becomes it."""
        writer = cls.__new__(cls)
        _Handle.__init__(writer)
        writer._opened(lib.lapwing_writer_standby(_path(path), byref(writer._raw)))
        return writer

    def _published(self, status):
        if status == Status.OK:
            return self._sequence.value
        if status == Status.WOULD_OVERRUN:
            raise WouldOverrun(*self.overrun())
        raise Error(status)

    def publish(self, data, tag=0):
        """Publishes bytes, under the standing policy; returns the sequence. Raises `WouldOverrun`."""
        address, length, _keep = _bytes_of(data)
        return self._published(lib.lapwing_writer_publish(self._raw, tag, address, length, byref(self._sequence)))

    def try_publish(self, data, tag=0):
        """The same, refusing whatever the policy."""
        address, length, _keep = _bytes_of(data)
        return self._published(lib.lapwing_writer_try_publish(self._raw, tag, address, length, byref(self._sequence)))

    def publish_vectored(self, parts, tag=0):
        """Publishes several pieces as one record; returns the sequence."""
        found = [_bytes_of(part) for part in parts]
        slices = (_abi.Slice * len(found))()
        for to, (address, length, _keep) in zip(slices, found):
            to.data, to.length = ctypes.cast(address, ctypes.c_void_p), length
        return self._published(
            lib.lapwing_writer_publish_vectored(self._raw, tag, slices, len(found), byref(self._sequence))
        )

    def publish_batch(self, records):
        """Publishes records that become visible together, each bytes or (bytes, tag); returns the first one's sequence."""
        found = [(*_bytes_of(record[0]), record[1]) if isinstance(record, tuple) else (*_bytes_of(record), 0)
                 for record in records]
        messages = (_abi.Message * len(found))()
        for to, (address, length, _keep, tag) in zip(messages, found):
            to.data, to.length, to.tag = ctypes.cast(address, ctypes.c_void_p), length, tag
        return self._published(lib.lapwing_writer_publish_batch(self._raw, messages, len(found), byref(self._sequence)))

    def claim(self, length, tag=0):
        """Claims room for a record, to be written in place: a context manager that gives it up unless it was committed."""
        data = ctypes.c_void_p()
        status = lib.lapwing_writer_claim(self._raw, tag, length, byref(data))
        if status != Status.OK:
            self._published(status)
        return Claim(self, data.value, length)

    def refuse(self):
        """From now on publishing raises `WouldOverrun` if readers are in the way; the default."""
        _check(lib.lapwing_writer_set_policy(self._raw, 0, 0))

    def wait(self, seconds=None):
        """From now on publishing waits for readers in the way, at most so long per record."""
        _check(lib.lapwing_writer_set_policy(self._raw, 1, _ns(seconds)))

    def evict_slow(self):
        """From now on publishing evicts readers in the way."""
        _check(lib.lapwing_writer_set_policy(self._raw, 2, 0))

    def overrun(self):
        """Sequence of the record refused last, and the readers in its way, the slowest first."""
        report = _abi.Overrun()
        readers = _infos(lambda *array: lib.lapwing_writer_get_overrun(self._raw, byref(report), *array))
        return report.sequence, readers

    def readers(self):
        """Every registered reader."""
        return _infos(lambda *array: lib.lapwing_writer_list_readers(self._raw, *array))

    def evict(self, reader):
        """Evicts a reader by its id; false if it was evicted already."""
        return _check(lib.lapwing_writer_evict(self._raw, reader)) == Status.OK

    def reap(self):
        """Reclaims the slots of dead readers, and says whose they were."""
        return _infos(lambda *array: lib.lapwing_writer_reap(self._raw, *array))

    def wait_for_readers(self, seconds=None):
        """Waits until every living gating reader has read everything; false when the time is out."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = _TURN if deadline is None else max(0.0, min(_TURN, deadline - time.monotonic()))
            if _check(lib.lapwing_writer_wait_for_readers(self._raw, _ns(left))) == Status.OK:
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False

    @property
    def info(self):
        """lapwing_writer_info: next_sequence, resumed_at, epoch, capacity, max_record, stats."""
        info = _abi.WriterInfo()
        _check(lib.lapwing_writer_describe(self._raw, byref(info)))
        return info

    def close(self, code=0, reason=""):
        """Ends the stream; harmless when closed."""
        _check(lib.lapwing_writer_close(byref(self._raw), code, reason.encode()))

    def abandon(self):
        """Lets go without ending the stream; harmless when closed."""
        _check(lib.lapwing_writer_abandon(byref(self._raw)))

    def _let_go(self):
        lib.lapwing_writer_abandon(byref(self._raw))

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is None:
            self.close()
        else:
            self.abandon()


class Batch:
    """The records of one `poll_into`: an iterable of `Record`, each with a view of the buffer. The next poll on the reader ends it."""

    __slots__ = ("_records", "_count", "_view", "_base")

    def __init__(self, records, count, view, base):
        self._records, self._count, self._view, self._base = records, count, view, base

    def __len__(self):
        return self._count

    def __iter__(self):
        view, base = self._view, self._base
        for data, length, sequence, stamp, tag, _ in _RECORD.iter_unpack(self._records[: self._count * _RECORD.size]):
            at = data - base
            yield _new(Record, (sequence, tag, stamp, view[at : at + length]))


class Reader(_Handle):
    """A reader of a bus, registered or an observer. Iterating over it gives records until the writer closes the stream."""

    def __init__(self, path, *, reader_class=GATING, start=LATEST, start_at=0, name=None, wait=PARK, manual_commit=False,
                 hold_while_away=False, hold_for=0, schema=0, filter=(0, 0), prefault=False, lock_memory=False):
        """Attaches. `start_at` is a sequence or nanoseconds since 1970, `hold_for` seconds, `filter` mask and value of the tag."""
        super().__init__()
        flags = (
            (_MANUAL_COMMIT if manual_commit else 0) | (_HOLD if hold_while_away else 0) | (_PREFAULT if prefault else 0)
            | (_LOCK_MEMORY if lock_memory else 0)
        )
        options = _abi.ReaderOptions(
            reader_class=reader_class, start=start, start_at=start_at, name=None if name is None else name.encode(),
            wait=wait, flags=flags, hold_ns=int(hold_for * 1e9), schema=schema, filter_mask=filter[0], filter_value=filter[1],
        )
        _check(lib.lapwing_reader_open(_path(path), byref(options), byref(self._raw)))
        self._record = _abi.Record()
        self._count = ctypes.c_size_t()
        self._records = None
        self._room = 0
        self._buffer = None

    def _other(self, status):
        """Raises what came in place of a record; None if it was nothing."""
        if status == Status.EMPTY:
            return
        if status in (Status.GAP, Status.EVICTED):
            gap = _abi.Gap()
            _check(lib.lapwing_reader_get_gap(self._raw, byref(gap)))
            raise (Missed if status == Status.GAP else Evicted)(Gap(gap.first, gap.end))
        if status == Status.CLOSED:
            raise EndOfStream(self.closed)
        if status == Status.ABSENT:
            raise Absent(status, "no writer lives, and the stream is not closed")
        if status in (Status.REPLACED, Status.ORPHANED):
            raise Replaced(status, "the bus was replaced or moved: open it again")
        raise Error(status)

    def _wait(self, timeout, call):
        """Calls in turns, so that signals are seen, until there is something or the time is out."""
        status = call(_ns(min(timeout, _TURN) if timeout is not None else _TURN))
        if status != Status.EMPTY or (timeout is not None and timeout <= _TURN):
            return status
        deadline = None if timeout is None else time.monotonic() + timeout - _TURN
        while status == Status.EMPTY:
            left = _TURN if deadline is None else min(_TURN, deadline - time.monotonic())
            if left <= 0:
                break
            status = call(_ns(left))
        return status

    def next(self, timeout=None):
        """The next record, or None when the time (seconds) is out. Raises `Missed`, `Evicted`, `EndOfStream`, `Absent`, `Replaced`."""
        record = self._record
        if timeout == 0:
            status = lib.lapwing_reader_next(self._raw, 0, byref(record))
        else:
            status = self._wait(timeout, lambda ns: lib.lapwing_reader_next(self._raw, ns, byref(record)))
        if status == Status.OK:
            length = record.length
            data = ctypes.string_at(record.data, length) if length else b""
            return Record(record.sequence, record.tag, record.stamp_ns, data)
        return self._other(status)

    def _poll(self, address, size, most, timeout):
        if self._room < most:
            self._records, self._room = ctypes.create_string_buffer(most * _RECORD.size), most
        call = lib.lapwing_reader_poll
        if timeout == 0:
            return call(self._raw, 0, self._records, most, address, size, byref(self._count))
        return self._wait(timeout, lambda ns: call(self._raw, ns, self._records, most, address, size, byref(self._count)))

    def poll(self, most=64, timeout=None):
        """Up to `most` records as a list, waiting for the first; empty when the time is out. One call of the library for all."""
        if self._buffer is None:
            self._buffer = ctypes.create_string_buffer(1 << 16)
        while True:
            base = ctypes.addressof(self._buffer)
            status = self._poll(self._buffer, len(self._buffer), most, timeout)
            if status == Status.OK:
                records = memoryview(self._records)[: self._count.value * _RECORD.size]
                data = bytes(memoryview(self._buffer)[: self._used(base)])
                return [
                    _new(Record, (sequence, tag, stamp, data[at - base : at - base + length]))
                    for at, length, sequence, stamp, tag, _ in _RECORD.iter_unpack(records)
                ]
            if status != Status.E_TOO_SMALL:
                self._other(status)
                return []
            length = _abi.Record.from_buffer(self._records).length
            self._buffer = ctypes.create_string_buffer(1 << (length + 8).bit_length())

    def _used(self, base):
        """Bytes of the buffer up to the end of the last record."""
        last = _RECORD.unpack_from(self._records, (self._count.value - 1) * _RECORD.size)
        return last[0] + last[1] - base

    def poll_into(self, buffer, most=64, timeout=None):
        """As `poll`, with the payloads copied into a writable buffer of the caller's. Returns a `Batch`, empty when the time is out.
        Raises `Error` with E_TOO_SMALL if not even the next record fits; it then stays the next one."""
        view = memoryview(buffer).cast("B")
        array = (ctypes.c_char * len(view)).from_buffer(view)
        base = ctypes.addressof(array)
        status = self._poll(array, len(view), most, timeout)
        if status != Status.OK:
            self._other(status)
            return Batch(memoryview(b""), 0, view, base)
        return Batch(memoryview(self._records), self._count.value, view, base)

    def __iter__(self):
        """Records until the end of the stream, in batches. Raises `Missed`, `Evicted`, `Absent`, `Replaced`; iterate again to go on.
        Records are committed when all of their batch were taken."""
        while True:
            try:
                yield from self.poll()
            except EndOfStream:
                return

    def commit(self):
        """Says that everything handed out is done with."""
        _check(lib.lapwing_reader_commit(self._raw))

    def rejoin(self, start=RESUME, start_at=0):
        """Goes on elsewhere, after an eviction or to seek; returns what is skipped."""
        gap = _abi.Gap()
        _check(lib.lapwing_reader_rejoin(self._raw, start, start_at, byref(gap)))
        return Gap(gap.first, gap.end)

    @property
    def closed(self):
        """How the stream ended that `EndOfStream` told of."""
        closed = _abi.Closed()
        _check(lib.lapwing_reader_get_closed(self._raw, byref(closed)))
        return Closed(closed.sequence, closed.epoch, closed.code, closed.reason.decode())

    @property
    def info(self):
        """This reader as the table shows it."""
        info = _abi.ReaderInfo()
        _check(lib.lapwing_reader_describe(self._raw, byref(info)))
        return _reader(info)

    @property
    def position(self):
        """lapwing_position: next_sequence, start_sequence, epoch, max_record, writer_alive."""
        position = _abi.Position()
        _check(lib.lapwing_reader_get_position(self._raw, byref(position)))
        return position

    def fileno(self):
        """A descriptor for select, selectors and asyncio: readable when it is worth calling `next(0)` or `poll(timeout=0)` until there is
        nothing more."""
        fd = ctypes.c_int()
        _check(lib.lapwing_reader_get_fd(self._raw, byref(fd)))
        return fd.value

    def close(self):
        """Leaves; harmless when closed. Commits nothing."""
        _check(lib.lapwing_reader_close(byref(self._raw)))

    def _let_go(self):
        lib.lapwing_reader_close(byref(self._raw))

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close()


def inspect(path):
    """lapwing_snapshot of a bus, and its readers."""
    snapshot = _abi.Snapshot()
    readers = _infos(lambda *array: lib.lapwing_bus_inspect(_path(path), byref(snapshot), *array))
    return snapshot, readers


def evict(path, reader):
    """Evicts a reader by its id; false if it was evicted already."""
    return _check(lib.lapwing_bus_evict(_path(path), reader)) == Status.OK


def forget(path, name):
    """Forgets the name of a reader that is away."""
    _check(lib.lapwing_bus_forget(_path(path), name.encode()))


def remove(path):
    """Removes a bus that has no living writer."""
    _check(lib.lapwing_bus_remove(_path(path)))
