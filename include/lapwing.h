/*
 * lapwing.h - a broadcast bus between the processes of one machine
 *
 * One writer, many readers, a ring in a memory-mapped file, no daemon. And one promise: no event is ever lost in silence. Each
 * record reaches each registered reader, or both sides are told: the writer which reader would be overrun, before anything is
 * overwritten, and the reader exactly which sequences it missed.
 *
 *     #include <lapwing.h>
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         lapwing_writer *writer = NULL;
 *         lapwing_reader *reader = NULL;
 *         lapwing_record record;
 *         if (lapwing_writer_create("/dev/shm/hello", NULL, &writer) < 0
 *             || lapwing_reader_open("/dev/shm/hello", NULL, &reader) < 0) {
 *             fprintf(stderr, "%s\n", lapwing_last_error());
 *             return 1;
 *         }
 *         lapwing_writer_publish(writer, 0, "hello", 5, NULL);
 *         if (lapwing_reader_next(reader, -1, &record) == LAPWING_OK)
 *             printf("%.*s\n", (int)record.length, (const char *)record.data);
 *         lapwing_reader_close(&reader);
 *         lapwing_writer_close(&writer, 0, NULL);
 *         return lapwing_bus_remove("/dev/shm/hello") < 0;
 *     }
 *
 *     cc hello.c $(pkg-config --cflags --libs lapwing)
 *
 *
 * CONCEPTS
 *
 * bus       A path PATH and the three files PATH (the ring), PATH.readers (the table) and PATH.lock. Best on a file system in memory,
 *           such as /dev/shm. Who may read PATH can read the bus; who may write it can be its writer.
 * record    One message: bytes, a 32-bit tag that readers can filter on, and a sequence: 0 for the first of the bus, one more for each.
 * writer    The one that publishes. There is at most one, ever; the kernel says so. When it dies, the next one goes on
 *           where it stopped, and readers keep their places.
 * reader    Registered with the bus, and so seen by the writer. Of one of these classes:
 *             gating    the writer never overwrites what it has not read, unless it is evicted. Records are copied out.
 *             lossy     never holds the writer up; it is told what it missed.
 *             pinned    gating, and reads the ring in place without a copy. Cannot be evicted while its process lives.
 * observer  Not registered: needs read permission on PATH only, holds nobody up, is told what it missed. Here, a class of reader.
 * gap       Sequences that a reader missed, from `first` up to but not including `end`.
 * overrun   Writing where a reader has yet to read. Nothing is ever overrun: the writer refuses, waits, or evicts the reader, which is
 *           told, and may rejoin.
 * commit    A reader commits what it has handled: it is not delivered again, and no longer holds the writer up. It does so by asking
 *           for more, or explicitly (LAPWING_MANUAL_COMMIT), and in no other way: closing a reader does not commit what
 *           was handed out last. A reader of a name that dies, or closes, is given what it had not committed when it resumes.
 *
 *
 * RULES
 *
 * Status     Functions return an int. 0 is LAPWING_OK. Positive: another outcome that is no error. Negative: an error, and
 *            lapwing_last_error() says what was expected, what was found, and what to do. A number never changes its meaning.
 *            Each function below lists what it returns beside LAPWING_OK. Those that take a handle can also return the ones of
 *            EVERY HANDLE, and all can return LAPWING_E_PANIC, which means a bug in the library, caught.
 * Every      LAPWING_E_NULL (it, or an argument that must not be, is NULL), LAPWING_E_HANDLE (it is another kind of handle),
 * handle     LAPWING_E_FORKED (it was opened before a fork(): a child opens its own), LAPWING_E_BUSY (another thread is in a call
 *            on it). On these nothing was done. With lapwing_guard_install, those that look at the bus can also return
 *            LAPWING_E_FILE_TRUNCATED.
 * Threads    Any thread may use a handle, one at a time, by a lock of the caller's. LAPWING_E_BUSY catches most violations and is no lock. Functions without a
 *            handle can be called by any thread at any time.
 * Signals    No function is async-signal-safe. A signal handled during a wait does not end it, that of lapwing_writer_standby apart: who has to notice one waits with a
 *            time-out, or on lapwing_reader_get_fd. The library installs no handler unasked.
 * Forks      A child inherits no lock and no role. Handles from before the fork answer LAPWING_E_FORKED; closing them
 *            frees their memory, and touches nothing that is shared.
 * Memory     Handles are made by ..._create, ..._open or ..._standby and freed by closing them. Everything else belongs to the caller;
 *            no function keeps a pointer to it. Publishing and reading allocate nothing once a handle's own buffers have grown to
 *            the records they carry. Where a record is too large for the memory there is, reading says LAPWING_E_IO and the record stays the
 *            next one; otherwise exhausted memory ends the process, as in any Rust program. Nothing allocates by a number or a text of
 *            the caller's beyond the bounds that this header states.
 * Structs    Those that begin with `size` grow in later versions: set it to sizeof the struct, and zero what you do not use. Zero
 *            means the default everywhere. In an array of them, set the size in the first. LAPWING_E_SIZE says that it is too small,
 *            or that a member is set which the library at run time does not know.
 * Units      Lengths and sizes are bytes; times are nanoseconds, time stamps nanoseconds since 1970 UTC. A time-out of 0 does not wait
 *            (and makes no system call), a negative one has no end.
 * Text       Strings are UTF-8 and end in a zero; a path is any bytes without one.
 * Process    Nothing runs before the first call but what the C runtime and Rust's standard library run in any shared library: no global
 *            constructor of its own. No signal handler, unless lapwing_guard_install is called; no thread, except the one that
 *            lapwing_reader_get_fd starts. pthread_atfork is used. Who may write the files of a bus can truncate them: that raises SIGBUS in those
 *            that have them mapped, and so ends them, as with any mapped file; lapwing_guard_install makes a status of it.
 */

#ifndef LAPWING_H
#define LAPWING_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version and errors ----------------------------------------------------------------------------------------- */

/* The version this header belongs to, and as a number: major << 16 | minor << 8 | patch. */
#define LAPWING_VERSION "0.1.0"
#define LAPWING_VERSION_NUMBER 0x000100

/* The version of the library at run time, as text. Never NULL; lives for ever. Programs need the same major version (while that is 0,
 * the same minor one), and at least the version they were compiled with. */
const char *lapwing_version(void);

enum {
    /* Fine. */
    LAPWING_OK = 0,

    /* Outcomes that are not errors. */
    LAPWING_EMPTY = 1,         /* no record yet, or none before the time was out; no event */
    LAPWING_GAP = 2,           /* records were missed: lapwing_reader_get_gap says which; the one at the gap's end comes next */
    LAPWING_EVICTED = 3,       /* the reader was evicted: lapwing_reader_rejoin to read on; lapwing_reader_get_gap says what is lost so far */
    LAPWING_CLOSED = 4,        /* end of the stream: lapwing_reader_get_closed says more; later calls wait for the next writer */
    LAPWING_ABSENT = 5,        /* no writer lives and the stream is not closed; told once, later calls wait for the next writer */
    LAPWING_REPLACED = 6,      /* the bus was created anew or removed, and nothing more comes here: open again */
    LAPWING_ORPHANED = 7,      /* the path leads elsewhere now: open again */
    LAPWING_WOULD_OVERRUN = 8, /* readers are in the way, nothing was published: lapwing_writer_get_overrun says who */
    LAPWING_TIMEOUT = 9,       /* the time is out */
    LAPWING_ALREADY = 10,      /* it was so already */
    LAPWING_TRUNCATED = 11,    /* the array was too short for all; as many as fit were written */
    LAPWING_INTERRUPTED = 12,  /* a signal was handled during the wait, and nothing happened: call again to go on waiting */

    /* Misuse. */
    LAPWING_E_NULL = -1,      /* a pointer is NULL that must not be */
    LAPWING_E_HANDLE = -2,    /* not a handle of this kind */
    LAPWING_E_FORKED = -3,    /* the handle was opened before a fork, by the parent */
    LAPWING_E_BUSY = -4,      /* another thread is in a call on the handle */
    LAPWING_E_STATE = -5,     /* not now, or not for this class of reader */
    LAPWING_E_SIZE = -6,      /* the size of a struct is wrong */
    LAPWING_E_ARGUMENT = -7,  /* a value that means nothing */
    LAPWING_E_TOO_SMALL = -8, /* the buffer is too small for the next record, which stays the next one */
    LAPWING_E_PANIC = -9,     /* a bug in the library; the handle can only be closed */
    LAPWING_E_OTHER = -10,    /* something that has no number of its own yet */

    /* Errors. */
    LAPWING_E_NOT_FOUND = -20,        /* no bus there */
    LAPWING_E_NOT_READY = -21,        /* it is being created, or its creator died half-way */
    LAPWING_E_ALREADY_EXISTS = -22,   /* there is a bus already */
    LAPWING_E_WRITER_BUSY = -23,      /* another writer lives */
    LAPWING_E_NOT_A_BUS = -24,        /* the path leads to something else */
    LAPWING_E_INCOMPATIBLE = -25,     /* another layout, byte order or schema */
    LAPWING_E_CORRUPT = -26,          /* the content of the bus contradicts itself */
    LAPWING_E_INVALID_OPTION = -27,   /* an option is out of its range */
    LAPWING_E_TABLE_FULL = -28,       /* every reader slot is taken */
    LAPWING_E_NAME_TAKEN = -29,       /* a living reader has this name */
    LAPWING_E_NAME_UNKNOWN = -30,     /* no reader has this name */
    LAPWING_E_NO_SUCH_READER = -31,   /* no reader has this id (any more) */
    LAPWING_E_NOT_EVICTABLE = -32,    /* the reader is pinned and lives */
    LAPWING_E_PINNED_FORBIDDEN = -33, /* the bus was created without pinned readers */
    LAPWING_E_FUTURE_SEQUENCE = -34,  /* a start after something that was not published */
    LAPWING_E_PERMISSION = -35,       /* the file may not be opened so */
    LAPWING_E_NO_SPACE = -36,         /* the file system is full */
    LAPWING_E_UNSUPPORTED = -37,      /* the file system or kernel lacks what the bus needs */
    LAPWING_E_IO = -38,               /* another failure of the operating system */
    LAPWING_E_TOO_LARGE = -39,        /* larger than a record, or a batch, can be */
    LAPWING_E_EXHAUSTED = -40,        /* the stream has reached its last position, after 2^62 bytes */
    LAPWING_E_FILE_TRUNCATED = -41    /* a file of the bus shrank under the handle, which can only be closed: see lapwing_guard_install */
};

/* The name of a status, such as "LAPWING_GAP". Never NULL; lives for ever. */
const char *lapwing_status_name(int status);

/* What was wrong when a call on this thread last returned a negative status. Never NULL; empty if none did. The text belongs to the
 * thread and is valid until its next call of the library. */
const char *lapwing_last_error(void);

/* ---- The process ------------------------------------------------------------------------------------------------ */

/* Makes a status of a file that shrinks while it is mapped, in place of the process's death by SIGBUS: the call that meets it, or at the
 * latest the next one on that handle, returns LAPWING_E_FILE_TRUNCATED, and so does every later one that would read, publish or wait: the
 * handle can only be closed. Nothing is delivered from what is gone, and other handles go on as before. It installs a handler for SIGBUS, for this process and for good, that passes on every
 * fault which is not one of a bus's files. Call it early: a handler installed later has to pass on what it does not know. More than once
 * does no harm. It costs calls nothing.
 * Not covered: a thread that blocks SIGBUS; memory of a bus that the caller holds at that moment (a pinned record, a claim), which
 * turns into zeros; a hole punched into a file, which reads as zeros and is LAPWING_E_CORRUPT where a record lay.
 * Returns: E_IO if the kernel refuses the handler. */
int lapwing_guard_install(void);

/* ---- Types ------------------------------------------------------------------------------------------------------ */

typedef struct lapwing_writer lapwing_writer;
typedef struct lapwing_reader lapwing_reader;

/* Bytes of the caller. `data` may be NULL if `length` is 0. */
typedef struct lapwing_slice {
    const void *data;
    size_t length;
} lapwing_slice;

/* A record to be published. */
typedef struct lapwing_message {
    const void *data;
    size_t length;
    uint32_t tag;
    uint32_t reserved; /* 0 */
} lapwing_message;

/* A record that was read. How long `data` is valid is said by the function that wrote it. */
typedef struct lapwing_record {
    const void *data; /* aligned to 8; may be dangling if length is 0 */
    size_t length;
    uint64_t sequence;
    uint64_t stamp_ns; /* when it was published; 0 on a bus without time stamps */
    uint32_t tag;
    uint32_t reserved;
} lapwing_record;

/* Sequences missed: first, first + 1, ... end - 1. */
typedef struct lapwing_gap {
    uint64_t first;
    uint64_t end;
} lapwing_gap;

/* What to do about a bus that is there already. */
enum {
    LAPWING_EXISTING_REFUSE = 0, /* LAPWING_E_ALREADY_EXISTS */
    LAPWING_EXISTING_OPEN = 1,   /* open it; its own options stand */
    LAPWING_EXISTING_REPLACE = 2 /* create it anew; its readers are told LAPWING_REPLACED */
};

/* Flags of options and of the snapshot. */
enum {
    LAPWING_STAMPED = 1,          /* bus: each record carries a time stamp (8 bytes and a look at the clock) */
    LAPWING_NO_PINNED = 2,        /* bus: pinned readers are refused */
    LAPWING_PREFAULT = 4,         /* writer, reader: fault this process's mapping in on opening */
    LAPWING_LOCK_MEMORY = 8,      /* writer, reader: keep this process's mapping in memory */
    LAPWING_GROUP = 16,           /* bus: give the files to the group `group` */
    LAPWING_MANUAL_COMMIT = 32,   /* reader: commit by lapwing_reader_commit only */
    LAPWING_HOLD_WHILE_AWAY = 64, /* reader with a name: hold the writer up while away, and so miss nothing */
    LAPWING_READERS_KNOWN = 128   /* snapshot: the table could be read */
};

/* How to create a bus. */
typedef struct lapwing_writer_options {
    uint32_t size;       /* sizeof(lapwing_writer_options) */
    uint32_t existing;   /* LAPWING_EXISTING_... */
    uint64_t capacity;   /* bytes of the ring: a power of two from 4 KiB to 1 TiB; 0: 4 MiB. A record takes at most a quarter of it */
    uint32_t readers;    /* how many can be registered at a time, 1 to 65536; 0: 128 */
    uint32_t mode;       /* permissions of the ring, as for chmod; 0: 0600. Who may read it may register */
    uint64_t schema;     /* an id that readers can ask for; 0: none */
    uint64_t max_age_ns; /* do not replay older records to readers that join (implies LAPWING_STAMPED); 0: no limit */
    uint32_t flags;      /* LAPWING_STAMPED, NO_PINNED, PREFAULT, LOCK_MEMORY, GROUP */
    uint32_t group;      /* group id of the files, with LAPWING_GROUP */
} lapwing_writer_options;

/* How a reader stands to the writer; see CONCEPTS. */
enum {
    LAPWING_CLASS_GATING = 1,
    LAPWING_CLASS_LOSSY = 2,
    LAPWING_CLASS_PINNED = 3,
    LAPWING_CLASS_OBSERVER = 4
};

/* Where a reader starts. */
enum {
    LAPWING_START_LATEST = 0, /* with the next record to be published */
    LAPWING_START_OLDEST = 1, /* with the oldest record in the ring */
    LAPWING_START_AFTER = 2,  /* after the sequence `start_at`; what of it is gone comes as a gap */
    LAPWING_START_SINCE = 3,  /* at the time `start_at`: exactly on a stamped bus, else shortly before */
    LAPWING_START_RESUME = 4  /* where the reader of this name left off; with the oldest record if the name is new */
};

/* How a reader waits. */
enum {
    LAPWING_WAIT_PARK = 0,  /* looks for some microseconds, then sleeps until it is woken */
    LAPWING_WAIT_YIELD = 1, /* looks, and offers its core to others in between */
    LAPWING_WAIT_SPIN = 2   /* looks without pause: lowest latency, one core busy */
};

/* How to attach. */
typedef struct lapwing_reader_options {
    uint32_t size;         /* sizeof(lapwing_reader_options) */
    uint32_t flags;        /* LAPWING_MANUAL_COMMIT, HOLD_WHILE_AWAY, PREFAULT, LOCK_MEMORY */
    uint32_t reader_class; /* LAPWING_CLASS_...; 0: gating */
    uint32_t wait;         /* LAPWING_WAIT_... */
    uint32_t start;        /* LAPWING_START_... */
    uint32_t reserved;     /* 0 */
    uint64_t start_at;     /* a sequence or a time, as `start` says */
    const char *name;      /* 1 to 64 bytes: the place of this reader outlives its process. NULL: none */
    uint64_t hold_ns;      /* hold the writer up at most so long while away (implies LAPWING_HOLD_WHILE_AWAY); 0: no limit */
    uint64_t schema;       /* refuse a bus of another schema; 0: any */
    uint32_t filter_mask;  /* deliver records with (tag & filter_mask) == filter_value only; the others count as delivered */
    uint32_t filter_value;
} lapwing_reader_options;

/* State of a registered reader. */
enum {
    LAPWING_STATE_JOINING = 1,  /* about to become active; holds the writer up already */
    LAPWING_STATE_ACTIVE = 2,   /* reads */
    LAPWING_STATE_EVICTED = 3,  /* was evicted; may rejoin */
    LAPWING_STATE_DETACHED = 4  /* has a name and is away; its place is kept */
};

/* Flags of a registered reader. */
enum {
    LAPWING_READER_ALIVE = 1,     /* its process lives: the kernel's word */
    LAPWING_READER_EVICTABLE = 2, /* evicting it would succeed */
    LAPWING_READER_HOLDS = 4      /* it holds the writer up also while it is away */
};

/* A registered reader as seen at one moment; every number may have moved on since. published = delivered + missed + pending. */
typedef struct lapwing_reader_info {
    uint32_t size;         /* sizeof(lapwing_reader_info) */
    uint32_t slot;         /* its place in the table */
    uint64_t id;           /* its registration; never used twice on a bus */
    uint32_t pid;          /* its process (the last one, if it is away), as it announced itself */
    uint32_t reader_class; /* LAPWING_CLASS_... */
    uint32_t state;        /* LAPWING_STATE_... */
    uint32_t flags;        /* LAPWING_READER_... */
    uint64_t lag_records;  /* records it has yet to read */
    uint64_t lag_bytes;    /* bytes of the ring it has yet to read */
    uint64_t start;        /* first sequence it was to read */
    uint64_t cursor;       /* next sequence it wants */
    uint64_t delivered;    /* records it has read */
    uint64_t missed;       /* records it missed, each reported to it */
    uint64_t pending;      /* records it has yet to read */
    uint64_t evictions;    /* how often it was evicted */
    uint64_t waits;        /* how often it slept */
    char name[72];         /* empty if it has none */
} lapwing_reader_info;

/* A record that would have overrun readers. */
typedef struct lapwing_overrun {
    uint32_t size; /* sizeof(lapwing_overrun) */
    uint32_t reserved;
    uint64_t sequence;  /* what it would have had */
    uint64_t needed;    /* bytes of the ring it needs */
    uint64_t waited_ns; /* how long the writer waited, under LAPWING_POLICY_WAIT */
} lapwing_overrun;

/* What the writer noticed. */
enum {
    LAPWING_EVENT_WARNING = 1,   /* `reader` is `percent` (50, 75, 90) of the ring behind; told once per episode */
    LAPWING_EVENT_OVERRUN = 2,   /* `count` readers were in the way, the slowest is `reader`; lapwing_writer_get_overrun has all */
    LAPWING_EVENT_EVICTED = 3,   /* `reader` was evicted, and has missed `gap` at most */
    LAPWING_EVENT_REAPED = 4,    /* `reader` had died, and its slot was reclaimed */
    LAPWING_EVENT_COALESCED = 5, /* `count` events were dropped because nobody fetched them */
    LAPWING_EVENT_OTHER = 6      /* something a later version knows */
};

typedef struct lapwing_event {
    uint32_t size; /* sizeof(lapwing_event) */
    uint32_t kind; /* LAPWING_EVENT_... */
    uint32_t percent;
    uint32_t reserved;
    uint64_t count;
    lapwing_gap gap;
} lapwing_event;

/* How the stream ended. */
typedef struct lapwing_closed {
    uint32_t size;     /* sizeof(lapwing_closed) */
    uint32_t code;     /* the writer's code; 0 by default */
    uint64_t sequence; /* what the next record would have had */
    uint64_t epoch;    /* of the writer that closed it */
    char reason[128];  /* the writer's reason; empty by default */
} lapwing_closed;

/* Counters of a bus since its creation. */
typedef struct lapwing_stats {
    uint64_t published; /* records */
    uint64_t bytes;     /* of payload; brought up to date now and then */
    uint64_t waits;     /* how often the writer slept for readers */
    uint64_t episodes;  /* how often readers got in its way */
    uint64_t evictions; /* readers it evicted */
    uint64_t reaped;    /* slots of dead readers it reclaimed */
    uint64_t takeovers; /* writers that took over from one that did not close */
    uint64_t warnings;  /* early warnings */
} lapwing_stats;

typedef struct lapwing_writer_info {
    uint32_t size; /* sizeof(lapwing_writer_info) */
    uint32_t reserved;
    uint64_t next_sequence; /* what the next record will have */
    uint64_t resumed_at;    /* what this writer's first record had, or will have */
    uint64_t epoch;         /* how many writers the bus has had, this one included */
    uint64_t capacity;      /* bytes of the ring */
    uint64_t max_record;    /* largest payload in bytes */
    lapwing_stats stats;
} lapwing_writer_info;

/* Where a reader stands. */
typedef struct lapwing_position {
    uint32_t size;           /* sizeof(lapwing_position) */
    uint32_t writer_alive;   /* 1 if a writer lives: the kernel's word */
    uint64_t next_sequence;  /* the next record it will look at */
    uint64_t start_sequence; /* the first it was to read; 0 for an observer */
    uint64_t epoch;          /* how many writers the bus has had */
    uint64_t max_record;     /* largest payload in bytes: a buffer of this size, aligned to 8, takes any record */
} lapwing_position;

/* State of the writer. */
enum {
    LAPWING_WRITER_NEVER = 0,   /* there has been none */
    LAPWING_WRITER_ALIVE = 1,   /* a process is the writer */
    LAPWING_WRITER_ABSENT = 2,  /* the last one is gone and did not close the stream */
    LAPWING_WRITER_CLOSED = 3,  /* the last one closed the stream */
    LAPWING_WRITER_REPLACED = 4 /* the bus was created anew or removed; this is the old one */
};

/* A bus as seen at one moment. */
typedef struct lapwing_snapshot {
    uint32_t size;         /* sizeof(lapwing_snapshot) */
    uint32_t writer_state; /* LAPWING_WRITER_... */
    uint32_t writer_pid;   /* the writer (the last one, if it is gone) as it announced itself; 0 before the first */
    uint32_t slots;        /* how many readers can be registered */
    uint32_t flags;        /* LAPWING_STAMPED, NO_PINNED, READERS_KNOWN */
    uint32_t reserved;
    uint64_t bus_id; /* differs between any two buses */
    uint64_t capacity;
    uint64_t stripe; /* bytes of a stripe, the unit of the seek index */
    uint64_t max_record;
    uint64_t schema;
    uint64_t max_age_ns;
    uint64_t epoch;           /* how many writers there were */
    uint64_t resumed_at;      /* sequence that the last one began with */
    uint64_t closed_epoch;    /* the last end of the stream: epoch (0: never), sequence, code */
    uint64_t closed_sequence;
    uint64_t closed_code;
    uint64_t head;            /* position after the last record */
    uint64_t limit;           /* position below which the writer may write */
    uint64_t next_sequence;   /* of the next record */
    uint64_t oldest_sequence; /* that can be replayed */
    lapwing_stats stats;
} lapwing_snapshot;

/* ---- The writer ------------------------------------------------------------------------------------------------- */

/* Creates the bus at `path` and becomes its writer. `options` may be NULL: all defaults. On failure *writer is NULL and nothing is
 * left behind.
 * Returns: E_ARGUMENT, E_SIZE, E_INVALID_OPTION before anything is touched; E_ALREADY_EXISTS; E_WRITER_BUSY; E_NOT_A_BUS (nothing but a bus is
 * ever replaced); E_NO_SPACE, E_UNSUPPORTED, E_PERMISSION, E_NOT_FOUND (no such directory), E_IO; with LAPWING_EXISTING_OPEN also what
 * lapwing_writer_open returns. */
int lapwing_writer_create(const char *path, const lapwing_writer_options *options, lapwing_writer **writer);

/* Becomes the writer of a bus, going on where the last one stopped or died: see resumed_at in lapwing_writer_info.
 * Returns: E_WRITER_BUSY while another writer lives; E_NOT_FOUND, E_NOT_READY, E_NOT_A_BUS, E_INCOMPATIBLE, E_CORRUPT, E_PERMISSION, E_IO. */
int lapwing_writer_open(const char *path, lapwing_writer **writer);

/* Waits until the bus has no writer (the kernel says so the moment the other is gone, whatever it died of), then becomes it. The
 * wait has no time-out; a signal ends it whose handler ran in this thread and was installed without SA_RESTART.
 * Returns: INTERRUPTED (*writer is NULL); as lapwing_writer_open, without E_WRITER_BUSY. */
int lapwing_writer_standby(const char *path, lapwing_writer **writer);

/* Ends the stream, frees the handle and sets *writer to NULL. Readers drain what is there and are then told LAPWING_CLOSED with `code` and
 * `reason` (at most 120 bytes; may be NULL), parked ones at once. A claim that was not committed is given up. If *writer is NULL already,
 * nothing is done.
 * Returns: E_INVALID_OPTION for a longer reason, E_ARGUMENT for one that is not UTF-8 (the writer then stays open); E_FORKED (the handle
 * is freed, the stream is not ended). */
int lapwing_writer_close(lapwing_writer **writer, uint32_t code, const char *reason);

/* Frees the handle and sets *writer to NULL without ending the stream, as a crash would: readers keep their places and are told
 * LAPWING_ABSENT until the next writer comes. If *writer is NULL already, nothing is done.
 * Returns: E_FORKED (the handle is freed). */
int lapwing_writer_abandon(lapwing_writer **writer);

/* Publishes a record of `length` bytes, under the standing policy if readers are in its way. Its sequence goes to *sequence, unless that
 * is NULL. A process that dies after this returned has published it. With no reader in the way: no system call, no
 * lock, no allocation.
 * Returns: WOULD_OVERRUN (nothing was published); E_TOO_LARGE, E_EXHAUSTED, E_STATE (a claim is open), E_IO. */
int lapwing_writer_publish(lapwing_writer *writer, uint32_t tag, const void *data, size_t length, uint64_t *sequence);

/* The same with LAPWING_POLICY_REFUSE, whatever the standing policy. */
int lapwing_writer_try_publish(lapwing_writer *writer, uint32_t tag, const void *data, size_t length, uint64_t *sequence);

/* Publishes `count` slices, one after the other, as one record; else as lapwing_writer_publish.
 * Returns: also E_ARGUMENT if count is above 2^20. */
int lapwing_writer_publish_vectored(lapwing_writer *writer, uint32_t tag, const lapwing_slice *parts, size_t count,
                                    uint64_t *sequence);

/* Publishes `count` records that become visible together, or none of them. The first one's sequence goes to *first, unless that is
 * NULL; the others follow it. Together they take no more than the largest record may: a quarter of the ring.
 * Returns: as lapwing_writer_publish; E_ARGUMENT if count is above 2^20. */
int lapwing_writer_publish_batch(lapwing_writer *writer, const lapwing_message *messages, size_t count, uint64_t *first);

/* Claims room for a record of up to `length` bytes, to be written in place: *data points to it, aligned to 8, until the record is
 * committed or aborted. It holds whatever was there before: write all that you commit. Until then every other call on the writer that needs
 * the bus returns E_STATE.
 * Returns: as lapwing_writer_publish. */
int lapwing_writer_claim(lapwing_writer *writer, uint32_t tag, size_t length, void **data);

/* Publishes the first `length` bytes of the claim; *data of the claim is no longer valid. The sequence goes to *sequence, unless that is NULL.
 * Returns: E_STATE without a claim; E_TOO_LARGE if length is more than was claimed (the claim then stays). */
int lapwing_writer_commit(lapwing_writer *writer, size_t length, uint64_t *sequence);

/* Gives the claim up: nobody ever sees it.
 * Returns: E_STATE without a claim. */
int lapwing_writer_abort(lapwing_writer *writer);

/* What publishing does about readers in its way. */
enum {
    LAPWING_POLICY_REFUSE = 0, /* publishes nothing and returns LAPWING_WOULD_OVERRUN; the default */
    LAPWING_POLICY_WAIT = 1,   /* waits for them, at most the policy's time-out, and then does the same */
    LAPWING_POLICY_EVICT = 2   /* evicts them, each told its gap; refuses only if one is pinned and lives */
};

/* Sets the standing policy. `timeout_ns` counts for LAPWING_POLICY_WAIT, per record; negative: no end.
 * Returns: E_ARGUMENT, E_STATE (a claim is open). */
int lapwing_writer_set_policy(lapwing_writer *writer, uint32_t policy, int64_t timeout_ns);

/* The report of the latest LAPWING_WOULD_OVERRUN, or of the latest LAPWING_EVENT_OVERRUN: the record, and every reader in its way, the
 * slowest first. Up to `capacity` of them go to `readers` (may be NULL if that is 0), their true number to *count, unless that is NULL.
 * Returns: TRUNCATED; E_STATE if there was none; E_SIZE. */
int lapwing_writer_get_overrun(lapwing_writer *writer, lapwing_overrun *overrun, lapwing_reader_info *readers, size_t capacity,
                           size_t *count);

/* Takes the oldest event that was not fetched. `reader` (may be NULL) is written for those kinds that have one.
 * Returns: EMPTY if there is none; E_SIZE, E_STATE (a claim is open). */
int lapwing_writer_take_event(lapwing_writer *writer, lapwing_event *event, lapwing_reader_info *reader);

/* Describes every registered reader; the array as for lapwing_writer_get_overrun.
 * Returns: TRUNCATED; E_SIZE, E_STATE (a claim is open), E_IO. */
int lapwing_writer_list_readers(lapwing_writer *writer, lapwing_reader_info *readers, size_t capacity, size_t *count);

/* Evicts a reader by its id: it no longer holds the writer up, and is told its gap.
 * Returns: ALREADY; E_NO_SUCH_READER, E_NOT_EVICTABLE, E_STATE (a claim is open, or as lapwing_bus_evict), E_IO. */
int lapwing_writer_evict(lapwing_writer *writer, uint64_t reader);

/* Reclaims the slots of dead readers, and says whose they were; those with a name are kept as detached. The array as for
 * lapwing_writer_get_overrun. (A publish that meets dead readers in its way does this by itself.)
 * Returns: TRUNCATED; E_SIZE, E_STATE (a claim is open), E_IO. */
int lapwing_writer_reap(lapwing_writer *writer, lapwing_reader_info *readers, size_t capacity, size_t *count);

/* Waits until every living gating reader has committed all records.
 * Returns: TIMEOUT; E_STATE (a claim is open), E_IO. */
int lapwing_writer_wait_for_readers(lapwing_writer *writer, int64_t timeout_ns);

/* Describes the writer and its bus.
 * Returns: E_SIZE, E_STATE (a claim is open). */
int lapwing_writer_describe(lapwing_writer *writer, lapwing_writer_info *info);

/* ---- Reading ---------------------------------------------------------------------------------------------------- */

/* Attaches to the bus at `path`. `options` may be NULL: gating, from the next record on. Waits for no other reader, and makes none miss
 * anything. A gap between where it asked to start and where it could comes first. On failure *reader is NULL.
 * An observer takes start, wait and filter only.
 * Returns: E_ARGUMENT, E_SIZE, E_INVALID_OPTION; E_NOT_FOUND, E_NOT_READY, E_NOT_A_BUS, E_INCOMPATIBLE, E_CORRUPT, E_PERMISSION, E_IO;
 * E_TABLE_FULL, E_NAME_TAKEN, E_PINNED_FORBIDDEN, E_FUTURE_SEQUENCE. */
int lapwing_reader_open(const char *path, const lapwing_reader_options *options, lapwing_reader **reader);

/* Leaves the bus, frees the handle and sets *reader to NULL. Commits nothing. A reader with a name keeps its place. If *reader is NULL
 * already, nothing is done.
 * Returns: E_FORKED (the handle is freed). */
int lapwing_reader_close(lapwing_reader **reader);

/* Takes the next record, waiting for it at most `timeout_ns`. Commits what was handed out before, unless LAPWING_MANUAL_COMMIT.
 * `data` of the record is valid until the next call on this reader; a pinned reader's lies in the ring, and is valid until it is
 * committed.
 * Returns: OK (the record), or EMPTY, GAP, EVICTED, CLOSED, ABSENT, REPLACED, ORPHANED: none of these ends the reader. With a time-out of 0,
 * ABSENT and ORPHANED are not looked for. E_CORRUPT, E_IO. */
int lapwing_reader_next(lapwing_reader *reader, int64_t timeout_ns, lapwing_record *record);

/* Takes many records in one call: waits for the first one at most `timeout_ns`, then takes what is there, up to `max` (1 to 2^20). *count
 * is how many were written to `records`: never 0 with LAPWING_OK, and 0 with every other status, so that what follows the last record
 * (a gap, an end) comes with the next call. Commits what was handed out before, unless LAPWING_MANUAL_COMMIT.
 *
 * With a `buffer` of `size` bytes, payloads are copied there, each to an address that is a multiple of 8, and are the caller's. If
 * the next record does not fit: E_TOO_SMALL, with its length in records[0].length (its data is NULL); it stays the next
 * one (a lossy reader or an observer may miss it meanwhile, as any other). With NULL and 0 they are valid until the next call on this reader (a pinned reader's lie in the ring, and are valid until committed),
 * and the call stops after about 1 MiB.
 * Returns: as lapwing_reader_next; E_TOO_SMALL, E_ARGUMENT. */
int lapwing_reader_poll(lapwing_reader *reader, int64_t timeout_ns, lapwing_record *records, size_t max, void *buffer,
                        size_t size, size_t *count);

/* Commits everything that was handed out: it is not delivered again, and no longer holds the writer up.
 * Returns: E_STATE for an observer. */
int lapwing_reader_commit(lapwing_reader *reader);

/* Goes on elsewhere in the stream: after an eviction, or to seek. LAPWING_START_RESUME means: where it stands, or as close as the ring
 * allows. What is skipped goes to *gap (empty if first == end), unless that is NULL. Going back starts the reader's books anew.
 * Returns: E_ARGUMENT, E_FUTURE_SEQUENCE; E_INVALID_OPTION for an observer's RESUME. */
int lapwing_reader_rejoin(lapwing_reader *reader, uint32_t start, uint64_t start_at, lapwing_gap *gap);

/* The gap of the latest LAPWING_GAP, LAPWING_EVICTED or rejoin; empty before the first. */
int lapwing_reader_get_gap(lapwing_reader *reader, lapwing_gap *gap);

/* The end of the stream that the latest LAPWING_CLOSED told of.
 * Returns: E_STATE before the first; E_SIZE. */
int lapwing_reader_get_closed(lapwing_reader *reader, lapwing_closed *closed);

/* Describes this reader as the table shows it. The cursor is that of the latest commit.
 * Returns: E_STATE for an observer; E_NO_SUCH_READER if somebody who may write the table has freed its slot; E_SIZE. */
int lapwing_reader_describe(lapwing_reader *reader, lapwing_reader_info *info);

/* Says where the reader stands, and whether a writer lives.
 * Returns: E_SIZE, E_IO. */
int lapwing_reader_get_position(lapwing_reader *reader, lapwing_position *position);

/* A descriptor for poll, epoll, libuv, asio, Qt: readable when a call on the reader has something to give, or a writer came or went. Take
 * with a time-out of 0 until LAPWING_EMPTY, then wait on the descriptor again; level or edge triggered, no record is missed, and the
 * writer pays nothing for it. It belongs to the reader, and goes with it: neither read nor close it. The first one starts one small
 * thread in this process, named lapwing-events, which stays. Nothing else ever starts one.
 * Returns: E_STATE for an observer; E_IO. */
int lapwing_reader_get_fd(lapwing_reader *reader, int *fd);

/* ---- A bus from outside ----------------------------------------------------------------------------------------- */

/* Looks at a bus without disturbing it: no lock is taken, and both files are mapped read-only. The array as for lapwing_writer_get_overrun;
 * without permission to read the table there are none, and LAPWING_READERS_KNOWN is not set.
 * Returns: TRUNCATED; E_SIZE; E_NOT_FOUND, E_NOT_READY, E_NOT_A_BUS, E_INCOMPATIBLE, E_CORRUPT, E_PERMISSION, E_IO. */
int lapwing_bus_inspect(const char *path, lapwing_snapshot *snapshot, lapwing_reader_info *readers, size_t capacity,
                        size_t *count);

/* As lapwing_writer_evict, by anybody who may write the table.
 * Returns: also E_STATE (somebody who may write the table spoils the slot without pause), and what lapwing_bus_inspect returns. */
int lapwing_bus_evict(const char *path, uint64_t reader);

/* As lapwing_writer_reap, by anybody who may write the table.
 * Returns: also what lapwing_bus_inspect returns. */
int lapwing_bus_reap(const char *path, lapwing_reader_info *readers, size_t capacity, size_t *count);

/* Forgets the name of a reader that is away; its place in the stream is lost.
 * Returns: E_NAME_UNKNOWN; E_NAME_TAKEN while a living process has the name; E_INVALID_OPTION (longer than any name); E_STATE (as
 * lapwing_bus_evict); what lapwing_bus_inspect returns. */
int lapwing_bus_forget(const char *path, const char *name);

/* Removes a bus that has no living writer, and what a creator that died may have left. Its readers are told LAPWING_REPLACED.
 * Returns: E_NOT_FOUND, E_NOT_A_BUS, E_WRITER_BUSY, E_PERMISSION, E_IO. */
int lapwing_bus_remove(const char *path);

#ifdef __cplusplus
}
#endif

#endif
