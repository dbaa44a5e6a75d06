/* A process that has hardly any memory left: records and texts that do not fit end in a status, and what could not be read comes later. */
#include "check.h"
#include <sys/resource.h>

enum { LENGTH = 8 << 20, SPARE = 2 << 20 };

static unsigned char payload[LENGTH];
static char text[LENGTH];

/* Leaves the process SPARE bytes more of address space than it has; 0 instead of it takes the limit away. */
static void limit(size_t spare) {
    struct rlimit limits;
    CHECK_EQ(getrlimit(RLIMIT_AS, &limits), 0);
    limits.rlim_cur = limits.rlim_max;
    if (spare) {
        unsigned long pages;
        FILE *file = fopen("/proc/self/statm", "re");
        CHECK(file && fscanf(file, "%lu", &pages) == 1);
        fclose(file);
        limits.rlim_cur = pages * (size_t)sysconf(_SC_PAGESIZE) + spare;
    }
    CHECK_EQ(setrlimit(RLIMIT_AS, &limits), 0);
}

int main(void) {
    const char *path = fresh_path("memory");
    memset(payload, 7, sizeof payload);
    memset(text, '/', sizeof text - 1);
    lapwing_writer *writer = NULL;
    lapwing_reader *reader = NULL, *other = NULL;
    lapwing_writer_options options = {.size = sizeof options, .capacity = 64 << 20};
    lapwing_reader_options named = {.size = sizeof named, .name = text};
    lapwing_record record;
    size_t count;
    CHECK_OK(lapwing_writer_create(path, &options, &writer));
    CHECK_OK(lapwing_reader_open(path, NULL, &reader));
    CHECK_OK(lapwing_writer_publish(writer, 0, payload, sizeof payload, NULL));
    CHECK_OK(lapwing_writer_publish(writer, 0, payload, sizeof payload, NULL));

    limit(SPARE);
    CHECK(malloc(LENGTH) == NULL);
    /* No copy of a text that nothing could take. */
    CHECK_STATUS(lapwing_reader_open(path, &named, &other), LAPWING_E_INVALID_OPTION);
    CHECK_STATUS(lapwing_reader_open(text, NULL, &other), LAPWING_E_IO);
    CHECK_STATUS(lapwing_bus_forget(path, text), LAPWING_E_INVALID_OPTION);
    CHECK_STATUS(lapwing_bus_remove(text), LAPWING_E_IO);
    /* The reader's own copy of a record. */
    CHECK_STATUS(lapwing_reader_next(reader, 0, &record), LAPWING_E_IO);
    CHECK_STATUS(lapwing_reader_next(reader, LONG_NS, &record), LAPWING_E_IO);
    CHECK_STATUS(lapwing_reader_poll(reader, 0, &record, 1, NULL, 0, &count), LAPWING_E_IO);
    CHECK_EQ(count, 0);

    limit(0);
    CHECK_OK(lapwing_reader_next(reader, 0, &record));
    CHECK(record.sequence == 0 && record.length == LENGTH && !memcmp(record.data, payload, LENGTH));

    /* What a poll gathers, beside the reader's copy. */
    limit(SPARE);
    CHECK_STATUS(lapwing_reader_poll(reader, 0, &record, 1, NULL, 0, &count), LAPWING_E_IO);
    CHECK_EQ(count, 0);

    limit(0);
    CHECK_OK(lapwing_reader_poll(reader, 0, &record, 1, NULL, 0, &count));
    CHECK(count == 1 && record.sequence == 1 && record.length == LENGTH && !memcmp(record.data, payload, LENGTH));
    CHECK_OK(lapwing_reader_close(&reader));
    CHECK_OK(lapwing_writer_close(&writer, 0, NULL));
    CHECK_OK(lapwing_bus_remove(path));
    printf("memory: fine\n");
    return 0;
}
