/* SPDX-License-Identifier: BSD-3-Clause */
/* target.h - new files whose names only ever stand for whole, durable contents: written without a
 * name, flushed, then named.  What is there already is never replaced.
 *
 * Fill with target_open() and target_write(), end with target_publish(), free with target_fini(),
 * which leaves nothing behind of what was not published. */
#ifndef VNVRAM_CLI_TARGET_H
#define VNVRAM_CLI_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct target {
    const char *path; /* as the user wrote it; stays the caller's */
    const char *name; /* its last part */
    char *temp;       /* the temporary name in .dir; NULL: none */
    int dir, fd;      /* .fd may be read back, too */
    bool named;
};

#define TARGET_INIT                                                                                \
    {                                                                                              \
        .dir = -1, .fd = -1                                                                        \
    }

/* Opens a file (0600) that is to be @path.  -EEXIST (reported) when there is one. */
int target_open(struct target *t, const char *path);
/* The standard output, never named and never flushed; @what does not belong on a terminal. */
int target_stdout(struct target *t, const char *what);
/* Allocates @size bytes, where the file system can: who writes into them must not find it full. */
int target_reserve(const struct target *t, uint64_t size);
int target_write(const struct target *t, const void *buf, size_t n);
int target_flush(const struct target *t);
/* Names all @n, flushed ones, or none of them; durable when it returns 0. */
int target_publish(struct target *t, size_t n);
void target_fini(struct target *t);

#endif
