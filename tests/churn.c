/* SPDX-License-Identifier: BSD-3-Clause */
/* churn.c - creates, renames and unlinks files over and over: churn ROUNDS DIR.
 *
 * Every round writes a new file, renames it (every other time over the one of the round before)
 * and, three times in four, unlinks it.  At the end nothing is left.  Stops at the first error;
 * exit status 1. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int
make(const char *name, unsigned long round)
{
    char content[64];
    int n = snprintf(content, sizeof content, "round %lu\n", round);
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);

    if (fd < 0)
        return -1;
    if (write(fd, content, (size_t)n) != n) {
        close(fd);
        return -1;
    }
    return close(fd);
}

static int
once(unsigned long round)
{
    char from[32], to[32];

    snprintf(from, sizeof from, "churn-%lu.new", round % 7);
    snprintf(to, sizeof to, "churn-%lu", round / 2 % 3);
    if (make(from, round) < 0 || rename(from, to) < 0)
        return -1;
    return round % 4 ? unlink(to) : 0;
}

int
main(int argc, char **argv)
{
    unsigned long rounds = argc == 3 ? strtoul(argv[1], NULL, 0) : 0;
    char name[32];

    if (!rounds || chdir(argv[2]) < 0) {
        fprintf(stderr, "usage: churn ROUNDS DIR\n");
        return 2;
    }
    for (unsigned long i = 0; i < rounds; i++)
        if (once(i) < 0) {
            fprintf(stderr, "round %lu: ", i);
            perror(NULL);
            return 1;
        }
    for (unsigned i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "churn-%u", i);
        unlink(name);
    }
    return 0;
}
