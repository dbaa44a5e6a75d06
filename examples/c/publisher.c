/* publisher PATH: publishes each line of its input as a record, and ends the stream with it. */
#include <lapwing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *what) {
    fprintf(stderr, "publisher: %s: %s\n", what, lapwing_last_error());
    return EXIT_FAILURE;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s PATH <LINES\n", argv[0]);
        return 2;
    }
    lapwing_writer_options options = {.size = sizeof options, .existing = LAPWING_EXISTING_OPEN};
    lapwing_writer *writer = NULL;
    if (lapwing_writer_create(argv[1], &options, &writer) < 0)
        return failed("cannot become the writer");
    /* Slow readers are waited for, as long as they live. */
    if (lapwing_writer_set_policy(writer, LAPWING_POLICY_WAIT, -1) < 0)
        return failed("cannot set the policy");

    char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        if (lapwing_writer_publish(writer, 0, line, strcspn(line, "\n"), NULL) < 0)
            return failed("cannot publish");
    }
    if (lapwing_writer_close(&writer, 0, "end of input") < 0)
        return failed("cannot end the stream");
    return EXIT_SUCCESS;
}
