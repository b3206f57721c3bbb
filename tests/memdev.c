/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/memdev.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct memdev {
    struct dev dev;
    uint8_t *bytes;
};

static int
mem_pread(struct dev *d, void *buf, size_t n, uint64_t off)
{
    size_t there = off >= d->size ? 0 : d->size - off < n ? (size_t)(d->size - off) : n;

    if (there)
        memcpy(buf, ((struct memdev *)d)->bytes + off, there);
    return there < n ? -ERANGE : 0;
}

static int
mem_pwrite(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    memcpy(((struct memdev *)d)->bytes + off, buf, n);
    return 0;
}

static int
mem_sync(struct dev *d)
{
    (void)d;
    return 0;
}

static int
mem_medium(struct dev *d, bool on)
{
    (void)d;
    (void)on;
    return 0;
}

static void
mem_close(struct dev *d)
{
    free(d);
}

static const struct dev_ops mem_ops = {
    .pread = mem_pread,
    .pwrite = mem_pwrite,
    .sync = mem_sync,
    .medium = mem_medium,
    .close = mem_close,
};

struct dev *
memdev_new(void *bytes, uint64_t size)
{
    static char name[] = "memory";
    struct memdev *m = malloc(sizeof *m);

    if (!m)
        abort();
    *m = (struct memdev){.dev = {.ops = &mem_ops, .size = size, .sole = true, .name = name},
                         .bytes = bytes};
    return &m->dev;
}
