/* overrun PATH: what a writer sees when a reader is slow, and what it can do: here, look who it is, and evict. */
#include <inttypes.h>
#include <lapwing.h>
#include <stdio.h>
#include <stdlib.h>

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "overrun: %s: %s\n", what, lapwing_last_error());
        exit(EXIT_FAILURE);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s PATH\n", argv[0]);
        return 2;
    }
    lapwing_writer_options options = {
        .size = sizeof options, .existing = LAPWING_EXISTING_REPLACE, .capacity = 4096};
    lapwing_writer *writer = NULL;
    lapwing_reader *reader = NULL;
    check(lapwing_writer_create(argv[1], &options, &writer), "create");
    lapwing_reader_options slow = {.size = sizeof slow, .name = "slow"};
    check(lapwing_reader_open(argv[1], &slow, &reader), "attach");

    const char payload[100] = "the reader never looks at this";
    int status;
    while ((status = lapwing_writer_try_publish(writer, 0, payload, sizeof payload, NULL)) == LAPWING_OK)
        continue;
    check(status, "publish");

    /* Nothing was overwritten. The report is ours to keep. */
    lapwing_overrun overrun = {.size = sizeof overrun};
    lapwing_reader_info readers[16] = {{.size = sizeof *readers}};
    size_t count = 0;
    check(lapwing_writer_get_overrun(writer, &overrun, readers, 16, &count), "report");
    printf("record %" PRIu64 " would overrun %zu reader\n", overrun.sequence, count);
    for (size_t i = 0; i < count && i < 16; i++) {
        printf("%s, %" PRIu64 " records behind, %s\n", readers[i].name, readers[i].lag_records,
               readers[i].flags & LAPWING_READER_ALIVE ? "alive" : "dead");
        if (readers[i].flags & LAPWING_READER_EVICTABLE)
            check(lapwing_writer_evict(writer, readers[i].id), "evict");
    }
    for (int i = 0; i < 100; i++)
        check(lapwing_writer_publish(writer, 0, payload, sizeof payload, NULL), "publish");

    /* The reader is told exactly what it missed. */
    lapwing_record record;
    while ((status = lapwing_reader_next(reader, 0, &record)) == LAPWING_OK)
        continue;
    check(status, "read");
    if (status != LAPWING_EVICTED) {
        fprintf(stderr, "overrun: %s\n", lapwing_status_name(status));
        return EXIT_FAILURE;
    }
    lapwing_gap gap;
    check(lapwing_reader_rejoin(reader, LAPWING_START_OLDEST, 0, &gap), "rejoin");
    printf("missed %" PRIu64 " records, from %" PRIu64 " up to %" PRIu64 "\n", gap.end - gap.first, gap.first, gap.end);
    lapwing_reader_close(&reader);
    check(lapwing_writer_close(&writer, 0, NULL), "close");
    check(lapwing_bus_remove(argv[1]), "remove");
    return EXIT_SUCCESS;
}
