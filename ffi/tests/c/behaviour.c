/* Everything the library can do, through the header. */
#include "check.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/time.h>
#include <time.h>

#define SMALL 4096 /* the smallest ring: overruns come soon */

static const char *path;

static lapwing_writer *create(uint64_t capacity, uint32_t flags) {
    lapwing_writer_options options = {.size = sizeof options, .capacity = capacity, .flags = flags};
    lapwing_writer *writer = NULL;
    CHECK_OK(lapwing_writer_create(path, &options, &writer));
    return writer;
}

static lapwing_reader *attach(lapwing_reader_options options) {
    lapwing_reader *reader = NULL;
    options.size = sizeof options;
    CHECK_OK(lapwing_reader_open(path, &options, &reader));
    return reader;
}

static void end(lapwing_writer **writer) {
    CHECK_OK(lapwing_writer_close(writer, 0, NULL));
    CHECK_OK(lapwing_bus_remove(path));
}

/* Publishes records of 40 bytes until a reader is in the way; returns how many there were. */
static uint64_t fill(lapwing_writer *writer) {
    char payload[40] = "fill";
    int status;
    for (uint64_t count = 0;; count++) {
        if ((status = lapwing_writer_try_publish(writer, 0, payload, sizeof payload, NULL)) != LAPWING_OK) {
            CHECK_STATUS(status, LAPWING_WOULD_OVERRUN);
            return count;
        }
        CHECK(count < 1000);
    }
}

static void expect_record(lapwing_reader *reader, uint64_t sequence, uint32_t tag, const char *text) {
    lapwing_record record;
    CHECK_OK(lapwing_reader_next(reader, LONG_NS, &record));
    CHECK_EQ(record.sequence, sequence);
    CHECK_EQ(record.tag, tag);
    CHECK_EQ(record.length, strlen(text));
    CHECK(!memcmp(record.data, text, record.length));
    CHECK_EQ((uintptr_t)record.data % 8, 0);
}

static void publishing(void) {
    lapwing_writer *writer = create(0, 0);
    lapwing_reader *reader = attach((lapwing_reader_options){0});
    uint64_t sequence = 99;
    CHECK_OK(lapwing_writer_publish(writer, 1, "one", 3, &sequence));
    CHECK_EQ(sequence, 0);
    const lapwing_slice parts[] = {{"vec", 3}, {NULL, 0}, {"tored", 5}};
    CHECK_OK(lapwing_writer_publish_vectored(writer, 2, parts, 3, &sequence));
    CHECK_EQ(sequence, 1);
    const lapwing_message batch[] = {{"first", 5, 3, 0}, {NULL, 0, 4, 0}, {"third", 5, 5, 0}};
    CHECK_OK(lapwing_writer_publish_batch(writer, batch, 3, &sequence));
    CHECK_EQ(sequence, 2);
    void *data = NULL;
    CHECK_OK(lapwing_writer_claim(writer, 6, 100, &data));
    CHECK_STATUS(lapwing_writer_publish(writer, 0, "no", 2, NULL), LAPWING_E_STATE);
    CHECK_STATUS(lapwing_writer_claim(writer, 6, 100, &data), LAPWING_E_STATE);
    CHECK_OK(lapwing_writer_abort(writer));
    CHECK_OK(lapwing_writer_claim(writer, 6, 100, &data));
    memcpy(data, "claimed", 7);
    CHECK_STATUS(lapwing_writer_commit(writer, 101, NULL), LAPWING_E_TOO_LARGE);
    CHECK_OK(lapwing_writer_commit(writer, 7, &sequence));
    CHECK_EQ(sequence, 5);
    /* A batch that is too large leaves nothing behind. */
    static char large[1 << 20];
    const lapwing_message too_large[] = {{"gone", 4, 0, 0}, {large, sizeof large - 20, 0, 0}, {"gone", 4, 0, 0}};
    CHECK_STATUS(lapwing_writer_publish_batch(writer, too_large, 3, NULL), LAPWING_E_TOO_LARGE);
    CHECK_STATUS(lapwing_writer_publish(writer, 0, large, sizeof large, NULL), LAPWING_E_TOO_LARGE);
    CHECK(strstr(lapwing_last_error(), "1048576") != NULL);

    expect_record(reader, 0, 1, "one");
    expect_record(reader, 1, 2, "vectored");
    expect_record(reader, 2, 3, "first");
    expect_record(reader, 3, 4, "");
    expect_record(reader, 4, 5, "third");
    expect_record(reader, 5, 6, "claimed");
    lapwing_record record;
    CHECK_STATUS(lapwing_reader_next(reader, 0, &record), LAPWING_EMPTY);
    CHECK_STATUS(lapwing_reader_next(reader, 1000000, &record), LAPWING_EMPTY);

    lapwing_writer_info info = {.size = sizeof info};
    CHECK_OK(lapwing_writer_describe(writer, &info));
    CHECK(info.next_sequence == 6 && info.epoch == 1 && info.capacity == 4 << 20 && info.stats.published == 6);
    CHECK_EQ(info.max_record, (1 << 20) - 16);
    CHECK_OK(lapwing_writer_wait_for_readers(writer, LONG_NS));
    lapwing_position position = {.size = sizeof position};
    CHECK_OK(lapwing_reader_get_position(reader, &position));
    CHECK(position.next_sequence == 6 && position.writer_alive == 1 && position.max_record == info.max_record);
    CHECK_OK(lapwing_writer_publish(writer, 0, "unread", 6, NULL));
    CHECK_STATUS(lapwing_writer_wait_for_readers(writer, 1000000), LAPWING_TIMEOUT);

    lapwing_snapshot snapshot = {.size = sizeof snapshot};
    lapwing_reader_info readers[2] = {{.size = sizeof *readers}};
    size_t count = 0;
    CHECK_OK(lapwing_bus_inspect(path, &snapshot, readers, 2, &count));
    CHECK(snapshot.writer_state == LAPWING_WRITER_ALIVE && snapshot.next_sequence == 7 && snapshot.oldest_sequence == 0);
    CHECK(snapshot.flags == LAPWING_READERS_KNOWN && snapshot.writer_pid == (uint32_t)getpid());
    CHECK_EQ(count, 1);
    CHECK(readers[0].delivered == 6 && readers[0].pending == 1 && readers[0].state == LAPWING_STATE_ACTIVE);
    CHECK(readers[0].flags & LAPWING_READER_ALIVE);
    CHECK_OK(lapwing_reader_close(&reader));
    end(&writer);
}

/* The report in the caller's memory, eviction, the gap, rejoining, and the books. */
static void overrun(void) {
    lapwing_writer *writer = create(SMALL, 0);
    lapwing_reader *slow = attach((lapwing_reader_options){.name = "slow"});
    lapwing_reader *pinned = attach((lapwing_reader_options){.reader_class = LAPWING_CLASS_PINNED});
    lapwing_reader *lossy = attach((lapwing_reader_options){.reader_class = LAPWING_CLASS_LOSSY});
    uint64_t published = fill(writer);

    lapwing_overrun report = {.size = sizeof report};
    lapwing_reader_info readers[3] = {{.size = sizeof *readers}};
    size_t count = 0;
    CHECK_STATUS(lapwing_writer_get_overrun(writer, &report, readers, 1, &count), LAPWING_TRUNCATED);
    CHECK_EQ(count, 2);
    CHECK_OK(lapwing_writer_get_overrun(writer, &report, readers, 3, &count));
    CHECK(count == 2 && report.sequence == published && report.needed == 64);
    const lapwing_reader_info *of_slow = !strcmp(readers[0].name, "slow") ? &readers[0] : &readers[1];
    const lapwing_reader_info *of_pinned = of_slow == &readers[0] ? &readers[1] : &readers[0];
    CHECK(of_slow->flags & LAPWING_READER_EVICTABLE && of_slow->flags & LAPWING_READER_ALIVE);
    CHECK(of_slow->pid == (uint32_t)getpid() && of_slow->pending == published);
    CHECK(of_pinned->reader_class == LAPWING_CLASS_PINNED && !(of_pinned->flags & LAPWING_READER_EVICTABLE));

    CHECK_STATUS(lapwing_writer_evict(writer, of_pinned->id), LAPWING_E_NOT_EVICTABLE);
    uint64_t slow_id = of_slow->id;
    CHECK_OK(lapwing_writer_evict(writer, slow_id));
    CHECK_STATUS(lapwing_writer_evict(writer, slow_id), LAPWING_ALREADY);
    CHECK_STATUS(lapwing_bus_evict(path, slow_id), LAPWING_ALREADY);
    CHECK_EQ(fill(writer), 0);
    CHECK_OK(lapwing_reader_close(&pinned));
    CHECK_OK(lapwing_writer_set_policy(writer, LAPWING_POLICY_EVICT, 0));
    for (int i = 0; i < 200; i++)
        CHECK_OK(lapwing_writer_publish(writer, 0, "more", 4, NULL));

    /* The events tell the same story. */
    int evicted = 0, overruns = 0, warned = 0;
    lapwing_event event = {.size = sizeof event};
    lapwing_reader_info who = {.size = sizeof who};
    int status;
    while ((status = lapwing_writer_take_event(writer, &event, &who)) == LAPWING_OK) {
        evicted += event.kind == LAPWING_EVENT_EVICTED && who.id == slow_id && event.gap.end == published;
        overruns += event.kind == LAPWING_EVENT_OVERRUN && event.count > 0;
        warned += event.kind == LAPWING_EVENT_WARNING && event.percent >= 50;
    }
    CHECK_STATUS(status, LAPWING_EMPTY);
    CHECK(evicted == 1 && overruns >= 1 && warned >= 1);

    lapwing_record record;
    lapwing_gap gap;
    /* What is left of the ring is the evicted reader's no more: told at once, or when it is lapped. */
    while ((status = lapwing_reader_next(slow, 0, &record)) == LAPWING_OK)
        CHECK(record.sequence < published);
    CHECK_STATUS(status, LAPWING_EVICTED);
    CHECK_OK(lapwing_reader_get_gap(slow, &gap));
    uint64_t wanted = gap.first;
    CHECK_OK(lapwing_reader_rejoin(slow, LAPWING_START_OLDEST, 0, &gap));
    CHECK(gap.first == wanted && gap.end > gap.first);
    CHECK_OK(lapwing_reader_next(slow, 0, &record));
    CHECK_EQ(record.sequence, gap.end);
    uint64_t last = 0;
    do
        last = record.sequence;
    while ((status = lapwing_reader_next(slow, 0, &record)) == LAPWING_OK);
    CHECK_STATUS(status, LAPWING_EMPTY);
    CHECK_EQ(last, published + 199);
    lapwing_reader_info books = {.size = sizeof books};
    CHECK_OK(lapwing_reader_describe(slow, &books));
    CHECK(books.delivered + books.missed == last + 1 && books.missed == gap.end - gap.first && books.pending == 0);

    CHECK_STATUS(lapwing_reader_next(lossy, 0, &record), LAPWING_GAP);
    CHECK_OK(lapwing_reader_get_gap(lossy, &gap));
    CHECK(gap.first == 0 && gap.end > 0);
    CHECK_OK(lapwing_reader_next(lossy, 0, &record));
    CHECK_EQ(record.sequence, gap.end);
    CHECK_OK(lapwing_reader_close(&lossy));
    CHECK_OK(lapwing_reader_close(&slow));
    CHECK_OK(lapwing_bus_forget(path, "slow"));
    CHECK_STATUS(lapwing_bus_forget(path, "slow"), LAPWING_E_NAME_UNKNOWN);
    end(&writer);
}

/* A poll copies into the caller's buffer; what does not fit stays, and is committed with what it came with. */
static void polling(void) {
    lapwing_writer *writer = create(0, 0);
    lapwing_reader_options options = {.name = "poller", .flags = LAPWING_HOLD_WHILE_AWAY};
    lapwing_reader *reader = attach(options);
    char payload[100];
    for (int i = 0; i < 10; i++) {
        memset(payload, 'a' + i, sizeof payload);
        CHECK_OK(lapwing_writer_publish(writer, (uint32_t)i, payload, (size_t)(10 * i), NULL));
    }
    lapwing_record records[64];
    static _Alignas(8) char buffer[4096];
    size_t count = 99;
    /* 0, 10, 20, 30 and 40 bytes take 0 + 16 + 24 + 32 + 40 */
    CHECK_OK(lapwing_reader_poll(reader, 0, records, 64, buffer, 112, &count));
    CHECK_EQ(count, 5);
    for (size_t i = 0; i < count; i++) {
        memset(payload, 'a' + (int)i, sizeof payload);
        CHECK(records[i].sequence == i && records[i].tag == i && records[i].length == 10 * i);
        CHECK(!memcmp(records[i].data, payload, 10 * i));
        CHECK((const char *)records[i].data >= buffer && (uintptr_t)records[i].data % 8 == 0);
    }
    CHECK_STATUS(lapwing_reader_poll(reader, 0, records, 64, buffer, 49, &count), LAPWING_E_TOO_SMALL);
    CHECK(count == 0 && records[0].length == 50 && records[0].sequence == 5 && records[0].data == NULL);
    lapwing_position position = {.size = sizeof position};
    CHECK_OK(lapwing_reader_get_position(reader, &position));
    CHECK_EQ(position.next_sequence, 5);
    /* Asking for more has committed what was handed out, and not the one that did not fit. */
    lapwing_reader_info info = {.size = sizeof info};
    CHECK_OK(lapwing_reader_describe(reader, &info));
    CHECK_EQ(info.cursor, 5);
    CHECK_OK(lapwing_reader_commit(reader));
    CHECK_OK(lapwing_reader_describe(reader, &info));
    CHECK_EQ(info.cursor, 5);
    CHECK_OK(lapwing_reader_poll(reader, 0, records, 2, buffer, sizeof buffer, &count));
    CHECK(count == 2 && records[0].sequence == 5 && records[0].length == 50 && records[1].sequence == 6);
    /* Nothing of this poll is committed until the next: who dies here gets it again. */
    CHECK_OK(lapwing_reader_describe(reader, &info));
    CHECK_EQ(info.cursor, 5);
    CHECK_OK(lapwing_reader_close(&reader));
    options.start = LAPWING_START_RESUME;
    reader = attach(options);
    CHECK_OK(lapwing_reader_get_position(reader, &position));
    CHECK_EQ(position.next_sequence, 5);
    /* Without a buffer: in the reader's own memory, until the next call. */
    CHECK_OK(lapwing_reader_poll(reader, 0, records, 64, NULL, 0, &count));
    CHECK_EQ(count, 10 - position.next_sequence);
    for (size_t i = 0; i < count; i++) {
        int which = (int)(position.next_sequence + i);
        memset(payload, 'a' + which, sizeof payload);
        CHECK(records[i].length == (size_t)(10 * which) && !memcmp(records[i].data, payload, records[i].length));
    }
    CHECK_STATUS(lapwing_reader_poll(reader, 0, records, 64, NULL, 0, &count), LAPWING_EMPTY);
    CHECK_EQ(count, 0);
    CHECK_OK(lapwing_reader_describe(reader, &info));
    CHECK(info.cursor == 10 && info.pending == 0);
    /* What follows the last record comes with the next call. */
    CHECK_OK(lapwing_writer_publish(writer, 0, "last", 4, NULL));
    CHECK_OK(lapwing_writer_close(&writer, 3, "done"));
    CHECK_OK(lapwing_reader_poll(reader, LONG_NS, records, 64, buffer, sizeof buffer, &count));
    CHECK_EQ(count, 1);
    CHECK_STATUS(lapwing_reader_poll(reader, LONG_NS, records, 64, buffer, sizeof buffer, &count), LAPWING_CLOSED);
    CHECK_EQ(count, 0);
    lapwing_closed closed = {.size = sizeof closed};
    CHECK_OK(lapwing_reader_get_closed(reader, &closed));
    CHECK(closed.code == 3 && closed.sequence == 11 && !strcmp(closed.reason, "done"));
    CHECK_OK(lapwing_reader_close(&reader));
    CHECK_OK(lapwing_bus_remove(path));
}

/* A poll that gathers much, in every position of a growing arena. */
static void much(void) {
    lapwing_writer *writer = create(16 << 20, 0);
    lapwing_reader *reader = attach((lapwing_reader_options){0});
    static char payload[200000];
    for (size_t i = 0; i < 20; i++) {
        memset(payload, (int)('a' + i), sizeof payload);
        CHECK_OK(lapwing_writer_publish(writer, 0, payload, sizeof payload, NULL));
    }
    lapwing_record records[20];
    size_t seen = 0, calls = 0;
    while (seen < 20) {
        size_t count;
        CHECK_OK(lapwing_reader_poll(reader, 0, records, 20, NULL, 0, &count));
        for (size_t i = 0; i < count; i++, seen++) {
            memset(payload, (int)('a' + seen), sizeof payload);
            CHECK(records[i].sequence == seen && !memcmp(records[i].data, payload, sizeof payload));
        }
        calls++;
    }
    CHECK(calls > 1 && calls < 20);
    CHECK_OK(lapwing_reader_close(&reader));
    end(&writer);
}

/* A pinned reader's payloads lie in the ring, and nothing overwrites them until they are committed. */
static void pinned(void) {
    lapwing_writer *writer = create(SMALL, 0);
    lapwing_reader *reader =
        attach((lapwing_reader_options){.reader_class = LAPWING_CLASS_PINNED, .flags = LAPWING_MANUAL_COMMIT});
    uint64_t first = fill(writer);
    lapwing_record records[128], none;
    size_t count;
    CHECK_OK(lapwing_reader_poll(reader, 0, records, 128, NULL, 0, &count));
    CHECK_EQ(count, first);
    CHECK_EQ(fill(writer), 0);
    CHECK_STATUS(lapwing_reader_next(reader, 0, &none), LAPWING_EMPTY);
    CHECK_EQ(fill(writer), 0);
    for (size_t i = 0; i < count; i++)
        CHECK(records[i].length == 40 && !memcmp(records[i].data, "fill", 5));
    CHECK_OK(lapwing_reader_commit(reader));
    CHECK(fill(writer) > 0);
    CHECK_OK(lapwing_reader_close(&reader));
    end(&writer);
}

/* Who commits by hand and filters does not stall the writer with what it never wanted. */
static void filtering(void) {
    lapwing_writer *writer = create(SMALL, 0);
    lapwing_reader *reader = attach(
        (lapwing_reader_options){.flags = LAPWING_MANUAL_COMMIT, .filter_mask = 0xff, .filter_value = 7});
    lapwing_reader *automatic = attach((lapwing_reader_options){.filter_mask = 0xff, .filter_value = 7});
    lapwing_record record;
    CHECK_OK(lapwing_writer_try_publish(writer, 0x107, "wanted", 6, NULL));
    CHECK_OK(lapwing_reader_next(reader, 0, &record));
    CHECK_OK(lapwing_reader_next(automatic, 0, &record));
    CHECK_OK(lapwing_reader_commit(reader));
    for (int i = 0; i < 1000; i++) {
        CHECK_OK(lapwing_writer_try_publish(writer, 8, "unwanted", 8, NULL));
        CHECK_STATUS(lapwing_reader_next(reader, 0, &record), LAPWING_EMPTY);
        CHECK_STATUS(lapwing_reader_next(automatic, 0, &record), LAPWING_EMPTY);
    }
    CHECK_OK(lapwing_reader_close(&reader));
    CHECK_OK(lapwing_reader_close(&automatic));
    end(&writer);
}

/* With manual commit a record counts as handled when the reader says so, and not before. */
static void committing(void) {
    lapwing_writer *writer = create(0, 0);
    lapwing_reader_options options = {
        .name = "careful", .flags = LAPWING_MANUAL_COMMIT | LAPWING_HOLD_WHILE_AWAY, .start = LAPWING_START_RESUME};
    lapwing_reader *reader = attach(options);
    CHECK_OK(lapwing_writer_publish(writer, 0, "a", 1, NULL));
    CHECK_OK(lapwing_writer_publish(writer, 0, "b", 1, NULL));
    CHECK_OK(lapwing_writer_publish(writer, 0, "c", 1, NULL));
    expect_record(reader, 0, 0, "a");
    CHECK_OK(lapwing_reader_commit(reader));
    expect_record(reader, 1, 0, "b");
    expect_record(reader, 2, 0, "c");
    CHECK_OK(lapwing_reader_close(&reader));
    reader = attach(options);
    expect_record(reader, 1, 0, "b");
    CHECK_OK(lapwing_reader_close(&reader));
    /* Asking for more commits otherwise, and closing never does. */
    options.flags = LAPWING_HOLD_WHILE_AWAY;
    reader = attach(options);
    expect_record(reader, 1, 0, "b");
    expect_record(reader, 2, 0, "c");
    CHECK_OK(lapwing_reader_close(&reader));
    reader = attach(options);
    expect_record(reader, 2, 0, "c");
    lapwing_reader *second = NULL;
    options.size = sizeof options;
    CHECK_STATUS(lapwing_reader_open(path, &options, &second), LAPWING_E_NAME_TAKEN);
    CHECK_OK(lapwing_reader_close(&reader));
    end(&writer);
}

static void observing(void) {
    lapwing_writer *writer = create(SMALL, LAPWING_STAMPED);
    struct timespec before, after;
    clock_gettime(CLOCK_REALTIME, &before);
    CHECK_OK(lapwing_writer_publish(writer, 5, "seen", 4, NULL));
    clock_gettime(CLOCK_REALTIME, &after);
    lapwing_reader *observer =
        attach((lapwing_reader_options){.reader_class = LAPWING_CLASS_OBSERVER, .start = LAPWING_START_OLDEST});
    lapwing_record record;
    CHECK_OK(lapwing_reader_next(observer, 0, &record));
    CHECK(record.tag == 5 && record.length == 4 && !memcmp(record.data, "seen", 4));
    CHECK(record.stamp_ns >= (uint64_t)before.tv_sec * 1000000000u + (uint64_t)before.tv_nsec);
    CHECK(record.stamp_ns <= (uint64_t)after.tv_sec * 1000000000u + (uint64_t)after.tv_nsec);
    for (int i = 0; i < 1000; i++)
        CHECK_OK(lapwing_writer_try_publish(writer, 0, "unseen", 6, NULL));
    CHECK_STATUS(lapwing_reader_next(observer, 0, &record), LAPWING_GAP);
    lapwing_gap gap;
    CHECK_OK(lapwing_reader_get_gap(observer, &gap));
    CHECK(gap.first == 1 && gap.end > 1 && gap.end < 1001);
    size_t count;
    lapwing_record records[8];
    CHECK_OK(lapwing_reader_poll(observer, 0, records, 8, NULL, 0, &count));
    CHECK(count == 8 && records[0].sequence == gap.end && !memcmp(records[7].data, "unseen", 6));
    CHECK_OK(lapwing_reader_rejoin(observer, LAPWING_START_AFTER, 999, &gap));
    CHECK_OK(lapwing_reader_next(observer, LONG_NS, &record));
    CHECK_EQ(record.sequence, 1000);
    CHECK_OK(lapwing_reader_close(&observer));
    end(&writer);
}

static int die_as_writer(void *context) {
    (void)context;
    lapwing_writer *writer = NULL;
    CHECK_OK(lapwing_writer_open(path, &writer));
    CHECK_OK(lapwing_writer_publish(writer, 0, "from the child", 14, NULL));
    CHECK_OK(lapwing_writer_abandon(&writer));
    return 42;
}

/* Within reach to the end: the kernel tells of its death. */
lapwing_reader *never_closed;

static int die_as_reader(void *context) {
    (void)context;
    never_closed = attach((lapwing_reader_options){0});
    return never_closed != NULL ? 43 : 1;
}

/* A writer that goes is told, the next one goes on, and readers keep their places. */
static void takeover(void) {
    lapwing_writer *writer = create(0, 0);
    CHECK_OK(lapwing_writer_publish(writer, 0, "from the parent", 15, NULL));
    lapwing_reader *reader = attach((lapwing_reader_options){.start = LAPWING_START_OLDEST});
    lapwing_writer *other = NULL;
    CHECK_STATUS(lapwing_writer_open(path, &other), LAPWING_E_WRITER_BUSY);
    CHECK(other == NULL);
    char pid[32];
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    CHECK(strstr(lapwing_last_error(), pid) != NULL);
    CHECK_EQ(in_child(die_as_reader, NULL), 43);
    lapwing_reader_info dead = {.size = sizeof dead};
    size_t count;
    CHECK_OK(lapwing_writer_reap(writer, &dead, 1, &count));
    CHECK(count == 1 && !(dead.flags & LAPWING_READER_ALIVE));
    CHECK_OK(lapwing_bus_reap(path, NULL, 0, &count));
    CHECK_EQ(count, 0);
    CHECK_OK(lapwing_writer_abandon(&writer));
    CHECK_EQ(in_child(die_as_writer, NULL), 42);
    expect_record(reader, 0, 0, "from the parent");
    expect_record(reader, 1, 0, "from the child");
    lapwing_record record;
    CHECK_STATUS(lapwing_reader_next(reader, LONG_NS, &record), LAPWING_ABSENT);
    CHECK_OK(lapwing_writer_open(path, &writer));
    lapwing_writer_info info = {.size = sizeof info};
    CHECK_OK(lapwing_writer_describe(writer, &info));
    CHECK(info.resumed_at == 2 && info.epoch == 3 && info.stats.takeovers == 2);
    /* A process of its own: valgrind lets no other thread run while one waits for such a lock. */
    fflush(NULL);
    pid_t standby = fork();
    CHECK(standby >= 0);
    if (standby == 0) {
        CHECK_OK(lapwing_writer_standby(path, &other));
        CHECK_OK(lapwing_writer_publish(other, 0, "from the standby", 16, NULL));
        CHECK_OK(lapwing_writer_abandon(&other));
        _exit(0);
    }
    CHECK_OK(lapwing_writer_abandon(&writer));
    int left = -1;
    CHECK_EQ(waitpid(standby, &left, 0), standby);
    CHECK_EQ(left, 0);
    expect_record(reader, 2, 0, "from the standby");
    CHECK_OK(lapwing_reader_close(&reader));
    CHECK_OK(lapwing_writer_open(path, &other));
    end(&other);
}

static void *publish_later(void *writer) {
    for (int i = 0; i < 1000; i++)
        CHECK_OK(lapwing_writer_publish(writer, 0, "tick", 4, NULL));
    return NULL;
}

/* The descriptor, edge triggered: every record arrives, and it is quiet when there is nothing. */
static void descriptor(void) {
    lapwing_writer *writer = create(0, 0);
    lapwing_reader *reader = attach((lapwing_reader_options){0});
    int fd = -1, same = -1;
    CHECK_OK(lapwing_reader_get_fd(reader, &fd));
    CHECK_OK(lapwing_reader_get_fd(reader, &same));
    CHECK(fd >= 0 && fd == same);
    lapwing_record record;
    CHECK_STATUS(lapwing_reader_next(reader, 0, &record), LAPWING_EMPTY);
    struct pollfd quiet = {.fd = fd, .events = POLLIN};
    CHECK_EQ(poll(&quiet, 1, 0), 0);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    CHECK_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, publish_later, writer), 0);
    uint64_t next = 0;
    int status;
    while (next < 1000) {
        CHECK_EQ(epoll_wait(epoll, &event, 1, 30000), 1);
        while ((status = lapwing_reader_next(reader, 0, &record)) != LAPWING_EMPTY) {
            CHECK_OK(status);
            CHECK_EQ(record.sequence, next++);
        }
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_OK(lapwing_writer_close(&writer, 0, NULL));
    /* One wake may be that of the writer's last record. */
    while ((status = lapwing_reader_next(reader, 0, &record)) == LAPWING_EMPTY)
        CHECK_EQ(epoll_wait(epoll, &event, 1, 30000), 1);
    CHECK_STATUS(status, LAPWING_CLOSED);
    close(epoll);
    CHECK_OK(lapwing_reader_close(&reader));
    CHECK_OK(lapwing_bus_remove(path));
}

/* A bus created anew tells the readers of the old one. */
static void replaced(void) {
    lapwing_writer *writer = create(0, 0);
    lapwing_reader *reader = attach((lapwing_reader_options){.schema = 0});
    CHECK_OK(lapwing_writer_abandon(&writer));
    lapwing_writer_options options = {
        .size = sizeof options, .existing = LAPWING_EXISTING_REPLACE, .schema = 17, .flags = LAPWING_NO_PINNED};
    CHECK_OK(lapwing_writer_create(path, &options, &writer));
    lapwing_record record;
    int status;
    while ((status = lapwing_reader_next(reader, LONG_NS, &record)) == LAPWING_ABSENT)
        continue;
    CHECK_STATUS(status, LAPWING_REPLACED);
    CHECK_OK(lapwing_reader_close(&reader));
    lapwing_reader_options wrong = {.size = sizeof wrong, .schema = 18};
    CHECK_STATUS(lapwing_reader_open(path, &wrong, &reader), LAPWING_E_INCOMPATIBLE);
    wrong = (lapwing_reader_options){.size = sizeof wrong, .reader_class = LAPWING_CLASS_PINNED};
    CHECK_STATUS(lapwing_reader_open(path, &wrong, &reader), LAPWING_E_PINNED_FORBIDDEN);
    wrong = (lapwing_reader_options){.size = sizeof wrong, .start = LAPWING_START_AFTER, .start_at = 5};
    CHECK_STATUS(lapwing_reader_open(path, &wrong, &reader), LAPWING_E_FUTURE_SEQUENCE);
    end(&writer);
}

static void ignore(int number) { (void)number; }

/* A signal ends the wait of a standby, which may then go on waiting. */
static void interrupted(void) {
    lapwing_writer *writer = create(0, 0), *other = (lapwing_writer *)(void *)path;
    struct sigaction action = {.sa_handler = ignore}, before;
    CHECK_EQ(sigaction(SIGALRM, &action, &before), 0);
    /* Again and again, in case one comes before the wait. */
    struct itimerval often = {{0, 10000}, {0, 10000}}, never = {{0, 0}, {0, 0}};
    CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_STATUS(lapwing_writer_standby(path, &other), LAPWING_INTERRUPTED);
        CHECK(other == NULL);
    }
    CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
    CHECK_EQ(sigaction(SIGALRM, &before, NULL), 0);
    CHECK_OK(lapwing_writer_publish(writer, 0, "x", 1, NULL));
    CHECK_OK(lapwing_writer_abandon(&writer));
    CHECK_OK(lapwing_writer_standby(path, &other));
    end(&other);
}

static void shrink(const char *suffix) {
    char file[300];
    snprintf(file, sizeof file, "%s%s", path, suffix);
    CHECK_EQ(truncate(file, 0), 0);
}

static void *read_until_lost(void *context) {
    lapwing_reader *waiting = context;
    lapwing_record record;
    CHECK_STATUS(lapwing_reader_next(waiting, LONG_NS, &record), LAPWING_E_FILE_TRUNCATED);
    return NULL;
}

/* A file that shrinks under its handles is a status on them, and nothing to anybody else. */
static void shrunk(void) {
    CHECK_OK(lapwing_guard_install());
    CHECK_OK(lapwing_guard_install());
    char other_path[300], file[300];
    snprintf(other_path, sizeof other_path, "%s-other", path);
    lapwing_writer *other = NULL;
    lapwing_reader *of_other = NULL;
    CHECK_OK(lapwing_writer_create(other_path, NULL, &other));
    CHECK_OK(lapwing_reader_open(other_path, NULL, &of_other));
    const char *const suffixes[] = {"", ".readers"};
    for (size_t i = 0; i < 2; i++) {
        lapwing_writer *writer = create(0, 0);
        lapwing_reader *reader = attach((lapwing_reader_options){.schema = 0});
        lapwing_reader *parked = attach((lapwing_reader_options){.schema = 0});
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, read_until_lost, parked), 0);
        wait_for_sleeper(path);
        shrink(suffixes[i]);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        /* The call that meets it may return what it would have; the next one knows. */
        lapwing_record records[2];
        size_t count;
        int status = lapwing_reader_next(reader, 0, records);
        if (status != LAPWING_EMPTY)
            CHECK_STATUS(status, LAPWING_E_FILE_TRUNCATED);
        for (int again = 0; again < 3; again++) {
            CHECK_STATUS(lapwing_reader_next(reader, 0, records), LAPWING_E_FILE_TRUNCATED);
            CHECK_STATUS(lapwing_reader_poll(reader, 0, records, 2, NULL, 0, &count), LAPWING_E_FILE_TRUNCATED);
        }
        CHECK(strstr(lapwing_last_error(), suffixes[i]));
        status = lapwing_writer_publish(writer, 0, "x", 1, NULL);
        if (status != LAPWING_OK)
            CHECK_STATUS(status, LAPWING_E_FILE_TRUNCATED);
        CHECK_STATUS(lapwing_writer_publish(writer, 0, "x", 1, NULL), LAPWING_E_FILE_TRUNCATED);
        void *data;
        CHECK_STATUS(lapwing_writer_claim(writer, 0, 8, &data), LAPWING_E_FILE_TRUNCATED);
        lapwing_message message = {"x", 1, 0, 0};
        CHECK_STATUS(lapwing_writer_publish_batch(writer, &message, 1, NULL), LAPWING_E_FILE_TRUNCATED);
        CHECK_OK(lapwing_reader_close(&reader));
        CHECK_OK(lapwing_reader_close(&parked));
        CHECK_OK(lapwing_writer_abandon(&writer));
        CHECK(!reader && !parked && !writer);
        /* Nobody else's business. */
        CHECK_OK(lapwing_writer_publish(other, 0, "still", 5, NULL));
        CHECK_OK(lapwing_reader_next(of_other, 0, records));
        const char *const files[] = {"", ".readers", ".lock"};
        for (size_t j = 0; j < 3; j++) {
            snprintf(file, sizeof file, "%s%s", path, files[j]);
            CHECK_EQ(unlink(file), 0);
        }
    }
    CHECK_OK(lapwing_reader_close(&of_other));
    CHECK_OK(lapwing_writer_close(&other, 0, NULL));
    CHECK_OK(lapwing_bus_remove(other_path));
}

int main(void) {
    path = fresh_path("behaviour");
    CHECK(!strcmp(lapwing_version(), LAPWING_VERSION));
    publishing();
    overrun();
    polling();
    much();
    pinned();
    filtering();
    committing();
    observing();
    takeover();
    descriptor();
    replaced();
    /* It does not know that this lock is waited for, and lets no signal through meanwhile. */
    if (!getenv("LAPWING_IN_VALGRIND"))
        interrupted();
    shrunk();
    printf("behaviour: fine\n");
    return 0;
}
