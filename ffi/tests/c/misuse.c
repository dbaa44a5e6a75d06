/* Every function misused in every way that the header forbids: each ends in the status that it documents, and none in a crash. */
#include "check.h"
#include <pthread.h>

/* How the arguments of a call are wrong. */
struct how {
    void *handle;
    int null;       /* every other pointer is NULL */
    int zero;       /* sizes, lengths and counts are 0 */
    int huge;       /* they are as large as can be */
    int misaligned; /* every other pointer is odd */
};

static lapwing_writer *writer;
static lapwing_reader *reader;
static const char *path;
static unsigned char space[16][4096] __attribute__((aligned(16)));

static void *place(const struct how *how, int which) {
    if (how->null)
        return NULL;
    memset(space[which], 0, sizeof space[which]);
    return space[which] + (how->misaligned ? 1 : 0);
}

static size_t length(const struct how *how, size_t usual) {
    return how->zero ? 0 : how->huge ? SIZE_MAX : usual;
}

/* A struct that says its size. */
static void *sized(const struct how *how, int which, size_t size) {
    void *at = place(how, which);
    uint32_t said = how->zero ? 0 : how->huge ? UINT32_MAX : (uint32_t)size;
    if (at)
        memcpy(at, &said, sizeof said);
    return at;
}

#define SIZED(which, type) ((type *)sized(how, which, sizeof(type)))
#define DEFINE(name) static int name(const struct how *how)

DEFINE(writer_publish) {
    return lapwing_writer_publish(how->handle, 1, place(how, 0), length(how, 16), place(how, 1));
}
DEFINE(writer_try_publish) {
    return lapwing_writer_try_publish(how->handle, 1, place(how, 0), length(how, 16), place(how, 1));
}
DEFINE(writer_publish_vectored) {
    lapwing_slice part = {space[1], length(how, 16)};
    void *parts = place(how, 0);
    if (parts)
        memcpy(parts, &part, sizeof part);
    return lapwing_writer_publish_vectored(how->handle, 1, parts, how->zero ? 0 : 1, place(how, 2));
}
DEFINE(writer_publish_vectored_count) {
    return lapwing_writer_publish_vectored(how->handle, 1, place(how, 0), length(how, 2), place(how, 2));
}
DEFINE(writer_publish_batch) {
    lapwing_message message = {space[1], length(how, 16), 1, 0};
    void *messages = place(how, 0);
    if (messages)
        memcpy(messages, &message, sizeof message);
    return lapwing_writer_publish_batch(how->handle, messages, how->zero ? 0 : 1, place(how, 2));
}
DEFINE(writer_publish_batch_count) {
    return lapwing_writer_publish_batch(how->handle, place(how, 0), length(how, 2), place(how, 2));
}
DEFINE(writer_claim) {
    int status = lapwing_writer_claim(how->handle, 1, length(how, 16), place(how, 0));
    if (status == LAPWING_OK)
        CHECK_OK(lapwing_writer_abort(how->handle));
    return status;
}
DEFINE(writer_commit) { return lapwing_writer_commit(how->handle, length(how, 16), place(how, 0)); }
DEFINE(writer_abort) { return lapwing_writer_abort(how->handle); }
DEFINE(writer_set_policy) {
    return lapwing_writer_set_policy(how->handle, how->huge ? UINT32_MAX : 0, how->huge ? INT64_MIN : 0);
}
DEFINE(writer_get_overrun) {
    return lapwing_writer_get_overrun(how->handle, SIZED(0, lapwing_overrun), SIZED(1, lapwing_reader_info), length(how, 2),
                                      place(how, 2));
}
DEFINE(writer_take_event) {
    return lapwing_writer_take_event(how->handle, SIZED(0, lapwing_event), SIZED(1, lapwing_reader_info));
}
DEFINE(writer_list_readers) {
    return lapwing_writer_list_readers(how->handle, SIZED(0, lapwing_reader_info), length(how, 2), place(how, 1));
}
DEFINE(writer_evict) { return lapwing_writer_evict(how->handle, how->huge ? UINT64_MAX : 0); }
DEFINE(writer_reap) {
    return lapwing_writer_reap(how->handle, SIZED(0, lapwing_reader_info), length(how, 2), place(how, 1));
}
DEFINE(writer_wait_for_readers) { return lapwing_writer_wait_for_readers(how->handle, 0); }
DEFINE(writer_describe) { return lapwing_writer_describe(how->handle, SIZED(0, lapwing_writer_info)); }
DEFINE(reader_next) { return lapwing_reader_next(how->handle, 0, place(how, 0)); }
DEFINE(reader_poll) {
    return lapwing_reader_poll(how->handle, 0, place(how, 0), length(how, 4), place(how, 1), how->zero ? 0 : 4000,
                               place(how, 2));
}
DEFINE(reader_poll_no_buffer) {
    size_t count;
    return lapwing_reader_poll(how->handle, 0, place(&(struct how){0}, 0), 4, place(how, 1), 16, &count);
}
DEFINE(reader_commit) { return lapwing_reader_commit(how->handle); }
DEFINE(reader_rejoin) { return lapwing_reader_rejoin(how->handle, how->huge ? UINT32_MAX : 0, 0, place(how, 0)); }
DEFINE(reader_rejoin_after) {
    return lapwing_reader_rejoin(how->handle, LAPWING_START_AFTER, UINT64_MAX, place(how, 0));
}
DEFINE(reader_get_gap) { return lapwing_reader_get_gap(how->handle, place(how, 0)); }
DEFINE(reader_get_closed) { return lapwing_reader_get_closed(how->handle, SIZED(0, lapwing_closed)); }
DEFINE(reader_describe) { return lapwing_reader_describe(how->handle, SIZED(0, lapwing_reader_info)); }
DEFINE(reader_get_position) { return lapwing_reader_get_position(how->handle, SIZED(0, lapwing_position)); }
DEFINE(reader_get_fd) { return lapwing_reader_get_fd(how->handle, place(how, 0)); }
DEFINE(bus_inspect) {
    return lapwing_bus_inspect(how->null ? NULL : path, SIZED(0, lapwing_snapshot), SIZED(1, lapwing_reader_info),
                               length(how, 2), place(how, 2));
}
DEFINE(bus_evict) { return lapwing_bus_evict(how->null ? NULL : path, how->huge ? UINT64_MAX : 0); }
DEFINE(bus_reap) {
    return lapwing_bus_reap(how->null ? NULL : path, SIZED(0, lapwing_reader_info), length(how, 2), place(how, 1));
}
DEFINE(bus_forget) { return lapwing_bus_forget(path, how->null ? NULL : how->zero ? "" : "\xff\xfe"); }
DEFINE(bus_forget_unknown) { return lapwing_bus_forget(how->null ? NULL : path, "nobody"); }
DEFINE(bus_remove) { return lapwing_bus_remove(how->null ? NULL : how->zero ? "" : path); }
DEFINE(writer_create) { return lapwing_writer_create(path, SIZED(0, lapwing_writer_options), place(how, 1)); }
DEFINE(writer_create_path) {
    return lapwing_writer_create(how->null ? NULL : path, NULL, place(&(struct how){0}, 1));
}
DEFINE(writer_open) {
    return lapwing_writer_open(how->null ? NULL : how->zero ? "" : path, place(&(struct how){0}, 1));
}
DEFINE(writer_open_out) { return lapwing_writer_open(path, place(how, 1)); }
DEFINE(writer_standby) { return lapwing_writer_standby(how->null ? NULL : "/nowhere/at/all", place(how, 1)); }
DEFINE(reader_open) {
    return lapwing_reader_open("/nowhere/at/all", SIZED(0, lapwing_reader_options), place(how, 1));
}
DEFINE(reader_open_path) { return lapwing_reader_open(how->null ? NULL : "", NULL, place(&(struct how){0}, 1)); }

enum kind { WRITER, READER, NONE };

#define SAME 1000 /* as with good arguments */
#define NULLS LAPWING_E_NULL
#define SIZES LAPWING_E_SIZE
#define ARGUMENT LAPWING_E_ARGUMENT
#define LARGE LAPWING_E_TOO_LARGE
#define CALL(name, kind) "lapwing_" #name, kind, name

/* What each function returns with good arguments, with NULL for its other pointers, with sizes of zero, and with huge ones. */
static const struct {
    const char *name;
    enum kind kind;
    int (*call)(const struct how *);
    int good, null, zero, huge;
} calls[] = {
    {CALL(writer_publish, WRITER), LAPWING_OK, NULLS, SAME, LARGE},
    {CALL(writer_try_publish, WRITER), LAPWING_OK, NULLS, SAME, LARGE},
    {CALL(writer_publish_vectored, WRITER), LAPWING_OK, NULLS, SAME, LARGE},
    {CALL(writer_publish_vectored_count, WRITER), LAPWING_OK, NULLS, SAME, ARGUMENT},
    {CALL(writer_publish_batch, WRITER), LAPWING_OK, NULLS, SAME, LARGE},
    {CALL(writer_publish_batch_count, WRITER), LAPWING_OK, NULLS, SAME, ARGUMENT},
    {CALL(writer_claim, WRITER), LAPWING_OK, NULLS, SAME, LARGE},
    {CALL(writer_commit, WRITER), LAPWING_E_STATE, SAME, SAME, SAME},
    {CALL(writer_abort, WRITER), LAPWING_E_STATE, SAME, SAME, SAME},
    {CALL(writer_set_policy, WRITER), LAPWING_OK, SAME, SAME, ARGUMENT},
    {CALL(writer_get_overrun, WRITER), LAPWING_E_STATE, NULLS, SIZES, SIZES},
    {CALL(writer_take_event, WRITER), LAPWING_EMPTY, NULLS, SIZES, SIZES},
    {CALL(writer_list_readers, WRITER), LAPWING_OK, NULLS, LAPWING_OK, ARGUMENT},
    {CALL(writer_evict, WRITER), LAPWING_E_NO_SUCH_READER, SAME, SAME, SAME},
    {CALL(writer_reap, WRITER), LAPWING_OK, NULLS, LAPWING_OK, ARGUMENT},
    {CALL(writer_wait_for_readers, WRITER), LAPWING_OK, SAME, SAME, SAME},
    {CALL(writer_describe, WRITER), LAPWING_OK, NULLS, SIZES, SIZES},
    {CALL(reader_next, READER), LAPWING_EMPTY, NULLS, SAME, SAME},
    {CALL(reader_poll, READER), LAPWING_EMPTY, NULLS, ARGUMENT, ARGUMENT},
    {CALL(reader_poll_no_buffer, READER), LAPWING_EMPTY, NULLS, SAME, SAME},
    {CALL(reader_commit, READER), LAPWING_OK, SAME, SAME, SAME},
    {CALL(reader_rejoin, READER), LAPWING_OK, SAME, SAME, ARGUMENT},
    {CALL(reader_rejoin_after, READER), LAPWING_E_FUTURE_SEQUENCE, SAME, SAME, SAME},
    {CALL(reader_get_gap, READER), LAPWING_OK, NULLS, SAME, SAME},
    {CALL(reader_get_closed, READER), LAPWING_E_STATE, NULLS, SIZES, SIZES},
    {CALL(reader_describe, READER), LAPWING_OK, NULLS, SIZES, SIZES},
    {CALL(reader_get_position, READER), LAPWING_OK, NULLS, SIZES, SIZES},
    {CALL(reader_get_fd, READER), LAPWING_OK, NULLS, SAME, SAME},
    {CALL(bus_inspect, NONE), LAPWING_OK, NULLS, SIZES, SIZES},
    {CALL(bus_evict, NONE), LAPWING_E_NO_SUCH_READER, NULLS, SAME, SAME},
    {CALL(bus_reap, NONE), LAPWING_OK, NULLS, LAPWING_OK, ARGUMENT},
    {CALL(bus_forget, NONE), ARGUMENT, NULLS, LAPWING_E_NAME_UNKNOWN, SAME},
    {CALL(bus_forget_unknown, NONE), LAPWING_E_NAME_UNKNOWN, NULLS, SAME, SAME},
    {CALL(bus_remove, NONE), LAPWING_E_WRITER_BUSY, NULLS, LAPWING_E_NOT_FOUND, SAME},
    {CALL(writer_create, NONE), LAPWING_E_ALREADY_EXISTS, NULLS, SIZES, SIZES},
    {CALL(writer_create_path, NONE), LAPWING_E_ALREADY_EXISTS, NULLS, SAME, SAME},
    {CALL(writer_open, NONE), LAPWING_E_WRITER_BUSY, NULLS, LAPWING_E_NOT_FOUND, SAME},
    {CALL(writer_open_out, NONE), LAPWING_E_WRITER_BUSY, NULLS, SAME, SAME},
    {CALL(writer_standby, NONE), LAPWING_E_NOT_FOUND, NULLS, SAME, SAME},
    {CALL(reader_open, NONE), LAPWING_E_NOT_FOUND, NULLS, SIZES, SIZES},
    {CALL(reader_open_path, NONE), LAPWING_E_NOT_FOUND, NULLS, SAME, SAME},
};
enum { CALLS = sizeof calls / sizeof *calls };

static void expect(int call, const char *manner, int found, int expected) {
    if (expected == SAME)
        expected = calls[call].good;
    if (found != expected || (found < 0 && !*lapwing_last_error())) {
        fprintf(stderr, "%s, %s: %s, expected %s; last error: %s\n", calls[call].name, manner, lapwing_status_name(found),
                lapwing_status_name(expected), lapwing_last_error());
        abort();
    }
}

static void *handle_of(enum kind kind) {
    return kind == WRITER ? (void *)writer : kind == READER ? (void *)reader : NULL;
}

/* Reads what the good calls published. */
static void drain(void) {
    lapwing_record record;
    while (lapwing_reader_next(reader, 0, &record) == LAPWING_OK)
        continue;
}

static void *call_one(void *index) {
    int call = *(int *)index;
    struct how how = {.handle = handle_of(calls[call].kind)};
    expect(call, "in another thread", calls[call].call(&how), SAME);
    return NULL;
}

static int every_call_after_fork(void *context) {
    (void)context;
    for (int call = 0; call < CALLS; call++) {
        struct how how = {.handle = handle_of(calls[call].kind)};
        if (calls[call].kind != NONE)
            expect(call, "after fork", calls[call].call(&how), LAPWING_E_FORKED);
    }
    CHECK_STATUS(lapwing_writer_close(&writer, 1, "the child"), LAPWING_E_FORKED);
    CHECK_STATUS(lapwing_reader_close(&reader), LAPWING_E_FORKED);
    CHECK(writer == NULL && reader == NULL);
    CHECK_OK(lapwing_writer_close(&writer, 0, NULL));
    return 0;
}

static int claim_after_fork(void *data) {
    memset(data, 'x', 16);
    CHECK_STATUS(lapwing_writer_commit(writer, 16, NULL), LAPWING_E_FORKED);
    CHECK_STATUS(lapwing_writer_abandon(&writer), LAPWING_E_FORKED);
    CHECK_STATUS(lapwing_reader_close(&reader), LAPWING_E_FORKED);
    return 0;
}

static void *wait_for_ever(void *context) {
    lapwing_record record;
    CHECK_OK(lapwing_reader_next(context, LONG_NS, &record));
    return NULL;
}

/* A call that waits in one thread keeps all others out, closing included. */
static void busy(void) {
    char other[300];
    snprintf(other, sizeof other, "%s-busy", path);
    lapwing_writer *waker = NULL;
    lapwing_reader *waiting = NULL;
    CHECK_OK(lapwing_writer_create(other, NULL, &waker));
    CHECK_OK(lapwing_reader_open(other, NULL, &waiting));
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, wait_for_ever, waiting), 0);
    wait_for_sleeper(other);
    for (int call = 0; call < CALLS; call++) {
        struct how how = {.handle = waiting};
        if (calls[call].kind == READER)
            expect(call, "during another thread's call", calls[call].call(&how), LAPWING_E_BUSY);
    }
    CHECK_STATUS(lapwing_reader_close(&waiting), LAPWING_E_BUSY);
    CHECK(waiting != NULL);
    CHECK_OK(lapwing_writer_publish(waker, 0, "wake", 4, NULL));
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_OK(lapwing_reader_close(&waiting));
    CHECK_OK(lapwing_writer_close(&waker, 0, NULL));
    CHECK_OK(lapwing_bus_remove(other));
}

static void every_call(void) {
    static _Alignas(16) unsigned char zeros[64], letters[64];
    memset(letters, 'A', sizeof letters);
    for (int call = 0; call < CALLS; call++) {
        enum kind kind = calls[call].kind;
        int (*run)(const struct how *) = calls[call].call;
        struct how good = {.handle = handle_of(kind)}, how;
        drain();
        expect(call, "good", run(&good), SAME);
        drain();
        how = good, how.null = 1;
        expect(call, "NULL arguments", run(&how), calls[call].null);
        drain();
        how = good, how.zero = 1;
        expect(call, "sizes of zero", run(&how), calls[call].zero);
        drain();
        how = good, how.huge = 1;
        expect(call, "huge sizes", run(&how), calls[call].huge);
        drain();
        how = good, how.misaligned = 1;
        expect(call, "misaligned", run(&how), SAME);
        drain();
        if (kind == NONE)
            continue;
        how = good, how.handle = NULL; /* which is also what closing leaves */
        expect(call, "NULL", run(&how), LAPWING_E_NULL);
        how.handle = kind == WRITER ? (void *)reader : (void *)writer;
        expect(call, "wrong kind", run(&how), LAPWING_E_HANDLE);
        how.handle = zeros;
        expect(call, "zeros", run(&how), LAPWING_E_HANDLE);
        how.handle = letters;
        expect(call, "letters", run(&how), LAPWING_E_HANDLE);
        how.handle = (char *)good.handle + 1;
        expect(call, "odd address", run(&how), LAPWING_E_HANDLE);
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, call_one, &call), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
    }
}

static void forks(void) {
    CHECK_EQ(in_child(every_call_after_fork, NULL), 0);
    void *data;
    CHECK_OK(lapwing_writer_claim(writer, 0, 16, &data));
    CHECK_EQ(in_child(claim_after_fork, data), 0);
    memcpy(data, "parent", 6);
    drain();
    CHECK_OK(lapwing_writer_commit(writer, 6, NULL));
    lapwing_record record;
    CHECK_OK(lapwing_reader_next(reader, 0, &record));
    CHECK(record.length == 6 && !memcmp(record.data, "parent", 6));
}

static void closing(void) {
    CHECK_STATUS(lapwing_writer_close(NULL, 0, NULL), LAPWING_E_NULL);
    CHECK_STATUS(lapwing_writer_abandon(NULL), LAPWING_E_NULL);
    CHECK_STATUS(lapwing_reader_close(NULL), LAPWING_E_NULL);
    lapwing_writer *not_writer = (lapwing_writer *)(void *)reader;
    CHECK_STATUS(lapwing_writer_close(&not_writer, 0, NULL), LAPWING_E_HANDLE);
    CHECK_STATUS(lapwing_writer_abandon(&not_writer), LAPWING_E_HANDLE);
    lapwing_reader *not_reader = (lapwing_reader *)(void *)writer;
    CHECK_STATUS(lapwing_reader_close(&not_reader), LAPWING_E_HANDLE);
    char reason[122];
    memset(reason, 'r', sizeof reason);
    reason[121] = 0;
    CHECK_STATUS(lapwing_writer_close(&writer, 0, reason), LAPWING_E_INVALID_OPTION);
    CHECK_STATUS(lapwing_writer_close(&writer, 0, "\xff"), LAPWING_E_ARGUMENT);
    CHECK(writer != NULL);
    reason[120] = 0;
    void *given_up;
    CHECK_OK(lapwing_writer_claim(writer, 0, 16, &given_up));
    CHECK_OK(lapwing_writer_close(&writer, 7, reason));
    CHECK(writer == NULL);
    CHECK_OK(lapwing_writer_close(&writer, 7, reason));
    CHECK_OK(lapwing_writer_abandon(&writer));
    lapwing_record record;
    CHECK_STATUS(lapwing_reader_next(reader, LONG_NS, &record), LAPWING_CLOSED);
    lapwing_closed closed = {.size = sizeof closed};
    CHECK_OK(lapwing_reader_get_closed(reader, &closed));
    CHECK(closed.code == 7 && !strcmp(closed.reason, reason));
    CHECK_OK(lapwing_reader_close(&reader));
    CHECK_OK(lapwing_reader_close(&reader));
}

static void options(void) {
    lapwing_writer_options options = {.size = sizeof options, .existing = 3};
    CHECK_STATUS(lapwing_writer_create(path, &options, &writer), LAPWING_E_ARGUMENT);
    options = (lapwing_writer_options){.size = sizeof options, .flags = 1u << 31};
    CHECK_STATUS(lapwing_writer_create(path, &options, &writer), LAPWING_E_ARGUMENT);
    options = (lapwing_writer_options){.size = sizeof options, .capacity = 5000};
    CHECK_STATUS(lapwing_writer_create(path, &options, &writer), LAPWING_E_INVALID_OPTION);
    options = (lapwing_writer_options){.size = sizeof options, .existing = LAPWING_EXISTING_REPLACE};
    /* A later, larger struct: fine while what we do not know is zero. */
    struct {
        lapwing_writer_options known;
        uint64_t later;
    } larger = {options, 0};
    larger.known.size = sizeof larger;
    CHECK_OK(lapwing_writer_create(path, &larger.known, &writer));
    CHECK_OK(lapwing_writer_close(&writer, 0, NULL));
    larger.later = 1;
    CHECK_STATUS(lapwing_writer_create(path, &larger.known, &writer), LAPWING_E_SIZE);
    CHECK(writer == NULL);
    const lapwing_reader_options bad[] = {
        {.reader_class = 5}, {.wait = 3}, {.start = 5}, {.flags = LAPWING_STAMPED}, {.name = "\xff"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        lapwing_reader_options given = bad[i];
        given.size = sizeof given;
        CHECK_STATUS(lapwing_reader_open(path, &given, &reader), LAPWING_E_ARGUMENT);
    }
    /* Longer than what is meant for it: refused before anything copies it. */
    static char name[66], long_path[5000];
    memset(name, 'n', sizeof name - 1);
    memset(long_path, '/', sizeof long_path - 1);
    lapwing_reader_options named = {.size = sizeof named, .name = name};
    CHECK_STATUS(lapwing_reader_open(path, &named, &reader), LAPWING_E_INVALID_OPTION);
    CHECK_STATUS(lapwing_bus_forget(path, name), LAPWING_E_INVALID_OPTION);
    CHECK(strstr(lapwing_last_error(), "65 bytes"));
    CHECK_STATUS(lapwing_bus_remove(long_path), LAPWING_E_IO);
    CHECK_STATUS(lapwing_writer_open(long_path, &writer), LAPWING_E_IO);
    CHECK(strstr(lapwing_last_error(), "4999 bytes"));
    lapwing_reader_options observer = {
        .size = sizeof observer, .reader_class = LAPWING_CLASS_OBSERVER, .name = "observers have none"};
    CHECK_STATUS(lapwing_reader_open(path, &observer, &reader), LAPWING_E_INVALID_OPTION);
    observer.name = NULL;
    observer.start = LAPWING_START_RESUME;
    CHECK_STATUS(lapwing_reader_open(path, &observer, &reader), LAPWING_E_INVALID_OPTION);
    observer.start = LAPWING_START_LATEST;
    CHECK_OK(lapwing_reader_open(path, &observer, &reader));
    lapwing_reader_info info = {.size = sizeof info};
    CHECK_STATUS(lapwing_reader_describe(reader, &info), LAPWING_E_STATE);
    CHECK_STATUS(lapwing_reader_commit(reader), LAPWING_E_STATE);
    int fd;
    CHECK_STATUS(lapwing_reader_get_fd(reader, &fd), LAPWING_E_STATE);
    CHECK_OK(lapwing_reader_close(&reader));
}

int main(void) {
    path = fresh_path("misuse");
    CHECK_OK(lapwing_writer_create(path, NULL, &writer));
    CHECK_OK(lapwing_reader_open(path, NULL, &reader));
    every_call();
    busy();
    forks();
    closing();
    options();
    CHECK_OK(lapwing_bus_remove(path));
    CHECK(!strcmp(lapwing_status_name(-12345), "LAPWING_UNKNOWN"));
    printf("misuse: fine\n");
    return 0;
}
