/* epoll PATH: a subscriber that waits for the bus and for its own input in one loop. Ends with either. */
#include <inttypes.h>
#include <lapwing.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BUS, INPUT };

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s PATH\n", argv[0]);
        return 2;
    }
    lapwing_reader *reader = NULL;
    int bus = -1, epoll = epoll_create1(EPOLL_CLOEXEC);
    lapwing_reader_options options = {.size = sizeof options, .start = LAPWING_START_OLDEST};
    if (lapwing_reader_open(argv[1], &options, &reader) < 0 || lapwing_reader_get_fd(reader, &bus) < 0) {
        fprintf(stderr, "epoll: %s\n", lapwing_last_error());
        return EXIT_FAILURE;
    }
    struct epoll_event on_bus = {.events = EPOLLIN, .data.u32 = BUS}, on_input = {.events = EPOLLIN, .data.u32 = INPUT};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, bus, &on_bus) < 0) {
        perror("epoll");
        return EXIT_FAILURE;
    }
    /* A regular file cannot be waited for, and need not be. */
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &on_input) < 0)
        fprintf(stderr, "not waiting for input\n");

    for (;;) {
        struct epoll_event event;
        if (epoll_wait(epoll, &event, 1, -1) < 1)
            continue;
        if (event.data.u32 == INPUT) {
            char typed[256];
            if (read(STDIN_FILENO, typed, sizeof typed) <= 0)
                return EXIT_SUCCESS;
            continue;
        }
        lapwing_record records[64];
        size_t count;
        int status;
        while ((status = lapwing_reader_poll(reader, 0, records, 64, NULL, 0, &count)) != LAPWING_EMPTY) {
            for (size_t i = 0; i < count; i++)
                printf("%" PRIu64 " %.*s\n", records[i].sequence, (int)records[i].length, (const char *)records[i].data);
            if (status == LAPWING_OK)
                continue;
            if (status < 0)
                fprintf(stderr, "epoll: %s\n", lapwing_last_error());
            else
                fprintf(stderr, "%s\n", lapwing_status_name(status));
            if (status == LAPWING_GAP || status == LAPWING_ABSENT)
                continue;
            lapwing_reader_close(&reader); /* an example: it does not rejoin */
            return status == LAPWING_CLOSED ? EXIT_SUCCESS : EXIT_FAILURE;
        }
        fflush(stdout);
    }
}
