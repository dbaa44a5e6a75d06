/* What the C tests share: checks that say what they saw, a place of their own, and a way to run something in a child. */
#ifndef CHECK_H
#define CHECK_H

#include <fcntl.h>
#include <lapwing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* Fails unless two integers are equal. */
#define CHECK_EQ(found, expected)                                                                                       \
    do {                                                                                                                \
        long long found_ = (long long)(found), expected_ = (long long)(expected);                                       \
        if (found_ != expected_) {                                                                                      \
            fprintf(stderr, "%s:%d: %s is %lld, expected %lld; last error: %s\n", __FILE__, __LINE__, #found, found_,   \
                    expected_, lapwing_last_error());                                                                   \
            abort();                                                                                                    \
        }                                                                                                               \
    } while (0)

/* Fails unless a status is the one expected. */
#define CHECK_STATUS(call, expected)                                                                                    \
    do {                                                                                                                \
        int found_ = (call), expected_ = (expected);                                                                    \
        if (found_ != expected_) {                                                                                      \
            fprintf(stderr, "%s:%d: %s is %s, expected %s; last error: %s\n", __FILE__, __LINE__, #call,                \
                    lapwing_status_name(found_), lapwing_status_name(expected_), lapwing_last_error());                 \
            abort();                                                                                                    \
        }                                                                                                               \
    } while (0)

#define CHECK_OK(call) CHECK_STATUS(call, LAPWING_OK)
#define CHECK(condition) CHECK_EQ(!!(condition), 1)

/* Waits in tests end after this, loudly: nothing here takes as long. */
#define LONG_NS (30ll * 1000 * 1000 * 1000)

/* The path of a bus of this test and process, nothing there. */
static inline const char *fresh_path(const char *name) {
    static char path[256];
    const char *directory = getenv("LAPWING_TEST_DIR");
    snprintf(path, sizeof path, "%s/lapwing-%s-%ld", directory ? directory : "/dev/shm", name, (long)getpid());
    lapwing_bus_remove(path);
    return path;
}

/* Returns once a reader of the bus has announced that it sleeps: the sleep flag in the table, see the layout. */
static inline void wait_for_sleeper(const char *path) {
    char table[512];
    snprintf(table, sizeof table, "%s.readers", path);
    int fd = open(table, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    uint64_t flag = 0;
    for (int i = 0; i < 30000 && !flag; i++) {
        CHECK_EQ(pread(fd, &flag, sizeof flag, 256), sizeof flag);
        if (!flag)
            usleep(1000);
    }
    CHECK(flag != 0);
    close(fd);
}

/* Runs `body` in a child; returns its exit status, or fails if it was killed. */
static inline int in_child(int (*body)(void *), void *context) {
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        int status = body(context);
        fflush(NULL);
        _exit(status);
    }
    int status = 0;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status)) {
        fprintf(stderr, "the child was killed by signal %d\n", WTERMSIG(status));
        abort();
    }
    return WEXITSTATUS(status);
}

#endif
