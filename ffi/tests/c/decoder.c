/* decoder PATH [--follow]: prints the records of a ring, oldest first, written from docs/LAYOUT.md alone. It shares no code with lapwing.
 *
 * One line a record: its sequence, tag, length and the FNV-1a of its bytes; one line a gap. With --follow it goes on until the stream is
 * closed. */
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* Words of the header, and where the index begins. */
enum {
    AT_MAGIC = 0,
    AT_BYTE_ORDER = 1,
    AT_VERSION = 2,
    AT_CAPACITY = 5,
    AT_STRIPE = 6,
    AT_FLAGS = 9,
    AT_LENGTH = 11,
    AT_RING_AT = 12,
    AT_LIMIT = 32,
    AT_STATE = 35,
    AT_EPOCH = 36,
    AT_CLOSED_EPOCH = 37,
    AT_CLOSED_POSITION = 39,
    AT_HEAD = 48,
    AT_INDEX = 512
};

static const _Atomic uint64_t *words;
static uint64_t capacity, stripe, ring_at, header;

static uint64_t load(uint64_t word) {
    return atomic_load_explicit(&words[word], memory_order_acquire);
}

static uint64_t at(uint64_t position) {
    return (ring_at + (position & (capacity - 1))) / 8;
}

static int intact(uint64_t position) {
    atomic_thread_fence(memory_order_acquire);
    return position + capacity >= load(AT_LIMIT);
}

static void fail(const char *why) {
    fprintf(stderr, "decoder: %s\n", why);
    exit(1);
}

/* The oldest record that the index knows to be whole. */
static void oldest(uint64_t *position, uint64_t *sequence) {
    for (int tries = 0; tries < 1000; tries++) {
        uint64_t head = load(AT_HEAD), limit = load(AT_LIMIT);
        if (limit <= capacity) {
            *position = *sequence = 0;
            return;
        }
        uint64_t lowest = limit - capacity;
        for (uint64_t boundary = (lowest + stripe - 1) / stripe * stripe; boundary <= head; boundary += stripe) {
            uint64_t entry = AT_INDEX + boundary / stripe % (capacity / stripe) * 4;
            uint64_t own = load(entry), end = load(entry + 1), number = load(entry + 2);
            if (own == boundary && end <= head && intact(boundary)) {
                *position = end;
                *sequence = number;
                return;
            }
        }
    }
    fail("the writer is faster than this decoder");
}

int main(int argc, char **argv) {
    if (argc < 2)
        fail("usage: decoder PATH [--follow]");
    int follow = argc > 2 && !strcmp(argv[2], "--follow");
    int file = open(argv[1], O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0 || status.st_size < 4096)
        fail("no ring there");
    void *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (map == MAP_FAILED)
        fail("it cannot be mapped");
    words = map;
    uint64_t magic = load(AT_MAGIC);
    if (memcmp(&magic, "LAPWING", 8) || load(AT_BYTE_ORDER) != 0x0102030405060708 || load(AT_VERSION) != 1)
        fail("not a ring of this layout");
    capacity = load(AT_CAPACITY);
    stripe = load(AT_STRIPE);
    ring_at = load(AT_RING_AT);
    header = load(AT_FLAGS) & 1 ? 24 : 16;
    if (!capacity || capacity & (capacity - 1) || !stripe || stripe > capacity
        || load(AT_LENGTH) != (uint64_t)status.st_size || ring_at + capacity != (uint64_t)status.st_size)
        fail("its geometry contradicts itself");

    uint64_t position, sequence;
    oldest(&position, &sequence);
    static uint64_t payload[1 << 17];
    for (;;) {
        uint64_t word = at(position), commit = load(word);
        uint64_t length = commit >> 2 & ((1u << 30) - 1), own = 0;
        if (commit & 1) {
            own = load(word + 1);
            if (length > capacity / 4 || length > sizeof payload) {
                if (intact(position))
                    fail("a record is larger than a record can be");
            } else {
                for (uint64_t i = 0; i < (length + 7) / 8; i++)
                    payload[i] = atomic_load_explicit(&words[word + header / 8 + i], memory_order_relaxed);
            }
        }
        if (!intact(position)) {
            uint64_t first = sequence;
            oldest(&position, &sequence);
            printf("gap %" PRIu64 " %" PRIu64 "\n", first, sequence);
        } else if (!(commit & 1)) {
            int closed = load(AT_CLOSED_EPOCH) == load(AT_EPOCH) && load(AT_CLOSED_POSITION) == position;
            if (!follow || closed || load(AT_STATE) == 1)
                break;
            sched_yield();
        } else if (commit & 2) {
            position += capacity - (position & (capacity - 1));
        } else {
            if (own != sequence)
                fail("a record has another sequence than its place");
            uint64_t sum = 0xcbf29ce484222325;
            for (uint64_t i = 0; i < length; i++)
                sum = (sum ^ ((const unsigned char *)payload)[i]) * 0x100000001b3;
            printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %016" PRIx64 "\n", sequence, commit >> 32, length, sum);
            uint64_t size = (length + header + 15) / 16 * 16;
            position += size == 48 ? 64 : size;
            sequence++;
        }
    }
    return fflush(stdout) ? 1 : 0;
}
