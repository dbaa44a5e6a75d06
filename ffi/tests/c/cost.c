/* cost PATH ROUNDS [pinned]: the C side of the cost check; the same as ffi/examples/cost.rs, through the header. */
#include "check.h"

enum { RECORDS = 64, LENGTH = 64 };

static unsigned char payload[LENGTH];
static lapwing_message messages[RECORDS];

#define MEASURED __attribute__((noinline))

MEASURED void measured_publish(lapwing_writer *writer) {
    for (int i = 0; i < RECORDS; i++)
        if (lapwing_writer_publish(writer, 0, payload, LENGTH, NULL) != LAPWING_OK)
            return;
}

MEASURED void measured_batch(lapwing_writer *writer) {
    CHECK_OK(lapwing_writer_publish_batch(writer, messages, RECORDS, NULL));
}

MEASURED void measured_claim(lapwing_writer *writer) {
    for (int i = 0; i < RECORDS; i++) {
        void *data;
        if (lapwing_writer_claim(writer, 0, LENGTH, &data) != LAPWING_OK)
            return;
        memcpy(data, payload, LENGTH);
        if (lapwing_writer_commit(writer, LENGTH, NULL) != LAPWING_OK)
            return;
    }
}

static inline size_t read_all(lapwing_reader *reader) {
    lapwing_record record;
    size_t seen = 0;
    while (lapwing_reader_next(reader, 0, &record) == LAPWING_OK)
        seen += record.length;
    return seen;
}

MEASURED size_t measured_next(lapwing_reader *reader) {
    return read_all(reader);
}

MEASURED size_t measured_poll(lapwing_reader *reader, lapwing_record *records, void *buffer, size_t size) {
    size_t count, seen = 0;
    if (lapwing_reader_poll(reader, 0, records, RECORDS, buffer, size, &count) != LAPWING_OK)
        return 0;
    for (size_t i = 0; i < count; i++)
        seen += records[i].length;
    return seen;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 64;
    lapwing_writer *writer = NULL;
    lapwing_reader *reader = NULL;
    lapwing_writer_options options = {.size = sizeof options, .existing = LAPWING_EXISTING_REPLACE};
    lapwing_reader_options as = {.size = sizeof as, .reader_class = argc > 3 ? LAPWING_CLASS_PINNED : LAPWING_CLASS_GATING};
    CHECK_OK(lapwing_writer_create(argv[1], &options, &writer));
    CHECK_OK(lapwing_reader_open(argv[1], &as, &reader));
    for (int i = 0; i < RECORDS; i++)
        messages[i] = (lapwing_message){.data = payload, .length = LENGTH};
    static lapwing_record records[RECORDS];
    static _Alignas(64) unsigned char buffer[RECORDS * LENGTH];
    for (long rounds = atol(argv[2]); rounds; rounds--) {
        measured_publish(writer);
        CHECK_EQ(measured_next(reader), RECORDS * LENGTH);
        measured_batch(writer);
        CHECK_EQ(measured_poll(reader, records, buffer, sizeof buffer), RECORDS * LENGTH);
        measured_claim(writer);
        CHECK_EQ(read_all(reader), RECORDS * LENGTH);
    }
    CHECK_OK(lapwing_reader_close(&reader));
    CHECK_OK(lapwing_writer_close(&writer, 0, NULL));
    CHECK_OK(lapwing_bus_remove(argv[1]));
    return 0;
}
