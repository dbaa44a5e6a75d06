/* stranger PATH [lossy] [name=NAME] [resume|oldest] [lazy] [wait]: a registered reader written from docs/LAYOUT.md and docs/READER.md alone. It shares no
 * code with lapwing.
 *
 * Prints "joined" and its sequence, then a line for each thing it meets: a record (its sequence, tag, length and the FNV-1a of its bytes), a gap,
 * an eviction (it joins again), a writer that is absent. It ends with the stream. A "lazy" one commits each record when a line comes from its input; one
 * that is to "wait" prints "attached", and joins when a line comes. */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LAYOUT_HASH UINT64_C(0xfc2e92eb15909b5f)
#define NEVER UINT64_MAX

/* Words of the ring's header. */
enum {
    BUS_ID = 4,
    CAPACITY = 5,
    STRIPE = 6,
    SLOTS = 7,
    FLAGS = 9,
    LENGTH = 11,
    RING_AT = 12,
    FENCES = 18,
    LIMIT = 32,
    INTENT = 33,
    WAITING = 34,
    STATE = 35,
    EPOCH = 36,
    CLOSED_EPOCH = 37,
    CLOSED_POSITION = 39,
    HEAD = 48,
    HEAD_SEQUENCE = 49,
    INDEX = 512
};
/* Words of the table's header. */
enum { TABLE_SLOTS = 5, TABLE_LENGTH = 6, REGISTRATIONS = 16, NEXT_ID = 17, SLEEP = 32, WAKE = 48, SPACE = 64 };
/* Words of a slot. */
enum {
    CONTROL = 0,
    ID = 1,
    START = 2,
    PID = 3,
    PROCESS_START = 4,
    HOLD_FOR = 5,
    DETACHED_AT = 6,
    TOLD_EPOCH = 7,
    JOINED_AT = 8,
    EVICTIONS = 9,
    POSITION = 16,
    SEQUENCE = 17,
    MISSED = 32, /* two pairs: count, as of */
    WAITS = 36,
    GAP_FIRST = 37,
    GAP_END = 38,
    NAME_LENGTH = 48,
    NAME = 49
};
enum { FREE = 0, JOINING = 1, ACTIVE = 2, EVICTED = 3, DETACHED = 4, GATING = 1, LOSSY = 2, HOLDS = 1, NAMED = 2 };

typedef _Atomic uint64_t word;
typedef struct {
    uint64_t position, sequence;
} place;

static const word *ring;
static word *table, *slot;
static int ring_file, locks;
static uint64_t capacity, stripe, stripes, slots, ring_at, header, slot_byte, name_byte;
static uint64_t control, told_epoch, closing;
static struct stat mapped;
static const char *path, *name;
static int can_fence = 1;

static void fail(const char *why) {
    fprintf(stderr, "stranger: %s\n", why);
    exit(1);
}

static uint64_t get(const word *at) { return atomic_load_explicit(at, memory_order_relaxed); }
static uint64_t acquire(const word *at) { return atomic_load_explicit(at, memory_order_acquire); }
static void set(word *at, uint64_t value) { atomic_store_explicit(at, value, memory_order_relaxed); }
static void release(word *at, uint64_t value) { atomic_store_explicit(at, value, memory_order_release); }

static uint64_t now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* ---- attach ---- */

static int open_regular(const char *file, int flags, struct stat *status) {
    int fd = open(file, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, status) < 0 || !S_ISREG(status->st_mode))
        fail("a file of the bus cannot be opened");
    return fd;
}

static void read_header(int fd, const char *magic, uint64_t words[512]) {
    if (pread(fd, words, 4096, 0) != 4096 || memcmp(words, magic, 8))
        fail("not a file of a bus");
    if (words[1] != 0x0102030405060708 || words[2] != 1 || words[3] != LAYOUT_HASH)
        fail("a file of another layout");
}

static void attach(void) {
    char other[512];
    snprintf(other, sizeof other, "%s.readers", path);
    struct stat table_status, locks_status;
    uint64_t facts[512], told[512];
    ring_file = open_regular(path, O_RDONLY, &mapped);
    int table_file = open_regular(other, O_RDWR, &table_status);
    read_header(ring_file, "LAPWING", facts);
    read_header(table_file, "LAPWTBL", told);
    capacity = facts[CAPACITY];
    slots = facts[SLOTS];
    if (capacity < 4096 || capacity > UINT64_C(1) << 40 || capacity & (capacity - 1) || !slots || slots > 65536 || facts[FLAGS] & ~UINT64_C(3))
        fail("its geometry makes no sense");
    stripes = capacity >> 16;
    stripes = stripes < 8 ? 8 : stripes > 4096 ? 4096 : stripes;
    stripe = capacity / stripes;
    ring_at = (4096 + 32 * stripes + 4095) / 4096 * 4096;
    header = facts[FLAGS] & 1 ? 24 : 16;
    if (facts[STRIPE] != stripe || facts[RING_AT] != ring_at || facts[LENGTH] != ring_at + capacity || (uint64_t)mapped.st_size != facts[LENGTH])
        fail("its ring contradicts itself");
    if (told[BUS_ID] != facts[BUS_ID] || told[TABLE_SLOTS] != slots || told[TABLE_LENGTH] != 4096 + 512 * slots
        || (uint64_t)table_status.st_size != told[TABLE_LENGTH])
        fail("ring and table do not belong together");
    ring = mmap(NULL, ring_at + capacity, PROT_READ, MAP_SHARED, ring_file, 0);
    table = mmap(NULL, 4096 + 512 * slots, PROT_READ | PROT_WRITE, MAP_SHARED, table_file, 0);
    if (ring == MAP_FAILED || table == MAP_FAILED)
        fail("it cannot be mapped");
    locks = open_regular(other, O_RDWR, &locks_status);
    if (locks_status.st_ino != table_status.st_ino || locks_status.st_dev != table_status.st_dev)
        fail("it was replaced a moment ago");
}

/* ---- locks ---- */

static int lock(uint64_t byte, short kind) {
    struct flock region = {.l_type = kind, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    return fcntl(locks, F_OFD_SETLK, &region) == 0;
}

static int writer_lives(void) {
    struct flock region = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    if (fcntl(ring_file, F_OFD_GETLK, &region) < 0)
        fail("its locks cannot be looked at");
    return region.l_type != F_UNLCK;
}

/* ---- places ---- */

static const word *at(uint64_t position) { return &ring[(ring_at + (position & (capacity - 1))) / 8]; }

static int intact(uint64_t position) {
    atomic_thread_fence(memory_order_acquire);
    return position + capacity >= get(&ring[LIMIT]);
}

static place find_head(void) {
    for (;;) {
        place head = {.position = acquire(&ring[HEAD]) & ~UINT64_C(15)};
        head.sequence = acquire(&ring[HEAD_SEQUENCE]);
        if (acquire(at(head.position)))
            head.sequence = get(at(head.position) + 1);
        if (intact(head.position))
            return head;
    }
}

/* The entry of a boundary, if it counts. */
static int entry(uint64_t boundary, uint64_t head, place *found) {
    const word *words = &ring[INDEX + boundary / stripe % stripes * 4];
    uint64_t own = get(words);
    found->position = get(words + 1);
    found->sequence = get(words + 2);
    return own == boundary && found->position >= boundary && found->position <= head && found->position % 16 == 0 && intact(boundary);
}

/* What lies at a place: 0 nothing, 1 a record or padding, with its commit word and the place after it; -1 lapped, or no header. */
static int header_at(place here, uint64_t *commit, place *next) {
    const word *words = at(here.position);
    *commit = acquire(words);
    if (!*commit)
        return intact(here.position) ? 0 : -1;
    uint64_t to_end = capacity - (here.position & (capacity - 1)), length = *commit >> 2 & ((1u << 30) - 1);
    uint64_t size = (header + length + 15) / 16 * 16;
    size = *commit & 2 ? to_end : size == 48 ? 64 : size;
    if (!(*commit & 1) || get(words + 1) != here.sequence || size > to_end) {
        if (intact(here.position))
            fail("a record makes no sense");
        return -1;
    }
    *next = (place){here.position + size, here.sequence + (*commit & 2 ? 0 : 1)};
    return 1;
}

/* The record of a sequence, or the oldest at least `clear` bytes above the edge. */
static place seek(uint64_t sequence, uint64_t clear) {
    for (;;) {
        place head = find_head(), best = {0, 0}, found;
        uint64_t limit = get(&ring[LIMIT]), floor = limit > capacity ? limit - capacity : 0;
        uint64_t lowest = floor + clear < head.position ? floor + clear : head.position;
        uint64_t first = (lowest + stripe - 1) / stripe, last = head.position / stripe;
        int known = lowest == 0;
        if (known)
            first = 1;
        for (; !known && first <= last; first++)
            known = entry(first * stripe, head.position, &best);
        if (!known) {
            limit = get(&ring[LIMIT]);
            if ((limit > capacity ? limit - capacity : 0) == floor)
                return head;
            continue;
        }
        for (uint64_t low = first, high = last + 1; low < high;) {
            uint64_t middle = low + (high - low) / 2;
            if (entry(middle * stripe, head.position, &found) && found.sequence <= sequence) {
                best = found;
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        int whole = 1;
        while (whole && best.sequence < sequence && best.position < head.position) {
            uint64_t commit;
            whole = header_at(best, &commit, &found) == 1 && intact(best.position);
            best = found;
        }
        if (whole && intact(best.position))
            return best;
    }
}

/* Whether headers lead from here to the next place that the index knows. */
static int leads_on(place here) {
    place head = find_head(), known = head, next;
    for (uint64_t boundary = here.position / stripe + 1; boundary <= head.position / stripe; boundary++)
        if (entry(boundary * stripe, head.position, &next)) {
            known = next;
            break;
        }
    place start = here;
    while (here.position < known.position) {
        uint64_t commit;
        if (header_at(here, &commit, &next) != 1)
            return 0;
        here = next;
    }
    return here.position == known.position && here.sequence == known.sequence && intact(start.position);
}

/* ---- the slot ---- */

static void move_cursor(place to) {
    release(&slot[POSITION], to.position);
    release(&slot[SEQUENCE], to.sequence);
}

static void prepare_jump(uint64_t from, uint64_t to) {
    if (get(&slot[GAP_END]) != from || !from) {
        set(&slot[GAP_END], 0);
        release(&slot[GAP_FIRST], from);
    }
    release(&slot[GAP_END], to);
    uint64_t as_of[2] = {get(&slot[MISSED + 1]), get(&slot[MISSED + 3])};
    int counts = as_of[0] <= from && (as_of[1] > from || as_of[0] >= as_of[1]) ? 0 : as_of[1] <= from ? 1 : -1;
    uint64_t missed = (counts < 0 ? 0 : get(&slot[MISSED + 2 * counts])) + to - from;
    int other = counts == 0;
    set(&slot[MISSED + 2 * other + 1], NEVER);
    release(&slot[MISSED + 2 * other], missed);
    release(&slot[MISSED + 2 * other + 1], to);
}

static int move_control(uint64_t from, uint64_t to) {
    return atomic_compare_exchange_strong_explicit(&slot[CONTROL], &from, to, memory_order_release, memory_order_relaxed);
}

static int has_name(const word *candidate) {
    uint64_t state = acquire(&candidate[CONTROL]), bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = get(&candidate[NAME + i]);
    return (state & 0xff) != FREE && state >> 16 & NAMED && get(&candidate[NAME_LENGTH]) == strlen(name) && !memcmp(bytes, name, strlen(name));
}

static word *slot_at(uint64_t index) { return table + 512 + index * 64; }

static void take_slot(uint64_t index) {
    slot = slot_at(index);
    slot_byte = 4096 + 512 * index;
}

/* Takes the lock of a slot: that of the name, or a free one. Says whether the name was known. */
static int claim(void) {
    if (name) {
        uint64_t hash = 0xcbf29ce484222325;
        for (const char *byte = name; *byte; byte++)
            hash = (hash ^ (unsigned char)*byte) * 0x100000001b3;
        name_byte = (UINT64_C(1) << 62) + (hash >> 3);
        if (!lock(name_byte, F_WRLCK))
            fail("the name is taken");
        for (uint64_t i = 0; i < slots; i++)
            if (has_name(slot_at(i))) {
                take_slot(i);
                for (int tries = 0; tries < 1000; tries++, usleep(1000))
                    if (lock(slot_byte, F_WRLCK))
                        return 1;
                fail("the slot of the name is held");
            }
    }
    for (int reclaim = 0; reclaim < 2; reclaim++)
        for (uint64_t i = 0; i < slots; i++) {
            take_slot(i);
            uint64_t state = acquire(&slot[CONTROL]);
            int usable = (state & 0xff) == FREE || (reclaim && !(state >> 16 & NAMED));
            if (!usable || !lock(slot_byte, F_WRLCK))
                continue;
            state = acquire(&slot[CONTROL]);
            if (reclaim && (state & 0xff) != FREE && !(state >> 16 & NAMED)) {
                set(&slot[DETACHED_AT], now(CLOCK_BOOTTIME));
                move_control(state, state & ~UINT64_C(0xff));
            }
            if ((acquire(&slot[CONTROL]) & 0xff) == FREE)
                return 0;
            lock(slot_byte, F_UNLCK);
        }
    fail("the table is full");
    return 0;
}

/* Steps 5 to 10; returns where it really begins. */
static place activate(uint64_t class, uint64_t flags, uint64_t asked, place here) {
    for (;;) {
        if (here.sequence > asked)
            prepare_jump(asked, here.sequence);
        move_cursor(here);
        uint64_t before = acquire(&slot[CONTROL]);
        uint64_t joining = ((before >> 32) + 1) << 32 | flags << 16 | class << 8 | JOINING;
        if (move_control(before, joining)) {
            atomic_fetch_add_explicit(&table[REGISTRATIONS], 1, memory_order_release);
            if (class != LOSSY) {
                atomic_thread_fence(memory_order_seq_cst);
                uint64_t intent = get(&ring[INTENT]);
                if (here.position + capacity < intent) {
                    uint64_t from = here.sequence;
                    here = seek(0, 0);
                    if (here.position + capacity < intent)
                        here = seek(0, capacity / 8);
                    if (here.position + capacity < intent)
                        here = find_head();
                    prepare_jump(from, here.sequence);
                    move_cursor(here);
                }
            }
            control = (joining & ~UINT64_C(0xff)) | ACTIVE;
            if (move_control(joining, control))
                return here;
        }
        here = seek(here.sequence, 0);
    }
}

static void gap(uint64_t first, uint64_t end) {
    if (first < end)
        printf("gap %" PRIu64 " %" PRIu64 "\n", first, end);
}

static place join(uint64_t class, const char *start) {
    int known = claim(), resumes = known && !strcmp(start, "resume");
    place here;
    uint64_t asked, told = NEVER;
    if (resumes) {
        place cursor = {acquire(&slot[POSITION]), acquire(&slot[SEQUENCE])}, head = find_head();
        if (cursor.position == head.position)
            cursor = head;
        else if (cursor.position < head.position && cursor.position % 16 == 0 && acquire(at(cursor.position))) {
            uint64_t own = get(at(cursor.position) + 1);
            if (own >= cursor.sequence && own <= head.sequence && intact(cursor.position))
                cursor.sequence = own;
        }
        asked = cursor.sequence;
        here = intact(cursor.position) && leads_on(cursor) ? cursor : seek(asked, 0);
    } else {
        here = !strcmp(start, "latest") ? find_head() : seek(0, 0);
        asked = here.sequence;
    }
    uint64_t epoch = get(&ring[EPOCH]), closed = get(&ring[CLOSED_EPOCH]);
    told_epoch = epoch > closed ? closed : closed ? closed - 1 : 0;
    if (resumes) {
        for (int pair = 0; pair < 2; pair++)
            if (get(&slot[MISSED + 2 * pair + 1]) > asked)
                set(&slot[MISSED + 2 * pair + 1], NEVER);
        if (get(&slot[GAP_FIRST]) < asked && asked <= get(&slot[GAP_END])) {
            told = get(&slot[GAP_FIRST]);
            release(&slot[GAP_END], asked);
        }
        if (get(&slot[TOLD_EPOCH]) < told_epoch)
            told_epoch = get(&slot[TOLD_EPOCH]);
    } else {
        set(&slot[MISSED + 3], NEVER);
        set(&slot[MISSED], 0);
        set(&slot[MISSED + 1], 0);
        set(&slot[MISSED + 2], 0);
        set(&slot[GAP_END], 0);
        set(&slot[START], asked);
        set(&slot[TOLD_EPOCH], told_epoch);
    }
    if (!known) {
        uint64_t bytes[8] = {0};
        if (name)
            memcpy(bytes, name, strlen(name));
        set(&slot[EVICTIONS], 0);
        set(&slot[WAITS], 0);
        set(&slot[NAME_LENGTH], 0);
        for (int i = 0; i < 8; i++)
            set(&slot[NAME + i], bytes[i]);
        release(&slot[NAME_LENGTH], name ? strlen(name) : 0);
    }
    set(&slot[ID], atomic_fetch_add_explicit(&table[NEXT_ID], 1, memory_order_relaxed) + 1);
    set(&slot[PID], (uint64_t)getpid());
    set(&slot[PROCESS_START], 0);
    set(&slot[DETACHED_AT], now(CLOCK_BOOTTIME));
    release(&slot[HOLD_FOR], 0);
    set(&slot[JOINED_AT], now(CLOCK_REALTIME));
    here = activate(class, (name ? NAMED : 0) | (name ? HOLDS : 0), asked, here);
    printf("joined %" PRIu64 "\n", here.sequence);
    gap(told < asked ? told : asked, here.sequence);
    fflush(stdout);
    set(&slot[GAP_END], 0);
    return here;
}

/* ---- reading ---- */

static void commit(place next) {
    move_cursor(next);
    uint64_t waiting = get(&ring[WAITING]);
    if (waiting && next.position >= waiting) {
        atomic_fetch_add_explicit(&table[SPACE], 1, memory_order_release);
        syscall(SYS_futex, &table[SPACE], FUTEX_WAKE, 1);
    }
}

enum found { RECORD, PADDING, NOTHING, LAPPED, OUT, CLOSED, REPLACED };

static uint64_t payload[1 << 17], length;
static uint32_t tag;

/* Looks at the next record, and at whatever there is in its place. */
static enum found look(place here, place *next) {
    uint64_t head, replaced = acquire(&ring[STATE]) == 1;
    int found = header_at(here, &head, next);
    uint64_t closed = acquire(&ring[CLOSED_EPOCH]);
    if (closed > told_epoch && get(&ring[CLOSED_POSITION]) <= here.position) {
        closing = closed;
        return CLOSED;
    }
    if (found == 1) {
        tag = (uint32_t)(head >> 32);
        length = head >> 2 & ((1u << 30) - 1);
        if (!(head & 2)) {
            if (length > sizeof payload)
                fail("a record is larger than this reader takes");
            for (uint64_t i = 0; i < (length + 7) / 8; i++)
                payload[i] = get(at(here.position) + header / 8 + i);
        }
        if (intact(here.position))
            return head & 2 ? PADDING : RECORD;
        found = -1;
    }
    if (acquire(&slot[CONTROL]) != control)
        return OUT;
    return found < 0 ? LAPPED : replaced ? REPLACED : NOTHING;
}

static void sleep_until_woken(place here, uint64_t *waits) {
    uint64_t seen = acquire(&table[WAKE]);
    atomic_fetch_or(&table[SLEEP], can_fence ? 1 : 3);
    atomic_thread_fence(memory_order_seq_cst);
    if (can_fence && syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) != 0) {
        can_fence = 0;
        atomic_fetch_or(&table[SLEEP], 2);
    }
    place next;
    if (look(here, &next) != NOTHING)
        return;
    set(&slot[WAITS], ++*waits);
    /* Longer than the page says, so that a wake-up that is lost shows in the test. */
    struct timespec longest = {.tv_sec = 20};
    if (!can_fence && !get(&ring[FENCES]))
        longest = (struct timespec){.tv_nsec = 1000000};
    syscall(SYS_futex, &table[WAKE], FUTEX_WAIT, (uint32_t)seen, &longest);
}

static void leave(void) {
    set(&slot[DETACHED_AT], now(CLOCK_BOOTTIME));
    for (uint64_t state = acquire(&slot[CONTROL]); !(name && (state & 0xff) == EVICTED); state = acquire(&slot[CONTROL]))
        if (move_control(state, (state & ~UINT64_C(0xff)) | (name ? DETACHED : FREE)))
            break;
    atomic_fetch_add_explicit(&table[SPACE], 1, memory_order_release);
    syscall(SYS_futex, &table[SPACE], FUTEX_WAKE, 1);
    if (name)
        lock(name_byte, F_UNLCK);
    lock(slot_byte, F_UNLCK);
}

int main(int argc, char **argv) {
    const char *start = "latest";
    uint64_t class = GATING, waits = 0;
    int lazy = 0, waits_to_join = 0;
    if (argc < 2)
        fail("usage: stranger PATH [lossy] [name=NAME] [resume|oldest] [lazy] [wait]");
    path = argv[1];
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "lossy"))
            class = LOSSY;
        else if (!strcmp(argv[i], "lazy"))
            lazy = 1;
        else if (!strcmp(argv[i], "wait"))
            waits_to_join = 1;
        else if (!strncmp(argv[i], "name=", 5) && strlen(argv[i]) <= 5 + 64)
            name = argv[i] + 5;
        else
            start = argv[i];
    }
    attach();
    if (waits_to_join) {
        printf("attached\n");
        fflush(stdout);
        if (getchar() == EOF)
            return 0;
    }
    place here = join(class, start), next;
    int absent = 0;
    for (;;) {
        enum found found = look(here, &next);
        switch (found) {
        case RECORD: {
            uint64_t sum = 0xcbf29ce484222325;
            for (uint64_t i = 0; i < length; i++)
                sum = (sum ^ ((const unsigned char *)payload)[i]) * 0x100000001b3;
            printf("%" PRIu64 " %" PRIu32 " %" PRIu64 " %016" PRIx64 "\n", here.sequence, tag, length, sum);
            if (lazy) {
                fflush(stdout);
                if (getchar() == EOF)
                    return 0; /* As a crash: it commits nothing and leaves nothing tidy. */
            }
        }
        /* fall through */
        case PADDING:
            here = next;
            commit(here);
            break;
        case OUT:
            printf("evicted\n");
            release(&slot[SEQUENCE], here.sequence);
            next = activate(class, control >> 16 & 0xffff, here.sequence, seek(here.sequence, 0));
            gap(here.sequence, next.sequence);
            set(&slot[GAP_END], 0);
            here = next;
            break;
        case LAPPED:
            next = seek(here.sequence, capacity / 8);
            if (next.sequence > here.sequence)
                prepare_jump(here.sequence, next.sequence);
            gap(here.sequence, next.sequence);
            here = next;
            commit(here);
            set(&slot[GAP_END], 0);
            break;
        case CLOSED:
            set(&slot[TOLD_EPOCH], closing);
            printf("closed\n");
            leave();
            return fflush(stdout) ? 1 : 0;
        case REPLACED:
            printf("replaced\n");
            return fflush(stdout) ? 1 : 0;
        case NOTHING: {
            fflush(stdout);
            struct stat status;
            if (!writer_lives() && !absent) {
                uint64_t epoch = get(&ring[EPOCH]), closed = get(&ring[CLOSED_EPOCH]);
                if ((epoch == 0 || epoch != closed) && look(here, &next) == NOTHING) {
                    absent = 1;
                    printf("absent\n");
                    fflush(stdout);
                }
            }
            if (lstat(path, &status) < 0 || status.st_ino != mapped.st_ino || status.st_dev != mapped.st_dev)
                fail("the path leads elsewhere");
            sleep_until_woken(here, &waits);
        }
        }
    }
}
