/* subscriber PATH [NAME]: prints each record. With a name, it goes on where the last subscriber of that name stopped, and the writer
 * waits for it while it is away. */
#include <inttypes.h>
#include <lapwing.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: %s PATH [NAME]\n", argv[0]);
        return 2;
    }
    lapwing_reader_options options = {.size = sizeof options, .start = LAPWING_START_OLDEST};
    if (argc == 3) {
        options.name = argv[2];
        options.start = LAPWING_START_RESUME;
        options.flags = LAPWING_HOLD_WHILE_AWAY;
    }
    lapwing_reader *reader = NULL;
    if (lapwing_reader_open(argv[1], &options, &reader) < 0) {
        fprintf(stderr, "subscriber: %s\n", lapwing_last_error());
        return EXIT_FAILURE;
    }
    fprintf(stderr, "attached\n");

    for (;;) {
        lapwing_record record;
        lapwing_gap gap;
        lapwing_closed closed = {.size = sizeof closed};
        int status = lapwing_reader_next(reader, -1, &record);
        switch (status) {
        case LAPWING_OK: /* asking for the next one says that this one is done with */
            printf("%" PRIu64 " %.*s\n", record.sequence, (int)record.length, (const char *)record.data);
            break;
        case LAPWING_GAP:
            lapwing_reader_get_gap(reader, &gap);
            fprintf(stderr, "missed %" PRIu64 " records from %" PRIu64 " on\n", gap.end - gap.first, gap.first);
            break;
        case LAPWING_EVICTED:
            if (lapwing_reader_rejoin(reader, LAPWING_START_RESUME, 0, &gap) < 0)
                goto failed;
            fprintf(stderr, "evicted, missed %" PRIu64 " records from %" PRIu64 " on\n", gap.end - gap.first, gap.first);
            break;
        case LAPWING_ABSENT:
            fprintf(stderr, "the writer is gone; waiting for the next one\n");
            break;
        case LAPWING_CLOSED:
            lapwing_reader_get_closed(reader, &closed);
            fprintf(stderr, "closed: %s\n", closed.reason);
            lapwing_reader_close(&reader);
            return EXIT_SUCCESS;
        default:
            if (status >= 0) {
                fprintf(stderr, "subscriber: %s\n", lapwing_status_name(status));
                return EXIT_FAILURE;
            }
            goto failed;
        }
    }
failed:
    fprintf(stderr, "subscriber: %s\n", lapwing_last_error());
    return EXIT_FAILURE;
}
