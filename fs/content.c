/* SPDX-License-Identifier: BSD-3-Clause */
/* content.c - the bytes of files in memory: loading, room for them, reading and writing. */
#include "base/crc32.h"
#include "base/scope.h"
#include "fs/node_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <time.h>

enum { CLOSE_WAIT_MS = 50 };

int
node_load(struct nodes *ns, struct node *n)
{
    while (!n->loaded) {
        struct content c = n->content;
        struct blob *b = c.length ? blob_new(c.length, ns->sealed) : NULL;
        int r = 0;

        if (c.length && !b)
            return -ENOMEM;
        if (b) {
            n->pins++;
            pthread_mutex_unlock(&ns->lock);
            r = store_read(ns->store, &c, b->data);
            pthread_mutex_lock(&ns->lock);
            n->pins--;
        }
        if (n->loaded || c.generation != n->content.generation) {
            blob_put(b); /* somebody else was faster */
        } else if (r < 0) {
            blob_put(b);
            return r == -ENOMEM ? r : -EIO;
        } else {
            n->blob = b;
            n->loaded = true;
        }
    }
    return 0;
}

/* Whether nobody seems to have the unlinked file, or the draft, open any more. */
static bool
is_closing(const struct node *n)
{
    for (const struct handle *h = n->handles; h; h = h->next)
        if (writable(h) && !h->flushed)
            return false;
    return true;
}

static bool
slot_may_come(const struct nodes *ns, uint64_t size)
{
    for (size_t i = 0; i < ns->n_ids; i++) {
        const struct node *n = ns->by_id[i];

        if (!node_is_kept(n) && n->slot != SLOT_NONE && node_capacity(ns, n) >= size &&
            is_closing(n))
            return true;
    }
    return ns->dropping > 0;
}

/* close() returns before the kernel tells of it, so a program that unlinks, closes and creates in a
 * full image may be here before the slot is. */
int
nodes_take_slot(struct nodes *ns, uint64_t size, const char *name, uint32_t *slot)
{
    struct timespec until;
    bool late = false;
    int r;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += CLOSE_WAIT_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    for (;;) {
        unsigned before = ns->drops;

        pthread_mutex_unlock(&ns->lock);
        r = store_slot_take(ns->store, size, name, slot);
        pthread_mutex_lock(&ns->lock);
        if (r != -ENOSPC)
            return r;
        if (before != ns->drops)
            continue;
        if (late || !slot_may_come(ns, size))
            return r;
        late = pthread_cond_timedwait(&ns->dropped, &ns->lock, &until) == ETIMEDOUT;
    }
}

int
node_fit_slot(struct nodes *ns, struct node *n, uint64_t size)
{
    if (size > store_largest_capacity(ns->store))
        return -EFBIG;
    while (size > node_capacity(ns, n)) {
        char name[NAME_MAX_LEN + 1];
        uint32_t slot, loser;
        int r;

        strcpy(name, n->name ? n->name : "");
        n->pins++;
        r = nodes_take_slot(ns, size, *name ? name : NULL, &slot);
        loser = slot;
        if (r == 0 && size > node_capacity(ns, n)) {
            loser = n->slot;
            n->slot = slot;
        }
        pthread_mutex_unlock(&ns->lock);
        if (r == 0 && loser != SLOT_NONE)
            store_slot_drop(ns->store, loser);
        pthread_mutex_lock(&ns->lock);
        n->pins--;
        if (r < 0)
            return r;
    }
    return 0;
}

/* Loads the file and makes it ours to change, with room for @size bytes. */
static int
make_ready(struct nodes *ns, struct node *n, uint64_t size)
{
    int r = node_load(ns, n);

    if (r == 0)
        r = node_fit_slot(ns, n, size);
    if (r < 0)
        return r;
    if (size < n->size)
        size = n->size;
    return size == 0 || blob_own(&n->blob, n->size, size, ns->sealed) ? 0 : -ENOMEM;
}

int
node_resize(struct nodes *ns, struct node *n, uint64_t size)
{
    int r = make_ready(ns, n, size);

    if (r < 0)
        return r;
    if (size < n->size)
        memset(n->blob->data + size, 0, n->size - size);
    n->size = size;
    n->changed = true;
    return 0;
}

void
node_wrote(struct nodes *ns, struct node *n, struct handle *h, bool page)
{
    struct timespec now;

    nodes_now(ns, &now);
    n->attr.mtime = n->attr.ctime = now;
    n->changed = true;
    h->flushed = false;
    if (page)
        n->pages = true;
    else
        h->pending |= DID_WRITE;
}

/* As relatime has it; not worth a commit. */
static void
accessed(struct nodes *ns, struct file_attr *a)
{
    struct timespec now;

    if (ns->opt.read_only || ns->opt.no_atime)
        return;
    nodes_now(ns, &now);
    if (a->atime.tv_sec <= a->mtime.tv_sec || a->atime.tv_sec <= a->ctime.tv_sec ||
        now.tv_sec - a->atime.tv_sec >= 24 * 60 * 60)
        a->atime = now;
}

void
nodes_listed(struct nodes *ns)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);

    accessed(ns, &ns->root);
}

int
node_read(struct nodes *ns, struct handle *h, size_t len, uint64_t off, struct view *v)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);
    struct node *n = h->node;
    int r = node_load(ns, n);

    if (r < 0)
        return r;
    if (!(h->flags & O_NOATIME))
        accessed(ns, &n->attr);
    *v = (struct view){0};
    if (off >= n->size || len == 0)
        return 0;
    v->len = len < n->size - off ? len : n->size - off;
    v->blob = blob_get(n->blob);
    v->data = v->blob->data + off;
    return 0;
}

void
node_put_view(struct view *v)
{
    blob_put(v->blob);
    *v = (struct view){0};
}

/* The end of a range, or -EFBIG. */
static int
range_end(const struct nodes *ns, uint64_t off, uint64_t len, uint64_t *end)
{
    uint64_t most = store_largest_capacity(ns->store);

    if (off > most || len > most - off)
        return -EFBIG;
    *end = off + len;
    return 0;
}

/* Firmware that tidies up its flash writes over and over what is there, byte by byte, and syncs
 * each time: for a flash of half a megabyte those were minutes. */
static bool
is_there(const struct nodes *ns, const struct node *n, const void *buf, size_t len, uint64_t end)
{
    return n->stored && !n->changed && !n->committing && end <= n->size &&
           store_is_sole(ns->store) && memcmp(n->blob->data + (end - len), buf, len) == 0;
}

/* Only times are new: they can wait for fsync or close. */
static void
wrote_nothing_new(struct nodes *ns, struct node *n, struct handle *h)
{
    struct timespec now;

    nodes_now(ns, &now);
    n->attr.mtime = n->attr.ctime = now;
    n->base.mtime = n->base.ctime = now;
    n->attr_changed = h->touched = true;
    h->flushed = false;
}

int
node_write(struct nodes *ns, struct handle *h, const void *buf, size_t len, uint64_t off, bool page)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);
    struct node *n = h->node;
    uint64_t end;
    int r = nodes_read_only(ns);

    if (r < 0 || len == 0)
        return r;
    r = range_end(ns, off, len, &end);
    if (r == 0)
        r = node_load(ns, n);
    if (r == 0)
        r = nodes_read_only(ns); /* by now */
    if (r == 0 && is_there(ns, n, buf, len, end)) {
        wrote_nothing_new(ns, n, h);
        return 0;
    }
    if (r == 0)
        r = make_ready(ns, n, end);
    if (r < 0)
        return r;
    memcpy(n->blob->data + off, buf, len);
    if (end > n->size)
        n->size = end;
    node_wrote(ns, n, h, page);
    return 0;
}

int
node_fallocate(struct nodes *ns, struct handle *h, int mode, uint64_t off, uint64_t len)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);
    struct node *n = h->node;
    bool zero = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
    bool reserve = !(mode & FALLOC_FL_PUNCH_HOLE);
    uint64_t end = 0;
    int r = nodes_read_only(ns);

    if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
        return -EOPNOTSUPP;
    if (r == 0 && reserve)
        r = range_end(ns, off, len, &end);
    if (r == 0)
        r = make_ready(ns, n, reserve ? end : n->size);
    if (r < 0)
        return r;
    if (zero && off < n->size)
        memset(n->blob->data + off, 0, len < n->size - off ? len : n->size - off);
    if (!(mode & FALLOC_FL_KEEP_SIZE) && end > n->size)
        n->size = end;
    node_wrote(ns, n, h, false);
    return 0;
}

/* ---- what attributes tell -------------------------------------------------------------------- */

static int
content_crc32(struct nodes *ns, const struct content *c, uint32_t *crc)
{
    struct blob *b = blob_new(c->length, ns->sealed);
    int r = !b ? -ENOMEM : c->length ? store_read(ns->store, c, b->data) : 0;

    if (r == 0)
        *crc = crc32_of(b->data, c->length);
    blob_put(b);
    return r;
}

int
node_get_info(struct nodes *ns, uint64_t id, bool want_crc, struct node_info *info)
{
    struct node *n;

    pthread_mutex_lock(&ns->lock);
    n = nodes_find(ns, id);
    if (!n || n->slot == SLOT_NONE) {
        pthread_mutex_unlock(&ns->lock);
        return -ESTALE;
    }
    *info = (struct node_info){
        .slot = n->stored ? n->home : n->slot,
        .content = n->content,
        .capacity = store_slot_capacity(ns->store, n->stored ? n->home : n->slot),
        .sealed = ns->sealed,
        .dirty = n->changed || !n->stored || n->attr_changed,
    };
    pthread_mutex_unlock(&ns->lock);
    return want_crc ? content_crc32(ns, &info->content, &info->crc32) : 0;
}
