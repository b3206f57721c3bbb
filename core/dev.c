/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/dev.h"
#include "base/bytes.h"
#include "base/report.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool
is_aligned(const void *buf, size_t n, uint64_t off)
{
    return (uintptr_t)buf % BLOCK_SIZE == 0 && n % BLOCK_SIZE == 0 && off % BLOCK_SIZE == 0;
}

static bool
is_inside(const struct dev *d, size_t n, uint64_t off)
{
    return n <= d->size && off <= d->size - n;
}

static int
report_truncated(const struct dev *d, size_t n, uint64_t off)
{
    return report(-ERANGE,
                  "%s: truncated: ends before offset %" PRIu64 " (device of %" PRIu64 " bytes)",
                  d->name, off + n, d->size);
}

/* What the kernel answers for a bad sector or a broken host file system (ENODATA, EUCLEAN, EBADMSG,
 * ...) means something else as a finding, and a bad sector must never read as "blank": all become
 * EIO. */
static int
report_io(const struct dev *d, int r, const char *what, size_t n, uint64_t off)
{
    return report(-EIO, "%s: cannot %s %zu bytes at offset %" PRIu64 ": %s", d->name, what, n, off,
                  errno_text(r));
}

int
dev_pread(struct dev *d, void *buf, size_t n, uint64_t off)
{
    int r;

    assert(is_aligned(buf, n, off));
    if (!is_inside(d, n, off))
        return report_truncated(d, n, off);
    r = d->ops->pread(d, buf, n, off);
    if (r == -ERANGE)
        return report_truncated(d, n, off);
    return r < 0 ? report_io(d, r, "read", n, off) : 0;
}

static int
ask_guard(struct dev *d)
{
    return d->guard ? d->guard(d->guard_arg, d) : 0;
}

typedef int write_fn(struct dev *d, const void *buf, size_t n, uint64_t off);

static int
write_by(write_fn *write, struct dev *d, const void *buf, size_t n, uint64_t off)
{
    int r;

    assert(is_aligned(buf, n, off));
    assert(!d->read_only);
    if (!is_inside(d, n, off))
        return report_truncated(d, n, off);
    r = d->guard_asked ? 0 : ask_guard(d);
    if (r < 0)
        return r;
    d->guard_asked = true;
    r = write(d, buf, n, off);
    return r < 0 ? report_io(d, r, "write", n, off) : 0;
}

int
dev_pwrite(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    return write_by(d->ops->pwrite, d, buf, n, off);
}

int
dev_submit(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    return write_by(d->ops->submit ? d->ops->submit : d->ops->pwrite, d, buf, n, off);
}

int
dev_wait(struct dev *d)
{
    int r = d->ops->wait ? d->ops->wait(d) : 0;

    return r < 0 ? report(-EIO, "%s: cannot write: %s", d->name, errno_text(r)) : 0;
}

int
dev_sync(struct dev *d)
{
    int r = dev_wait(d);

    if (r < 0)
        return r;
    r = d->ops->sync(d);
    d->guard_asked = false;
    return r < 0 ? report(-EIO, "%s: cannot flush: %s", d->name, errno_text(r)) : ask_guard(d);
}

int
dev_medium(struct dev *d, bool on)
{
    int r = d->ops->medium(d, on);

    return r < 0 ? report(-EIO, "%s: cannot read the medium: %s", d->name, errno_text(r)) : 0;
}

enum dev_news
dev_begin(struct dev *d)
{
    return d->ops->begin ? d->ops->begin(d) : DEV_NO_NEWS;
}

void
dev_end(struct dev *d)
{
    if (d->ops->end)
        d->ops->end(d);
}

void
dev_idle(struct dev *d)
{
    if (d->ops->idle)
        d->ops->idle(d);
}

void
dev_release(struct dev *d)
{
    if (d->ops->release)
        d->ops->release(d);
}

bool
dev_can_move(const struct dev *d)
{
    return d->ops->take != NULL;
}

int
dev_take(struct dev *d, unsigned wait_ms)
{
    if (!d->ops->take)
        return report(-EOPNOTSUPP, "%s: cannot be handed over", d->name);
    return d->ops->take(d, wait_ms);
}

void
dev_set_witness(struct dev *d, dev_witness_fn *witness, dev_fail_fn *fail, void *arg)
{
    d->witness = witness;
    d->fail = fail;
    d->witness_arg = arg;
}

void
dev_set_guard(struct dev *d, dev_guard_fn *guard, void *arg)
{
    d->guard = guard;
    d->guard_arg = arg;
    d->guard_asked = false;
}

void
dev_close(struct dev *d)
{
    if (d)
        d->ops->close(d);
}

void
dev_closep(struct dev **d)
{
    dev_close(*d);
}

bool
dev_tail_is_data(struct dev *d)
{
    uint64_t tail = d->size % BLOCK_SIZE;
    uint8_t *buf;
    bool any;

    if (tail == 0)
        return false;
    buf = dev_alloc(BLOCK_SIZE);
    if (!buf)
        return true; /* cannot tell: better taken for data than for blank */
    /* -ERANGE: read as far as the device goes, which is what is wanted. */
    any =
        d->ops->pread(d, buf, BLOCK_SIZE, d->size - tail) != -ERANGE || !bytes_are_zero(buf, tail);
    free(buf);
    return any;
}

void *
dev_alloc_raw(size_t n)
{
    void *p;

    return posix_memalign(&p, BLOCK_SIZE, n ? n : BLOCK_SIZE) == 0 ? p : NULL;
}

void *
dev_alloc(size_t n)
{
    void *p = dev_alloc_raw(n);

    return p ? memset(p, 0, n ? n : BLOCK_SIZE) : NULL;
}
