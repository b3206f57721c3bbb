/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/faultdev.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct page {
    unsigned refs;
    uint8_t data[BLOCK_SIZE];
};

struct pending {
    uint32_t block;
    struct page *page;
};

struct fault {
    bool armed, has_masks;
    unsigned long at; /* counter value that fails */
    int r;
    uint8_t masks[64];
};

/* What was submitted: not looked at before it is waited for. */
struct deferred {
    const void *buf;
    size_t n;
    uint64_t off;
};

enum { DEFERRED_MAX = 16 };

struct faultdev {
    struct dev dev;
    struct deferred deferred[DEFERRED_MAX];
    unsigned n_deferred;
    uint32_t n_blocks;
    struct page **medium; /* NULL: a block of zeros */
    struct page **cache; /* clean pages that differ from the medium; NULL: none; made when needed */
    struct pending *pending;
    size_t n_pending, room;
    bool medium_reads;
    enum dev_news news;
    bool begun;
    unsigned long count[FAULT_OPS];
    struct fault fault[FAULT_OPS];
    faultdev_watcher *watcher;
    void *watcher_arg;
};

static const uint8_t zeros[BLOCK_SIZE];

static const struct faultdev *
peer(const struct dev *d)
{
    return (const struct faultdev *)d;
}

static void *
must(void *p)
{
    if (!p)
        abort(); /* a test without memory proves nothing */
    return p;
}

static struct page *
page_get(struct page *p)
{
    if (p)
        p->refs++;
    return p;
}

static void
page_put(struct page *p)
{
    if (p && --p->refs == 0)
        free(p);
}

static void
page_set(struct page **place, struct page *p)
{
    page_put(*place);
    *place = p;
}

static struct page *
page_of(const uint8_t *data)
{
    struct page *p = must(malloc(sizeof *p));

    p->refs = 1;
    memcpy(p->data, data, BLOCK_SIZE);
    return p;
}

/* A page of its own with the sectors in @mask from @over, the others from @under. */
static struct page *
page_torn(const struct page *under, const struct page *over, uint8_t mask)
{
    struct page *p = page_of(under ? under->data : zeros);

    for (int i = 0; i < SECTORS; i++)
        if (mask >> i & 1)
            memcpy(p->data + i * SECTOR_SIZE, over->data + i * SECTOR_SIZE, SECTOR_SIZE);
    return p;
}

static void
push_pending(struct faultdev *f, uint32_t block, struct page *p)
{
    if (f->n_pending == f->room) {
        f->room = f->room ? f->room * 2 : 16;
        f->pending = must(realloc(f->pending, f->room * sizeof *f->pending));
    }
    f->pending[f->n_pending++] = (struct pending){block, p};
}

static void
drop_pending(struct faultdev *f, size_t keep)
{
    while (f->n_pending > keep)
        page_put(f->pending[--f->n_pending].page);
}

/* Moves the writes since the last flush to the medium, as far as @masks let them. */
static void
apply_pending(struct faultdev *f, const uint8_t *masks)
{
    for (size_t i = 0; i < f->n_pending; i++) {
        struct pending *w = &f->pending[i];
        struct page **m = &f->medium[w->block];

        if (masks[i] == WHOLE)
            page_set(m, page_get(w->page));
        else if (masks[i])
            page_set(m, page_torn(*m, w->page, masks[i]));
    }
}

static void
fail_flush(struct faultdev *f, const uint8_t *masks)
{
    if (!f->cache)
        f->cache = must(calloc(f->n_blocks, sizeof *f->cache));
    for (size_t i = 0; i < f->n_pending; i++)
        page_set(&f->cache[f->pending[i].block], page_get(f->pending[i].page));
    if (masks)
        apply_pending(f, masks);
    drop_pending(f, 0);
}

/* What a reader sees of a block; NULL: zeros.  A direct read makes the kernel write dirty pages out
 * first, so it shows them as well; only pages that count as clean are passed by. */
static const struct page *
visible(const struct faultdev *f, uint32_t block)
{
    for (size_t i = f->n_pending; i-- > 0;)
        if (f->pending[i].block == block)
            return f->pending[i].page;
    if (!f->medium_reads && f->cache && f->cache[block])
        return f->cache[block];
    return f->medium[block];
}

/* Counts the operation; returns the fault that hits it, or NULL. */
static struct fault *
hit(struct faultdev *f, enum fault_op op)
{
    struct fault *t = &f->fault[op];

    if (f->count[op]++ != t->at || !t->armed)
        return NULL;
    t->armed = false;
    return t;
}

static int
fault_pread(struct dev *d, void *buf, size_t n, uint64_t off)
{
    struct faultdev *f = (struct faultdev *)d;
    const struct fault *t = hit(f, FAULT_READ);

    if (t)
        return t->r;
    for (size_t i = 0; i < n / BLOCK_SIZE; i++) {
        const struct page *p = visible(f, (uint32_t)(off / BLOCK_SIZE + i));

        memcpy((uint8_t *)buf + i * BLOCK_SIZE, p ? p->data : zeros, BLOCK_SIZE);
    }
    return 0;
}

static int
fault_pwrite(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    struct faultdev *f = (struct faultdev *)d;
    const struct fault *t = hit(f, FAULT_WRITE);
    size_t whole = n / BLOCK_SIZE;

    if (t)
        whole = t->has_masks && t->masks[0] < whole ? t->masks[0] : 0;
    for (size_t i = 0; i < whole; i++)
        push_pending(f, (uint32_t)(off / BLOCK_SIZE + i),
                     page_of((const uint8_t *)buf + i * BLOCK_SIZE));
    return t ? t->r : 0;
}

/* All of them, also after one has failed, the last one first. */
static int
fault_wait(struct dev *d)
{
    struct faultdev *f = (struct faultdev *)d;
    int r = 0;

    while (f->n_deferred > 0) {
        const struct deferred *w = &f->deferred[--f->n_deferred];
        int e = fault_pwrite(d, w->buf, w->n, w->off);

        r = r < 0 ? r : e;
    }
    return r;
}

static int
fault_submit(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    struct faultdev *f = (struct faultdev *)d;
    int r = f->n_deferred == DEFERRED_MAX ? fault_wait(d) : 0;

    if (r == 0)
        f->deferred[f->n_deferred++] = (struct deferred){buf, n, off};
    return r;
}

static int
fault_sync(struct dev *d)
{
    struct faultdev *f = (struct faultdev *)d;
    const struct fault *t;

    assert(f->n_deferred == 0);
    if (f->watcher)
        f->watcher(f->watcher_arg, d);
    t = hit(f, FAULT_SYNC);
    if (t) {
        fail_flush(f, t->has_masks ? t->masks : NULL);
        return t->r;
    }
    for (size_t i = 0; i < f->n_pending; i++) {
        struct pending *w = &f->pending[i];

        page_set(&f->medium[w->block], page_get(w->page));
        if (f->cache)
            page_set(&f->cache[w->block], NULL);
    }
    drop_pending(f, 0);
    return 0;
}

static int
fault_medium(struct dev *d, bool on)
{
    ((struct faultdev *)d)->medium_reads = on;
    return 0;
}

static enum dev_news
fault_begin(struct dev *d)
{
    struct faultdev *f = (struct faultdev *)d;
    enum dev_news news = f->news;

    assert(!f->begun);
    f->begun = true;
    f->news = DEV_NO_NEWS;
    return news;
}

static void
fault_end(struct dev *d)
{
    assert(peer(d)->begun);
    ((struct faultdev *)d)->begun = false;
}

static void
fault_close(struct dev *d)
{
    struct faultdev *f = (struct faultdev *)d;

    assert(f->n_deferred == 0);
    drop_pending(f, 0);
    for (uint32_t i = 0; i < f->n_blocks; i++) {
        page_put(f->medium[i]);
        if (f->cache)
            page_put(f->cache[i]);
    }
    free(f->medium);
    free(f->cache);
    free(f->pending);
    free(f);
}

static const struct dev_ops fault_ops = {
    .pread = fault_pread,
    .pwrite = fault_pwrite,
    .sync = fault_sync,
    .submit = fault_submit,
    .wait = fault_wait,
    .medium = fault_medium,
    .close = fault_close,
    .begin = fault_begin,
    .end = fault_end,
};

struct dev *
faultdev_new(uint64_t size)
{
    static char name[] = "faultdev";
    struct faultdev *f = must(calloc(1, sizeof *f));

    assert(size % BLOCK_SIZE == 0);
    f->dev.ops = &fault_ops;
    f->dev.size = size;
    f->dev.sole = true;
    f->dev.name = name;
    f->n_blocks = (uint32_t)(size / BLOCK_SIZE);
    f->medium = must(calloc(f->n_blocks + 1, sizeof *f->medium));
    return &f->dev;
}

/* The medium of @d alone. */
static struct faultdev *
fork_medium(const struct dev *d)
{
    const struct faultdev *from = peer(d);
    struct faultdev *f = (struct faultdev *)faultdev_new(d->size);

    assert(from->n_deferred == 0);
    for (uint32_t i = 0; i < f->n_blocks; i++)
        f->medium[i] = page_get(from->medium[i]);
    return f;
}

/* And what its cache holds. */
static struct faultdev *
fork_cached(const struct dev *d, size_t n_pending)
{
    const struct faultdev *from = peer(d);
    struct faultdev *f = fork_medium(d);

    assert(n_pending <= from->n_pending);
    if (from->cache) {
        f->cache = must(calloc(f->n_blocks, sizeof *f->cache));
        for (uint32_t i = 0; i < f->n_blocks; i++)
            f->cache[i] = page_get(from->cache[i]);
    }
    for (size_t i = 0; i < n_pending; i++)
        push_pending(f, from->pending[i].block, page_get(from->pending[i].page));
    return f;
}

struct dev *
faultdev_fork(const struct dev *d)
{
    return &fork_cached(d, peer(d)->n_pending)->dev;
}

size_t
faultdev_pending(const struct dev *d)
{
    return peer(d)->n_pending;
}

uint64_t
faultdev_pending_off(const struct dev *d, size_t i)
{
    assert(i < peer(d)->n_pending);
    return (uint64_t)peer(d)->pending[i].block * BLOCK_SIZE;
}

struct dev *
faultdev_cut(const struct dev *d, const uint8_t *masks)
{
    const struct faultdev *from = peer(d);
    struct faultdev *f = fork_medium(d);

    for (size_t i = 0; masks && i < from->n_pending; i++)
        push_pending(f, from->pending[i].block, page_get(from->pending[i].page));
    if (masks)
        apply_pending(f, masks);
    drop_pending(f, 0);
    return &f->dev;
}

struct dev *
faultdev_kill(const struct dev *d, size_t n)
{
    return &fork_cached(d, n)->dev;
}

struct dev *
faultdev_flush_failed(const struct dev *d, const uint8_t *masks)
{
    struct faultdev *f = fork_cached(d, peer(d)->n_pending);

    fail_flush(f, masks);
    return &f->dev;
}

void
faultdev_peek(const struct dev *d, void *buf, size_t n, uint64_t off)
{
    const struct faultdev *f = peer(d);

    assert(off <= d->size && n <= d->size - off);
    for (size_t done = 0, step; done < n; done += step, off += step) {
        size_t at = off % BLOCK_SIZE;
        const struct page *p = f->medium[off / BLOCK_SIZE];

        step = n - done < BLOCK_SIZE - at ? n - done : BLOCK_SIZE - at;
        memcpy((uint8_t *)buf + done, (p ? p->data : zeros) + at, step);
    }
}

void
faultdev_poke(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    struct faultdev *f = (struct faultdev *)d;

    assert(off <= d->size && n <= d->size - off);
    for (size_t done = 0, step; done < n; done += step, off += step) {
        size_t at = off % BLOCK_SIZE;
        struct page **m = &f->medium[off / BLOCK_SIZE];
        struct page *p = page_of(*m ? (*m)->data : zeros);

        step = n - done < BLOCK_SIZE - at ? n - done : BLOCK_SIZE - at;
        memcpy(p->data + at, (const uint8_t *)buf + done, step);
        page_set(m, p);
    }
}

void
faultdev_spoil(struct dev *d, uint64_t off)
{
    uint8_t byte;

    faultdev_peek(d, &byte, 1, off);
    byte ^= 0x40;
    faultdev_poke(d, &byte, 1, off);
}

void
faultdev_fail(struct dev *d, enum fault_op op, unsigned long nth, int r, const uint8_t *masks)
{
    struct faultdev *f = (struct faultdev *)d;
    struct fault *t = &f->fault[op];

    *t = (struct fault){.armed = true, .at = f->count[op] + nth, .r = r, .has_masks = masks};
    if (masks && op == FAULT_WRITE)
        t->masks[0] = masks[0];
    else if (masks)
        memcpy(t->masks, masks, sizeof t->masks);
}

unsigned long
faultdev_count(const struct dev *d, enum fault_op op)
{
    return peer(d)->count[op];
}

void
faultdev_watch(struct dev *d, faultdev_watcher *watcher, void *arg)
{
    struct faultdev *f = (struct faultdev *)d;

    f->watcher = watcher;
    f->watcher_arg = arg;
}

void
faultdev_touch(struct dev *d, enum dev_news news)
{
    ((struct faultdev *)d)->news = news;
}
