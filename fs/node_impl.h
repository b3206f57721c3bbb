/* SPDX-License-Identifier: BSD-3-Clause */
/* node_impl.h - what node.c (names and attributes), content.c (bytes) and commit.c (from there to
 * the store) share.
 *
 * Lock order: commit_lock, lock, the store's own.  Functions here are called with lock held, those
 * that say so with commit_lock too; some let go of lock while the store works, and say so as well:
 * whoever calls them pins the node, or has a handle on it, and looks again at what it knew. */
#ifndef VNVRAM_FS_NODE_IMPL_H
#define VNVRAM_FS_NODE_IMPL_H

#include "fs/blob.h"
#include "fs/node.h"
#include <fcntl.h>
#include <pthread.h>

/* What a handle has done that is not committed yet. */
enum { DID_CREATE = 1, DID_TRUNCATE = 2, DID_WRITE = 4 };

struct handle {
    struct node *node;
    struct handle *next;
    int flags;
    unsigned pending;  /* DID_* */
    unsigned inflight; /* DID_* that the commit in flight carries */
    bool overwrites;   /* node_overwrite() is for it */
    bool touched;      /* it has written what was there */
    bool lost;         /* what it did is gone, and nobody has been told */
    bool flushed;      /* a descriptor of it was closed, and nothing written since */
};

struct node {
    uint64_t id;
    char *name; /* NULL: unlinked */
    uint64_t lookups;
    unsigned pins; /* calls that let go of the lock and come back */
    struct handle *handles;

    bool draft; /* see DRAFT_PREFIX */

    bool stored;            /* the store has an entry, with... */
    uint32_t home;          /* ...this slot, */
    struct content content; /* this content */
    struct file_attr base;  /* and these attributes, soon */
    bool attr_changed; /* base is not what the store has: its ctime, and after a write of what was
                          there, mtime */

    /* As programs see it. */
    uint32_t slot; /* held, once; SLOT_NONE when unlinked and closed by all */
    struct file_attr attr;
    uint64_t size;
    struct blob *blob; /* NULL when empty or not loaded */
    bool loaded;
    bool changed;    /* the content is not what the store has */
    bool pages;      /* written through a mapping since the last commit */
    bool committing; /* a commit of this node is in flight */

    bool direct; /* its handles go past the kernel's cache; decided when the first one is opened */
    bool stale;  /* ... and did: what the kernel has cached is not true any more */
};

struct nodes {
    struct store *store;
    struct nodes_options opt;
    bool sealed;

    pthread_mutex_t commit_lock;
    pthread_mutex_t lock; /* all below */
    bool away;            /* the image is another daemon's */
    uint64_t came;        /* it came from one in this generation; 0: it did not */
    unsigned dropping;    /* slots on their way back to the store */
    unsigned drops;       /* slots that are back, ever */
    pthread_cond_t dropped;
    struct file_attr root;
    bool root_changed;
    size_t n_ids, n_names, room; /* room: of both arrays */
    struct node **by_id, **by_name;
};

static inline bool
writable(const struct handle *h)
{
    return (h->flags & O_ACCMODE) != O_RDONLY;
}

/* Of its slot; 0 when it has none. */
static inline uint32_t
node_capacity(const struct nodes *ns, const struct node *n)
{
    return n->slot == SLOT_NONE ? 0 : store_slot_capacity(ns->store, n->slot);
}

/* It has a name that the store is to have, too. */
static inline bool
node_is_kept(const struct node *n)
{
    return n->name && !n->draft;
}

struct node *nodes_find(const struct nodes *ns, uint64_t id); /* NULL: none */
/* Makes the files those of the store's entries: a node for each, names and attributes as there.
 * Both locks are held; what a node that has no name any more leaves is dropped. */
int nodes_reload(struct nodes *ns);
void nodes_now(const struct nodes *ns, struct timespec *now);
int nodes_read_only(const struct nodes *ns); /* 0, or -EROFS */
void attr_apply(struct file_attr *attr, const struct attr_change *ch, const struct timespec *now);

/* Drops what the node keeps in memory if nobody needs it, and all of a draft or an unlinked one
 * that nobody has open; frees it once it is forgotten, too.  Returns the slot to drop after
 * unlocking, or SLOT_NONE. */
uint32_t node_retire(struct nodes *ns, struct node *n);
/* What node_retire() returned goes back to the store; without lock. */
void nodes_drop_slot(struct nodes *ns, uint32_t slot);

/* ---- content.c ------------------------------------------------------------------------------- */

/* Brings the content into memory; lets go of the lock while it is read. */
int node_load(struct nodes *ns, struct node *n);
/* As store_slot_take(), but lets go of the lock meanwhile, and waits a moment for slots that closed
 * files are about to give back. */
int nodes_take_slot(struct nodes *ns, uint64_t size, const char *name, uint32_t *slot);
/* Makes sure of a slot for @size bytes, moving to a larger one; lets go of the lock meanwhile. */
int node_fit_slot(struct nodes *ns, struct node *n, uint64_t size);
/* Cuts or extends the content; lets go of the lock. */
int node_resize(struct nodes *ns, struct node *n, uint64_t size);
/* The content has changed through @h, or (@page) through a mapping. */
void node_wrote(struct nodes *ns, struct node *n, struct handle *h, bool page);

/* ---- commit.c -------------------------------------------------------------------------------- */

struct txn;

int txn_new(struct txn **t, size_t files);
void txn_freep(struct txn **t);
/* The file as it is now; with its content if @carry and that has changed, or its entry if it has
 * none.
 * @attr: what to store; NULL: the working ones with the content, else those that the store should
 * have. */
void txn_file(struct nodes *ns, struct txn *t, struct node *n, const struct file_attr *attr,
              bool carry);
void txn_change(struct txn *t, const struct change *c);
void txn_root(struct nodes *ns, struct txn *t, const struct file_attr *root);
/* Commits.  commit_lock is held; lets go of lock meanwhile. */
int txn_run(struct nodes *ns, struct txn *t);

/* The file with its content: a transaction of its own. */
int commit_file(struct nodes *ns, struct node *n);

#endif
