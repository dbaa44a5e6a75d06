"""lapwing.h in ctypes: constants, structs, prototypes. A test compares it with the header."""

import ctypes
import os
from ctypes import POINTER, c_char, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

__all__ = ["lib", "Status"]


def _load():
    given = os.environ.get("LAPWING_LIBRARY")
    names = [given] if given else ["liblapwing.so.0", "liblapwing.so"]
    failures = []
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            failures.append(str(error))
    raise ImportError(
        "liblapwing was not found; install it, or let LAPWING_LIBRARY say where it is: " + "; ".join(failures)
    )


class Status:
    """What calls return."""

    OK = 0
    EMPTY = 1
    GAP = 2
    EVICTED = 3
    CLOSED = 4
    ABSENT = 5
    REPLACED = 6
    ORPHANED = 7
    WOULD_OVERRUN = 8
    TIMEOUT = 9
    ALREADY = 10
    TRUNCATED = 11
    INTERRUPTED = 12
    E_NULL = -1
    E_HANDLE = -2
    E_FORKED = -3
    E_BUSY = -4
    E_STATE = -5
    E_SIZE = -6
    E_ARGUMENT = -7
    E_TOO_SMALL = -8
    E_PANIC = -9
    E_OTHER = -10
    E_NOT_FOUND = -20
    E_NOT_READY = -21
    E_ALREADY_EXISTS = -22
    E_WRITER_BUSY = -23
    E_NOT_A_BUS = -24
    E_INCOMPATIBLE = -25
    E_CORRUPT = -26
    E_INVALID_OPTION = -27
    E_TABLE_FULL = -28
    E_NAME_TAKEN = -29
    E_NAME_UNKNOWN = -30
    E_NO_SUCH_READER = -31
    E_NOT_EVICTABLE = -32
    E_PINNED_FORBIDDEN = -33
    E_FUTURE_SEQUENCE = -34
    E_PERMISSION = -35
    E_NO_SPACE = -36
    E_UNSUPPORTED = -37
    E_IO = -38
    E_TOO_LARGE = -39
    E_EXHAUSTED = -40
    E_FILE_TRUNCATED = -41


class _Struct(ctypes.Structure):
    """A struct of the header; one that begins with its size has it set."""

    def __init__(self, **values):
        super().__init__(**values)
        for field, value in values.items():
            # ctypes cuts numbers short in silence.
            if isinstance(value, int) and getattr(self, field) != value:
                raise OverflowError(f"{field} cannot be {value}")
        if self._fields_[0][0] == "size":
            self.size = ctypes.sizeof(self)


class Slice(_Struct):
    _fields_ = [("data", c_void_p), ("length", c_size_t)]


class Message(_Struct):
    _fields_ = [("data", c_void_p), ("length", c_size_t), ("tag", c_uint32), ("reserved", c_uint32)]


class Record(_Struct):
    _fields_ = [
        ("data", c_void_p),
        ("length", c_size_t),
        ("sequence", c_uint64),
        ("stamp_ns", c_uint64),
        ("tag", c_uint32),
        ("reserved", c_uint32),
    ]


class Gap(_Struct):
    _fields_ = [("first", c_uint64), ("end", c_uint64)]


class WriterOptions(_Struct):
    _fields_ = [
        ("size", c_uint32),
        ("existing", c_uint32),
        ("capacity", c_uint64),
        ("readers", c_uint32),
        ("mode", c_uint32),
        ("schema", c_uint64),
        ("max_age_ns", c_uint64),
        ("flags", c_uint32),
        ("group", c_uint32),
    ]


class ReaderOptions(_Struct):
    _fields_ = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("reader_class", c_uint32),
        ("wait", c_uint32),
        ("start", c_uint32),
        ("reserved", c_uint32),
        ("start_at", c_uint64),
        ("name", c_char_p),
        ("hold_ns", c_uint64),
        ("schema", c_uint64),
        ("filter_mask", c_uint32),
        ("filter_value", c_uint32),
    ]


class ReaderInfo(_Struct):
    _fields_ = [
        ("size", c_uint32),
        ("slot", c_uint32),
        ("id", c_uint64),
        ("pid", c_uint32),
        ("reader_class", c_uint32),
        ("state", c_uint32),
        ("flags", c_uint32),
        ("lag_records", c_uint64),
        ("lag_bytes", c_uint64),
        ("start", c_uint64),
        ("cursor", c_uint64),
        ("delivered", c_uint64),
        ("missed", c_uint64),
        ("pending", c_uint64),
        ("evictions", c_uint64),
        ("waits", c_uint64),
        ("name", c_char * 72),
    ]


class Overrun(_Struct):
    _fields_ = [
        ("size", c_uint32),
        ("reserved", c_uint32),
        ("sequence", c_uint64),
        ("needed", c_uint64),
        ("waited_ns", c_uint64),
    ]


class Event(_Struct):
    _fields_ = [
        ("size", c_uint32),
        ("kind", c_uint32),
        ("percent", c_uint32),
        ("reserved", c_uint32),
        ("count", c_uint64),
        ("gap", Gap),
    ]


class Closed(_Struct):
    _fields_ = [
        ("size", c_uint32),
        ("code", c_uint32),
        ("sequence", c_uint64),
        ("epoch", c_uint64),
        ("reason", c_char * 128),
    ]


class Stats(_Struct):
    _fields_ = [
        ("published", c_uint64),
        ("bytes", c_uint64),
        ("waits", c_uint64),
        ("episodes", c_uint64),
        ("evictions", c_uint64),
        ("reaped", c_uint64),
        ("takeovers", c_uint64),
        ("warnings", c_uint64),
    ]


class WriterInfo(_Struct):
    _fields_ = [
        ("size", c_uint32),
        ("reserved", c_uint32),
        ("next_sequence", c_uint64),
        ("resumed_at", c_uint64),
        ("epoch", c_uint64),
        ("capacity", c_uint64),
        ("max_record", c_uint64),
        ("stats", Stats),
    ]


class Position(_Struct):
    _fields_ = [
        ("size", c_uint32),
        ("writer_alive", c_uint32),
        ("next_sequence", c_uint64),
        ("start_sequence", c_uint64),
        ("epoch", c_uint64),
        ("max_record", c_uint64),
    ]


class Snapshot(_Struct):
    _fields_ = [
        ("size", c_uint32),
        ("writer_state", c_uint32),
        ("writer_pid", c_uint32),
        ("slots", c_uint32),
        ("flags", c_uint32),
        ("reserved", c_uint32),
        ("bus_id", c_uint64),
        ("capacity", c_uint64),
        ("stripe", c_uint64),
        ("max_record", c_uint64),
        ("schema", c_uint64),
        ("max_age_ns", c_uint64),
        ("epoch", c_uint64),
        ("resumed_at", c_uint64),
        ("closed_epoch", c_uint64),
        ("closed_sequence", c_uint64),
        ("closed_code", c_uint64),
        ("head", c_uint64),
        ("limit", c_uint64),
        ("next_sequence", c_uint64),
        ("oldest_sequence", c_uint64),
        ("stats", Stats),
    ]


_writer = c_void_p
_reader = c_void_p
_infos = [POINTER(ReaderInfo), c_size_t, POINTER(c_size_t)]

#: Parameters of every function; those not named in `RESULTS` return a status.
PROTOTYPES = {
    "lapwing_version": [],
    "lapwing_status_name": [c_int],
    "lapwing_last_error": [],
    "lapwing_guard_install": [],
    "lapwing_writer_create": [c_char_p, POINTER(WriterOptions), POINTER(_writer)],
    "lapwing_writer_open": [c_char_p, POINTER(_writer)],
    "lapwing_writer_standby": [c_char_p, POINTER(_writer)],
    "lapwing_writer_close": [POINTER(_writer), c_uint32, c_char_p],
    "lapwing_writer_abandon": [POINTER(_writer)],
    "lapwing_writer_publish": [_writer, c_uint32, c_void_p, c_size_t, POINTER(c_uint64)],
    "lapwing_writer_try_publish": [_writer, c_uint32, c_void_p, c_size_t, POINTER(c_uint64)],
    "lapwing_writer_publish_vectored": [_writer, c_uint32, POINTER(Slice), c_size_t, POINTER(c_uint64)],
    "lapwing_writer_publish_batch": [_writer, POINTER(Message), c_size_t, POINTER(c_uint64)],
    "lapwing_writer_claim": [_writer, c_uint32, c_size_t, POINTER(c_void_p)],
    "lapwing_writer_commit": [_writer, c_size_t, POINTER(c_uint64)],
    "lapwing_writer_abort": [_writer],
    "lapwing_writer_set_policy": [_writer, c_uint32, c_int64],
    "lapwing_writer_get_overrun": [_writer, POINTER(Overrun), *_infos],
    "lapwing_writer_take_event": [_writer, POINTER(Event), POINTER(ReaderInfo)],
    "lapwing_writer_list_readers": [_writer, *_infos],
    "lapwing_writer_evict": [_writer, c_uint64],
    "lapwing_writer_reap": [_writer, *_infos],
    "lapwing_writer_wait_for_readers": [_writer, c_int64],
    "lapwing_writer_describe": [_writer, POINTER(WriterInfo)],
    "lapwing_reader_open": [c_char_p, POINTER(ReaderOptions), POINTER(_reader)],
    "lapwing_reader_close": [POINTER(_reader)],
    "lapwing_reader_next": [_reader, c_int64, POINTER(Record)],
    "lapwing_reader_poll": [_reader, c_int64, c_void_p, c_size_t, c_void_p, c_size_t, POINTER(c_size_t)],
    "lapwing_reader_commit": [_reader],
    "lapwing_reader_rejoin": [_reader, c_uint32, c_uint64, POINTER(Gap)],
    "lapwing_reader_get_gap": [_reader, POINTER(Gap)],
    "lapwing_reader_get_closed": [_reader, POINTER(Closed)],
    "lapwing_reader_describe": [_reader, POINTER(ReaderInfo)],
    "lapwing_reader_get_position": [_reader, POINTER(Position)],
    "lapwing_reader_get_fd": [_reader, POINTER(c_int)],
    "lapwing_bus_inspect": [c_char_p, POINTER(Snapshot), *_infos],
    "lapwing_bus_evict": [c_char_p, c_uint64],
    "lapwing_bus_reap": [c_char_p, *_infos],
    "lapwing_bus_forget": [c_char_p, c_char_p],
    "lapwing_bus_remove": [c_char_p],
}
RESULTS = {"lapwing_version": c_char_p, "lapwing_status_name": c_char_p, "lapwing_last_error": c_char_p}

lib = _load()
for _name, _parameters in PROTOTYPES.items():
    _function = getattr(lib, _name)
    _function.argtypes = _parameters
    _function.restype = RESULTS.get(_name, c_int)
