"""lapwing: a broadcast bus between the processes of one machine. One writer, many readers, no event lost in silence.

    import lapwing

    with lapwing.Writer.create("/dev/shm/hello") as writer, lapwing.Reader("/dev/shm/hello") as reader:
        writer.publish(b"hello", tag=7)
        print(reader.next())  # Record(sequence=0, tag=7, stamp_ns=0, data=b'hello')

What a bus is and promises stands in lapwing.h. Here loss is an exception that carries the gap (`Missed`, `Evicted`), so it cannot be
overlooked; the reader goes on behind it. A handle is used by one thread at a time; a call that waits lets other threads run.
"""

import ctypes
import functools
import os
import struct
import time
from collections.abc import Sequence
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
_RECORD = struct.Struct("=QQQQII")
_WORDS = _RECORD.size // 8
#: Where a record's payload starts, and its length.
_ENDS = struct.Struct("=QQ")
assert _RECORD.size == ctypes.sizeof(_abi.Record)


class Record(NamedTuple):
    """A record: `data` is bytes of its own, or a view of the buffer it was read into."""

    sequence: int
    tag: int
    stamp_ns: int
    data: bytes


#: Makes a record of a tuple, without the call of a Python function.
_record = functools.partial(tuple.__new__, Record)


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


def _text(text):
    if b"\0" in text:
        raise ValueError("embedded null byte")
    return text


def _path(path):
    return _text(os.fsencode(path))


def _ns(seconds):
    return -1 if seconds is None else int(max(0, min(seconds * 1e9, 2**63 - 1)))


def _unsigned(number, bits=64):
    """The number, since ctypes would cut it short in silence."""
    if number >> bits:
        raise OverflowError(f"{number} is not a number of {bits} bits without a sign")
    return number


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
        _check(lib.lapwing_writer_commit(self._writer._raw, _unsigned(wanted), byref(sequence)))
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
                                     max_age_ns=_ns(max_age), flags=flags, group=group or 0)
        writer = cls.__new__(cls)
        _Handle.__init__(writer)
        writer._opened(lib.lapwing_writer_create(_path(path), byref(options), byref(writer._raw)))
        return writer

    @classmethod
    def standby(cls, path):
        """Waits until the bus has no writer, then becomes it. A signal handler that raises ends the wait (Ctrl-C does, in the main thread)."""
        writer = cls.__new__(cls)
        _Handle.__init__(writer)
        status = Status.INTERRUPTED
        while status == Status.INTERRUPTED:
            # Between two calls Python runs the handlers of signals.
            status = lib.lapwing_writer_standby(_path(path), byref(writer._raw))
        writer._opened(status)
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
        return self._published(lib.lapwing_writer_publish(self._raw, _unsigned(tag, 32), address, length, byref(self._sequence)))

    def try_publish(self, data, tag=0):
        """The same, refusing whatever the policy."""
        address, length, _keep = _bytes_of(data)
        return self._published(lib.lapwing_writer_try_publish(self._raw, _unsigned(tag, 32), address, length, byref(self._sequence)))

    def publish_vectored(self, parts, tag=0):
        """Publishes several pieces as one record; returns the sequence."""
        found = [_bytes_of(part) for part in parts]
        slices = (_abi.Slice * len(found))()
        for to, (address, length, _keep) in zip(slices, found):
            to.data, to.length = ctypes.cast(address, ctypes.c_void_p), length
        return self._published(
            lib.lapwing_writer_publish_vectored(self._raw, _unsigned(tag, 32), slices, len(found), byref(self._sequence))
        )

    def publish_batch(self, records):
        """Publishes records that become visible together, each bytes or (bytes, tag); returns the first one's sequence."""
        found = [(*_bytes_of(record[0]), record[1]) if isinstance(record, tuple) else (*_bytes_of(record), 0)
                 for record in records]
        messages = (_abi.Message * len(found))()
        for to, (address, length, _keep, tag) in zip(messages, found):
            to.data, to.length, to.tag = ctypes.cast(address, ctypes.c_void_p), length, _unsigned(tag, 32)
        return self._published(lib.lapwing_writer_publish_batch(self._raw, messages, len(found), byref(self._sequence)))

    def claim(self, length, tag=0):
        """Claims room for a record, to be written in place: a context manager that gives it up unless it was committed."""
        data = ctypes.c_void_p()
        status = lib.lapwing_writer_claim(self._raw, _unsigned(tag, 32), _unsigned(length), byref(data))
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
        return _check(lib.lapwing_writer_evict(self._raw, _unsigned(reader))) == Status.OK

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


@functools.lru_cache(maxsize=256)
def _alike(length, count):
    """Takes `count` payloads of one length apart, each of which starts at a multiple of 8."""
    return struct.Struct(f"{length}s{-length % 8}x" * (count - 1) + f"{length}s").unpack_from


class Batch(Sequence):
    """The records of one poll, a sequence of `Record`. What is wanted of all of them is had fastest by column: `payloads`, `sequences`, `tags`,
    `stamps_ns`. That of a `poll` is a copy of its own; that of a `poll_into` has views of the buffer, and the reader's next poll ends it."""

    __slots__ = ("_table", "_words", "_data", "_base")

    def __init__(self, table, data, base):
        self._table, self._words, self._data, self._base = table, table.cast("Q"), data, base

    def __len__(self):
        return len(self._words) // _WORDS

    @property
    def payloads(self):
        """Each record's bytes (or view of the buffer), as a list."""
        words, data, base = self._words, self._data, self._base
        lengths = words[1::_WORDS].tolist()
        count = len(lengths)
        if count and type(data) is bytes and lengths == lengths[:1] * count:
            length = lengths[0]
            if words[-_WORDS] - words[0] == (count - 1) * (length + -length % 8):
                return list(_alike(length, count)(data, words[0] - base))
        return [data[at - base : at - base + length] for at, length in zip(words[0::_WORDS].tolist(), lengths)]

    @property
    def sequences(self):
        """Each record's sequence, as a list."""
        return self._words[2::_WORDS].tolist()

    @property
    def stamps_ns(self):
        """When each record was published, in nanoseconds since 1970 (0 on a bus without time stamps), as a list."""
        return self._words[3::_WORDS].tolist()

    @property
    def tags(self):
        """Each record's tag, as a list."""
        return self._table.cast("I")[8 :: 2 * _WORDS].tolist()

    def __iter__(self):
        return map(_record, zip(self.sequences, self.tags, self.stamps_ns, self.payloads))

    def __getitem__(self, at):
        if isinstance(at, slice):
            return list(self)[at]
        at = range(len(self))[at]
        address, length, sequence, stamp, tag, _ = _RECORD.unpack_from(self._table, at * _RECORD.size)
        start = address - self._base
        return Record(sequence, tag, stamp, self._data[start : start + length])

    def __repr__(self):
        return f"Batch({list(self)!r})"


_NOTHING = Batch(memoryview(b""), b"", 0)


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
            reader_class=reader_class, start=start, start_at=start_at, name=None if name is None else _text(name.encode()),
            wait=wait, flags=flags, hold_ns=_ns(hold_for), schema=schema, filter_mask=filter[0], filter_value=filter[1],
        )
        _check(lib.lapwing_reader_open(_path(path), byref(options), byref(self._raw)))
        self._record = _abi.Record()
        self._count = ctypes.c_size_t()
        self._count_ref = byref(self._count)
        self._records = self._table = None
        self._room = 0
        self._buffer = self._bytes = None

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
        if not 0 < most <= 1 << 20:
            raise ValueError(f"most is {most}, not 1 to {1 << 20}")
        if self._room < most:
            self._records, self._room = ctypes.create_string_buffer(most * _RECORD.size), most
            self._table = memoryview(self._records).cast("B")
        call = lib.lapwing_reader_poll
        if timeout == 0:
            return call(self._raw, 0, self._records, most, address, size, self._count_ref)
        return self._wait(timeout, lambda ns: call(self._raw, ns, self._records, most, address, size, self._count_ref))

    def _make_room(self, size):
        self._buffer = ctypes.create_string_buffer(size)
        self._bytes = memoryview(self._buffer).cast("B")

    def poll(self, most=64, timeout=None):
        """Up to `most` records as a `Batch`, waiting for the first; empty when the time is out. One call of the library for all."""
        if self._buffer is None:
            self._make_room(1 << 16)
        while True:
            base = ctypes.addressof(self._buffer)
            status = self._poll(self._buffer, len(self._bytes), most, timeout)
            if status == Status.OK:
                size = self._count.value * _RECORD.size
                address, length = _ENDS.unpack_from(self._table, size - _RECORD.size)
                data = bytes(self._bytes[: address + length - base])
                return Batch(memoryview(bytes(self._table[:size])), data, base)
            if status != Status.E_TOO_SMALL:
                self._other(status)
                return _NOTHING
            length = _abi.Record.from_buffer(self._records).length
            self._make_room(1 << (length + 8).bit_length())

    def poll_into(self, buffer, most=64, timeout=None):
        """As `poll`, with the payloads copied into a writable buffer of the caller's. Returns a `Batch`, empty when the time is out.
        Raises `Error` with E_TOO_SMALL if not even the next record fits; it then stays the next one."""
        view = memoryview(buffer).cast("B")
        array = (ctypes.c_char * len(view)).from_buffer(view)
        base = ctypes.addressof(array)
        status = self._poll(array, len(view), most, timeout)
        if status != Status.OK:
            self._other(status)
            return _NOTHING
        return Batch(self._table[: self._count.value * _RECORD.size], view, base)

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
        _check(lib.lapwing_reader_rejoin(self._raw, _unsigned(start, 32), _unsigned(start_at), byref(gap)))
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
    return _check(lib.lapwing_bus_evict(_path(path), _unsigned(reader))) == Status.OK


def forget(path, name):
    """Forgets the name of a reader that is away."""
    _check(lib.lapwing_bus_forget(_path(path), _text(name.encode())))


def remove(path):
    """Removes a bus that has no living writer."""
    _check(lib.lapwing_bus_remove(_path(path)))


def install_guard():
    """Makes an `Error` (E_FILE_TRUNCATED) of a file that shrinks while it is mapped, in place of the process's death by SIGBUS. For good; see
    lapwing_guard_install. `faulthandler`, if it is used, has to be enabled before."""
    _check(lib.lapwing_guard_install())
