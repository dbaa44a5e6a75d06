/* interop write PATH WHICH COUNT END | read PATH | tell PATH CLASS NAME | hold PATH: the C side of the matrix and the stories; see
 * ffi/tests/interop.rs. */
#include <inttypes.h>
#include <lapwing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char pool[8192];

static uint64_t step(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static uint64_t fold(uint64_t sum, const unsigned char *data, size_t length) {
    uint32_t a = 1, b = 0;
    for (size_t i = 0; i < length; i++) {
        a = (a + data[i]) % 65521;
        b = (b + a) % 65521;
    }
    return sum * 33 + (b << 16 | a) + length;
}

static void check(int status) {
    if (status < 0) {
        fprintf(stderr, "interop.c: %s\n", lapwing_last_error());
        exit(1);
    }
}

static void write_all(const char *path, uint32_t which, uint64_t count, int end) {
    lapwing_writer *writer = NULL;
    check(lapwing_writer_standby(path, &writer));
    check(lapwing_writer_set_policy(writer, LAPWING_POLICY_WAIT, -1));
    uint64_t state = which, sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t random = step(&state);
        const unsigned char *data = pool + random % 4096;
        size_t length = (random >> 12) % 300;
        sum = fold(sum, data, length);
        if (i % 4 == 0) {
            check(lapwing_writer_publish(writer, which, data, length, NULL));
        } else if (i % 4 == 1) {
            void *room;
            check(lapwing_writer_claim(writer, which, length, &room));
            memcpy(room, data, length);
            check(lapwing_writer_commit(writer, length, NULL));
        } else if (i % 4 == 2) {
            const lapwing_slice parts[] = {{data, length / 3}, {data + length / 3, length - length / 3}};
            check(lapwing_writer_publish_vectored(writer, which, parts, 2, NULL));
        } else {
            const lapwing_message message = {data, length, which, 0};
            check(lapwing_writer_publish_batch(writer, &message, 1, NULL));
        }
    }
    printf("%" PRIu32 " %" PRIu64 " %" PRIu64 "\n", which, count, sum);
    check(end ? lapwing_writer_close(&writer, 0, NULL) : lapwing_writer_abandon(&writer));
}

static void read_all(const char *path) {
    lapwing_reader *reader = NULL;
    check(lapwing_reader_open(path, NULL, &reader));
    printf("attached\n");
    fflush(stdout);
    uint64_t sums[16] = {0}, counts[16] = {0}, next = 0;
    lapwing_record records[64];
    size_t count;
    int status;
    while ((status = lapwing_reader_poll(reader, -1, records, 64, NULL, 0, &count)) != LAPWING_CLOSED) {
        check(status);
        if (status != LAPWING_OK && status != LAPWING_ABSENT)
            exit(2);
        for (size_t i = 0; i < count; i++) {
            if (records[i].sequence != next++)
                exit(3);
            uint32_t tag = records[i].tag % 16;
            sums[tag] = fold(sums[tag], records[i].data, records[i].length);
            counts[tag]++;
        }
    }
    for (int tag = 0; tag < 16; tag++)
        if (counts[tag])
            printf("%d %" PRIu64 " %" PRIu64 "\n", tag, counts[tag], sums[tag]);
    check(lapwing_reader_close(&reader));
}

/* A reader that does what each line of its input says, and tells what came of it. */
static void tell(const char *path, const char *class, const char *name) {
    lapwing_reader_options options = {.size = sizeof options};
    options.reader_class = !strcmp(class, "lossy") ? LAPWING_CLASS_LOSSY : LAPWING_CLASS_GATING;
    if (*name) {
        options.name = name;
        options.start = LAPWING_START_RESUME;
        options.flags = LAPWING_HOLD_WHILE_AWAY;
    }
    lapwing_reader *reader = NULL;
    check(lapwing_reader_open(path, &options, &reader));
    printf("attached\n");
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        lapwing_gap gap = {0, 0};
        if (!strcmp(line, "rejoin\n")) {
            check(lapwing_reader_rejoin(reader, LAPWING_START_OLDEST, 0, &gap));
            printf("rejoined %" PRIu64 " %" PRIu64 "\n", gap.first, gap.end);
        } else {
            lapwing_record record;
            int status = lapwing_reader_next(reader, 30000000000, &record);
            check(status);
            check(lapwing_reader_get_gap(reader, &gap));
            if (status == LAPWING_OK)
                printf("record %" PRIu64 "\n", record.sequence);
            else if (status == LAPWING_GAP || status == LAPWING_EVICTED)
                printf("%s %" PRIu64 " %" PRIu64 "\n", status == LAPWING_GAP ? "gap" : "evicted", gap.first, gap.end);
            else
                printf("%s\n", lapwing_status_name(status));
        }
        fflush(stdout);
    }
    check(lapwing_reader_close(&reader));
}

/* A writer that takes over, and publishes each line of its input. */
static void hold(const char *path) {
    lapwing_writer *writer = NULL;
    check(lapwing_writer_standby(path, &writer));
    lapwing_writer_info info = {.size = sizeof info};
    check(lapwing_writer_describe(writer, &info));
    printf("writer %" PRIu64 "\n", info.resumed_at);
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        uint64_t sequence;
        check(lapwing_writer_publish(writer, 0, line, strlen(line), &sequence));
        printf("published %" PRIu64 "\n", sequence);
        fflush(stdout);
    }
    check(lapwing_writer_abandon(&writer));
}

int main(int argc, char **argv) {
    for (size_t i = 0; i < sizeof pool; i++)
        pool[i] = (unsigned char)(i * i >> 4);
    if (argc == 6 && !strcmp(argv[1], "write"))
        write_all(argv[2], (uint32_t)atoi(argv[3]), strtoull(argv[4], NULL, 10), !strcmp(argv[5], "end"));
    else if (argc == 3 && !strcmp(argv[1], "read"))
        read_all(argv[2]);
    else if (argc == 5 && !strcmp(argv[1], "tell"))
        tell(argv[2], argv[3], argv[4]);
    else if (argc == 3 && !strcmp(argv[1], "hold"))
        hold(argv[2]);
    else
        return 64;
    return 0;
}
