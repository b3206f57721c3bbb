/* SPDX-License-Identifier: BSD-3-Clause */
/* commit.c - from files in memory to transactions of the store, and when. */
#include "base/scope.h"
#include "fs/node_impl.h"
#include <errno.h>
#include <string.h>

/* What a transaction takes of one file.  The commit works on this, so the file may change
 * meanwhile. */
struct txn_file {
    struct node *node;
    struct blob *blob;
    uint32_t slot; /* one hold more */
    struct file_attr attr;
    bool content, pages;
    struct content result; /* what the store has then */
};

struct txn {
    size_t n_files, n_changes;
    struct txn_file *files;
    struct change *changes;
    bool has_root;
    struct file_attr root;
};

int
txn_new(struct txn **out, size_t files)
{
    AUTO(txn_freep) struct txn *t = calloc(1, sizeof *t);

    if (!t)
        return -ENOMEM;
    t->files = calloc(files + 1, sizeof *t->files);
    t->changes = calloc(files + 2, sizeof *t->changes); /* a change of names, and the root */
    if (!t->files || !t->changes)
        return -ENOMEM;
    *out = steal(&t);
    return 0;
}

void
txn_freep(struct txn **t)
{
    if (!*t)
        return;
    free((*t)->files);
    free((*t)->changes);
    free(*t);
}

void
txn_change(struct txn *t, const struct change *c)
{
    t->changes[t->n_changes++] = *c;
}

void
txn_root(struct nodes *ns, struct txn *t, const struct file_attr *root)
{
    t->has_root = true;
    t->root = root ? *root : ns->root;
    txn_change(t, &(struct change){.op = CHANGE_ROOT, .attr = t->root});
}

void
txn_file(struct nodes *ns, struct txn *t, struct node *n, const struct file_attr *attr, bool carry)
{
    bool content = carry && (n->changed || !n->stored);
    bool working = content || !n->stored;
    struct txn_file *f = &t->files[t->n_files++];

    *f = (struct txn_file){
        .node = n,
        .slot = working ? n->slot : n->home,
        .attr = attr      ? *attr
                : working ? n->attr
                          : n->base,
        .content = content,
    };
    n->pins++;
    n->committing = true;
    store_slot_hold(ns->store, f->slot);
    if (content) {
        f->blob = blob_get(n->blob);
        f->pages = n->pages;
        n->changed = n->pages = false;
        for (struct handle *h = n->handles; h; h = h->next) {
            h->inflight = h->pending;
            h->pending = 0;
        }
    }
    txn_change(t, &(struct change){
                      .op = CHANGE_FILE,
                      .id = n->id,
                      .name = n->name,
                      .slot = f->slot,
                      .has_content = content,
                      .data = f->blob ? f->blob->data : NULL,
                      .len = content ? n->size : 0,
                      .attr = f->attr,
                  });
}

/* The commit of @f has ended with @r. */
static void
settle_file(struct txn_file *f, int r)
{
    struct node *n = f->node;

    n->pins--;
    n->committing = false;
    if (r == 0) {
        if (f->content || !n->stored)
            n->home = f->slot;
        n->content = f->result;
        n->stored = true;
        n->base = f->attr;
        n->attr_changed = false;
    }
    for (struct handle *h = f->content ? n->handles : NULL; h; h = h->next) {
        if (r < 0)
            h->pending |= h->inflight;
        h->inflight = 0;
    }
    if (f->content && r < 0) {
        n->changed = true;
        n->pages |= f->pages;
    }
}

int
txn_run(struct nodes *ns, struct txn *t)
{
    int r;

    pthread_mutex_unlock(&ns->lock);
    r = store_commit(ns->store, t->changes, t->n_changes, NULL);
    for (size_t i = 0; i < t->n_files; i++) {
        struct entry e;

        store_slot_drop(ns->store, t->files[i].slot);
        if (r == 0 && store_find_id(ns->store, t->files[i].node->id, &e) == 0)
            t->files[i].result = e.current;
    }
    if (r == 0 && ns->opt.committed)
        ns->opt.committed(ns->opt.arg);
    pthread_mutex_lock(&ns->lock);

    for (size_t i = 0; i < t->n_files; i++) {
        settle_file(&t->files[i], r);
        blob_put(t->files[i].blob);
    }
    if (r == 0 && t->has_root) {
        ns->root = t->root;
        ns->root_changed = false;
    }
    return r;
}

int
commit_file(struct nodes *ns, struct node *n)
{
    AUTO(txn_freep) struct txn *t = NULL;
    int r = nodes_read_only(ns);

    if (r == 0)
        r = txn_new(&t, 1);
    if (r < 0)
        return r;
    if (!n->stored)
        txn_root(ns, t, NULL); /* its name is new, too */
    txn_file(ns, t, n, NULL, true);
    return txn_run(ns, t);
}

/* ---- commit points --------------------------------------------------------------------------- */

static bool
data_sync_wanted(const struct handle *h)
{
    const struct node *n = h->node;

    return node_is_kept(n) && (n->changed || !n->stored);
}

static bool
sync_wanted(const struct handle *h)
{
    return data_sync_wanted(h) || (node_is_kept(h->node) && h->node->attr_changed);
}

/* A handle's flush speaks for what was written through it, and nobody's speaks for a mapping's
 * pages. Truncation alone waits: a shell closes a duplicate of what it has just truncated for a
 * command. */
static bool
flush_wanted(const struct handle *h)
{
    const struct node *n = h->node;

    if (!node_is_kept(n))
        return false;
    return n->changed ? (h->pending & DID_WRITE) || (n->pages && writable(h))
                      : n->attr_changed && h->touched;
}

/* The rest, unless another handle is going to speak for it. */
static bool
release_wanted(const struct handle *h)
{
    const struct node *n = h->node;

    if (!node_is_kept(n) || !n->changed)
        return false;
    for (const struct handle *o = n->handles; o; o = o->next)
        if (o != h && (o->pending || (n->pages && writable(o) && !writable(h))))
            return false;
    return true;
}

/* Commits the handle's file if that is wanted once no other commit of it is in flight: what that
 * one carries must be durable too when this returns.  -EIO, once, for what a reload has lost. */
static int
commit_if(struct nodes *ns, struct handle *h, bool (*wanted)(const struct handle *h))
{
    bool idle, lost;

    pthread_mutex_lock(&ns->lock);
    lost = h->lost && wanted != release_wanted; /* which nobody hears of */
    h->lost = false;
    idle = !h->node->committing && !wanted(h);
    pthread_mutex_unlock(&ns->lock);
    if (lost)
        return -EIO;
    if (idle)
        return 0;

    AUTO_UNLOCK pthread_mutex_t *one = lock_mutex(&ns->commit_lock);
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);

    return wanted(h) ? commit_file(ns, h->node) : 0;
}

int
node_flush(struct nodes *ns, struct handle *h)
{
    int r = commit_if(ns, h, flush_wanted);

    pthread_mutex_lock(&ns->lock);
    h->flushed = true;
    pthread_mutex_unlock(&ns->lock);
    return r;
}

int
node_fsync(struct nodes *ns, struct handle *h, bool data)
{
    return commit_if(ns, h, data ? data_sync_wanted : sync_wanted);
}

int
node_sync_write(struct nodes *ns, struct handle *h)
{
    return node_fsync(ns, h, (h->flags & O_SYNC) != O_SYNC);
}

int
node_overwrite(struct nodes *ns, struct handle *h, const void *buf, size_t n, uint64_t off)
{
    bool whole;
    int r;

    pthread_mutex_lock(&ns->lock);
    whole = off == 0 && n > 0 && n == h->node->size;
    if (whole)
        h->lost = false; /* all of it is written again */
    pthread_mutex_unlock(&ns->lock);
    if (!whole)
        return -EOPNOTSUPP;
    r = node_write(ns, h, buf, n, off, false);
    return r < 0 ? r : node_sync_write(ns, h);
}

int
node_release(struct nodes *ns, struct handle *h)
{
    struct node *n = h->node;
    int r = commit_if(ns, h, release_wanted);
    struct handle **at;
    uint32_t slot;

    pthread_mutex_lock(&ns->lock);
    for (at = &n->handles; *at != h; at = &(*at)->next)
        ;
    *at = h->next;
    free(h);
    slot = node_retire(ns, n);
    pthread_mutex_unlock(&ns->lock);
    nodes_drop_slot(ns, slot);
    return r;
}

/* A released node may be freed: each time from the start. */
static struct handle *
any_handle(struct nodes *ns)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);

    for (size_t i = 0; i < ns->n_ids; i++)
        if (ns->by_id[i]->handles)
            return ns->by_id[i]->handles;
    return NULL;
}

void
nodes_close_all(struct nodes *ns)
{
    struct handle *h;

    while ((h = any_handle(ns)))
        node_release(ns, h);
}

/* ---- all files ------------------------------------------------------------------------------- */

static bool
half_written(const struct node *n)
{
    for (const struct handle *h = n->handles; h; h = h->next)
        if (h->pending & DID_WRITE)
            return true;
    return n->pages;
}

static bool
name_is_new(const struct node *n)
{
    return node_is_kept(n) && !n->stored;
}

static bool
attr_waits(const struct node *n)
{
    return n->name && n->stored && n->attr_changed;
}

/* Commits the entry of each node that @which picks, and the root's if that has changed; nothing
 * when there is none.  Both locks are held. */
static int
commit_entries(struct nodes *ns, bool (*which)(const struct node *n))
{
    AUTO(txn_freep) struct txn *t = NULL;
    size_t n = 0;
    int r;

    for (size_t i = 0; i < ns->n_ids; i++)
        n += which(ns->by_id[i]);
    if (n == 0 && !ns->root_changed)
        return 0;
    r = txn_new(&t, n);
    if (r < 0)
        return r;
    txn_root(ns, t, NULL);
    for (size_t i = 0; i < ns->n_ids; i++) {
        struct node *node = ns->by_id[i];

        if (which(node))
            txn_file(ns, t, node, NULL, !node->stored && !half_written(node));
    }
    return txn_run(ns, t);
}

/* The image has come from another daemon, which can have it back while it is as it was.  What waits
 * for a commit is no reason for one then.  Nobody was promised that: fsync, the close of who has
 * written, and whatever changes more than a ctime have committed, and then it is not as it came. */
static bool
is_as_it_came(struct nodes *ns)
{
    struct store_info info;

    if (ns->came == 0)
        return false;
    store_get_info(ns->store, &info);
    return info.generation == ns->came;
}

int
nodes_sync(struct nodes *ns)
{
    AUTO_UNLOCK pthread_mutex_t *one = lock_mutex(&ns->commit_lock);
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);

    return nodes_read_only(ns) ? 0 : commit_entries(ns, name_is_new);
}

int
nodes_release(struct nodes *ns, bool back)
{
    AUTO_UNLOCK pthread_mutex_t *one = lock_mutex(&ns->commit_lock);
    bool unwritten;
    int r;

    pthread_mutex_lock(&ns->lock);
    if (ns->away) {
        pthread_mutex_unlock(&ns->lock);
        return 0;
    }
    unwritten = is_as_it_came(ns);
    r = nodes_read_only(ns);
    if (r == 0 && !unwritten)
        r = commit_entries(ns, attr_waits);
    if (r == 0)
        ns->away = true;
    pthread_mutex_unlock(&ns->lock);
    if (r == 0)
        r = store_release(ns->store, back && unwritten);
    if (r < 0) {
        pthread_mutex_lock(&ns->lock);
        ns->away = store_where(ns->store) != STORE_HERE;
        pthread_mutex_unlock(&ns->lock);
    }
    return r;
}

int
nodes_take(struct nodes *ns, unsigned wait_ms)
{
    AUTO_UNLOCK pthread_mutex_t *one = lock_mutex(&ns->commit_lock);
    bool incoming = store_where(ns->store) == STORE_INCOMING;
    struct store_info info;
    int r = store_take(ns->store, wait_ms);

    if (r < 0)
        return r;
    pthread_mutex_lock(&ns->lock);
    if (ns->away && incoming) {
        store_get_info(ns->store, &info);
        ns->came = info.generation;
        r = nodes_reload(ns);
    }
    if (r == 0)
        ns->away = false;
    pthread_mutex_unlock(&ns->lock);
    if (r < 0)
        store_release(ns->store, incoming);
    return r;
}

int
nodes_settle(struct nodes *ns)
{
    AUTO_UNLOCK pthread_mutex_t *one = lock_mutex(&ns->commit_lock);
    bool away;
    int r;

    if (ns->opt.read_only)
        return 0;
    pthread_mutex_lock(&ns->lock);
    away = ns->away;
    r = nodes_read_only(ns);
    if (r == 0 && !is_as_it_came(ns))
        r = commit_entries(ns, attr_waits);
    pthread_mutex_unlock(&ns->lock);
    if (away)
        return 0; /* it was settled before it went */
    return r < 0 ? r : store_settle(ns->store);
}
