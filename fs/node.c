/* SPDX-License-Identifier: BSD-3-Clause */
#include "fs/node.h"
#include "base/scope.h"
#include "fs/node_impl.h"
#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>

void
nodes_now(const struct nodes *ns, struct timespec *now)
{
    if (ns->opt.clock)
        ns->opt.clock(now);
    else
        clock_gettime(CLOCK_REALTIME, now);
}

int
nodes_read_only(const struct nodes *ns)
{
    return ns->opt.read_only || ns->away || store_is_read_only(ns->store) ? -EROFS : 0;
}

/* ---- tables ---------------------------------------------------------------------------------- */

/* Where @id is, or would be, in by_id. */
static size_t
id_place(const struct nodes *ns, uint64_t id)
{
    size_t low = 0, high = ns->n_ids;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (ns->by_id[mid]->id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct node *
nodes_find(const struct nodes *ns, uint64_t id)
{
    size_t at = id_place(ns, id);

    return at < ns->n_ids && ns->by_id[at]->id == id ? ns->by_id[at] : NULL;
}

static size_t
name_place(const struct nodes *ns, const char *name)
{
    size_t low = 0, high = ns->n_names;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (strcmp(ns->by_name[mid]->name, name) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct node *
find_name(const struct nodes *ns, const char *name)
{
    size_t at = name_place(ns, name);

    return at < ns->n_names && strcmp(ns->by_name[at]->name, name) == 0 ? ns->by_name[at] : NULL;
}

static void
insert(struct node **array, size_t *n, size_t at, struct node *node)
{
    memmove(array + at + 1, array + at, (*n - at) * sizeof *array);
    array[at] = node;
    ++*n;
}

static void
take_out(struct node **array, size_t *n, size_t at)
{
    --*n;
    memmove(array + at, array + at + 1, (*n - at) * sizeof *array);
}

/* Gives @n the name @name, which is the node's from now on and nobody else's. */
static void
link_name(struct nodes *ns, struct node *n, char *name)
{
    n->name = name;
    insert(ns->by_name, &ns->n_names, name_place(ns, name), n);
}

static char *
unlink_name(struct nodes *ns, struct node *n)
{
    char *name = n->name;

    take_out(ns->by_name, &ns->n_names, name_place(ns, name));
    n->name = NULL;
    return name;
}

/* Room for one node more in both tables. */
static int
make_room(struct nodes *ns)
{
    size_t room = ns->room ? ns->room * 2 : 64;
    struct node **ids, **names;

    if (ns->n_ids < ns->room)
        return 0;
    ids = reallocarray(ns->by_id, room, sizeof *ids);
    if (!ids)
        return -ENOMEM;
    ns->by_id = ids;
    names = reallocarray(ns->by_name, room, sizeof *names);
    if (!names)
        return -ENOMEM;
    ns->by_name = names;
    ns->room = room;
    return 0;
}

/* Takes over @n and @name. */
static void
enter(struct nodes *ns, struct node *n, char *name)
{
    insert(ns->by_id, &ns->n_ids, id_place(ns, n->id), n);
    link_name(ns, n, name);
}

static void
free_node(struct node *n)
{
    while (n->handles) {
        struct handle *h = n->handles;

        n->handles = h->next;
        free(h);
    }
    blob_put(n->blob);
    free(n->name);
    free(n);
}

uint32_t
node_retire(struct nodes *ns, struct node *n)
{
    uint32_t slot = SLOT_NONE;

    if (n->handles || n->pins)
        return SLOT_NONE;
    if (n->draft && n->name)
        free(unlink_name(ns, n));
    if (!n->name || !n->changed) {
        blob_put(n->blob);
        n->blob = NULL;
        n->loaded = false;
    }
    if (n->name)
        return SLOT_NONE;
    slot = n->slot;
    n->slot = SLOT_NONE;
    ns->dropping += slot != SLOT_NONE;
    if (n->lookups == 0) {
        take_out(ns->by_id, &ns->n_ids, id_place(ns, n->id));
        free_node(n);
    }
    return slot;
}

void
nodes_drop_slot(struct nodes *ns, uint32_t slot)
{
    if (slot == SLOT_NONE)
        return;
    store_slot_drop(ns->store, slot);
    pthread_mutex_lock(&ns->lock);
    ns->dropping--;
    ns->drops++;
    pthread_cond_broadcast(&ns->dropped);
    pthread_mutex_unlock(&ns->lock);
}

/* Ends an operation: node_retire(), and lets go of both locks before the store is asked. */
static void
retire_and_unlock(struct nodes *ns, struct node *n, bool commit_lock)
{
    uint32_t slot = node_retire(ns, n);

    pthread_mutex_unlock(&ns->lock);
    nodes_drop_slot(ns, slot);
    if (commit_lock)
        pthread_mutex_unlock(&ns->commit_lock);
}

static void
lock_both(struct nodes *ns)
{
    pthread_mutex_lock(&ns->commit_lock);
    pthread_mutex_lock(&ns->lock);
}

static void
unlock_both(struct nodes *ns)
{
    pthread_mutex_unlock(&ns->lock);
    pthread_mutex_unlock(&ns->commit_lock);
}

/* ---- life ------------------------------------------------------------------------------------ */

/* What the store tells of the file, over whatever was known. */
static void
follow_entry(struct nodes *ns, struct node *n, const struct entry *e)
{
    blob_put(n->blob);
    n->blob = NULL;
    for (struct handle *h = n->handles; h; h = h->next)
        h->pending = 0;
    if (n->slot != e->slot) {
        store_slot_hold(ns->store, e->slot);
        if (n->slot != SLOT_NONE)
            store_slot_drop(ns->store, n->slot);
    }
    n->stored = true;
    n->loaded = n->changed = n->pages = n->attr_changed = false;
    n->slot = n->home = e->slot;
    n->content = e->current;
    n->base = n->attr = e->attr;
    n->size = e->current.length;
}

/* Nodes and names for all entries, the nodes in by_id already; nothing else is changed. */
static int
prepare_entries(struct nodes *ns, const struct entry *entries, size_t n, char **names)
{
    for (size_t i = 0; i < n; i++) {
        struct node *node;

        if (entries[i].kind != ENTRY_FILE)
            continue;
        names[i] = strdup(entries[i].name);
        if (!names[i])
            return -ENOMEM;
        if (nodes_find(ns, entries[i].id))
            continue;
        node = calloc(1, sizeof *node);
        if (!node || make_room(ns) < 0) {
            free(node);
            return -ENOMEM;
        }
        node->id = entries[i].id;
        node->slot = SLOT_NONE;
        insert(ns->by_id, &ns->n_ids, id_place(ns, node->id), node);
    }
    return 0;
}

/* What was done to the files and not committed goes with this reload.  The next flush or fsync of
 * each handle that did it says so. */
static void
mark_lost(struct nodes *ns)
{
    for (size_t i = 0; i < ns->n_ids; i++) {
        const struct node *n = ns->by_id[i];

        if (!node_is_kept(n) || (n->stored && !n->changed))
            continue;
        for (struct handle *h = n->handles; h; h = h->next)
            h->lost |= h->pending || (n->pages && writable(h));
    }
}

/* Nodes that no entry names: unlinked files, and those that a failed reload has made. */
static void
drop_nameless(struct nodes *ns)
{
    for (size_t i = ns->n_ids; i-- > 0;) {
        uint32_t slot = ns->by_id[i]->name ? SLOT_NONE : node_retire(ns, ns->by_id[i]);

        if (slot == SLOT_NONE)
            continue;
        store_slot_drop(ns->store, slot);
        ns->dropping--;
    }
}

int
nodes_reload(struct nodes *ns)
{
    AUTO_FREE struct entry *entries = NULL;
    AUTO_FREE char **names = NULL;
    size_t n = 0;
    int r = store_list(ns->store, &entries, &n);

    names = r == 0 ? calloc(n + 1, sizeof *names) : NULL;
    if (!names)
        return r < 0 ? r : -ENOMEM;
    r = prepare_entries(ns, entries, n, names);
    if (r == 0)
        mark_lost(ns);
    while (r == 0 && ns->n_names > 0)
        free(unlink_name(ns, ns->by_name[0]));
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct node *node = names[i] ? nodes_find(ns, entries[i].id) : NULL;

        if (!node)
            continue;
        follow_entry(ns, node, &entries[i]);
        link_name(ns, node, steal(&names[i]));
    }
    for (size_t i = 0; r < 0 && i < n; i++)
        free(names[i]);
    drop_nameless(ns);
    if (r < 0)
        return r;
    store_get_root(ns->store, &ns->root);
    ns->root_changed = false;
    return 0;
}

static void
nodes_freep(struct nodes **ns)
{
    nodes_free(*ns);
}

static void
init_condition(pthread_cond_t *c)
{
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(c, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

int
nodes_new(struct nodes **out, struct store *s, const struct nodes_options *opt)
{
    AUTO(nodes_freep) struct nodes *ns = calloc(1, sizeof *ns);
    int r;

    if (!ns)
        return -ENOMEM;
    ns->store = s;
    ns->opt = *opt;
    ns->sealed = store_superblock(s)->seal_mode != SEAL_NONE;
    pthread_mutex_init(&ns->commit_lock, NULL);
    pthread_mutex_init(&ns->lock, NULL);
    init_condition(&ns->dropped);
    ns->away = store_where(s) != STORE_HERE;
    r = nodes_reload(ns);
    if (r < 0)
        return r;
    *out = steal(&ns);
    return 0;
}

void
nodes_free(struct nodes *ns)
{
    if (!ns)
        return;
    for (size_t i = 0; i < ns->n_ids; i++) {
        if (ns->by_id[i]->slot != SLOT_NONE)
            store_slot_drop(ns->store, ns->by_id[i]->slot);
        free_node(ns->by_id[i]);
    }
    free(ns->by_id);
    free(ns->by_name);
    pthread_cond_destroy(&ns->dropped);
    pthread_mutex_destroy(&ns->lock);
    pthread_mutex_destroy(&ns->commit_lock);
    free(ns);
}

/* ---- attributes ------------------------------------------------------------------------------ */

void
attr_apply(struct file_attr *attr, const struct attr_change *ch, const struct timespec *now)
{
    if (ch->set & SET_MODE)
        attr->mode = ch->mode & 07777;
    if (ch->set & SET_UID)
        attr->uid = ch->uid;
    if (ch->set & SET_GID)
        attr->gid = ch->gid;
    if (ch->set & SET_SIZE)
        attr->mtime = *now;
    if (ch->set & (SET_ATIME | SET_ATIME_NOW))
        attr->atime = ch->set & SET_ATIME_NOW ? *now : ch->atime;
    if (ch->set & (SET_MTIME | SET_MTIME_NOW))
        attr->mtime = ch->set & SET_MTIME_NOW ? *now : ch->mtime;
    attr->ctime = *now;
}

static bool
same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* But for ctime. */
static bool
same_attr(const struct file_attr *a, const struct file_attr *b)
{
    return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid &&
           same_time(&a->atime, &b->atime) && same_time(&a->mtime, &b->mtime);
}

static void
fill_stat(const struct nodes *ns, const struct node *n, struct node_stat *st)
{
    *st = (struct node_stat){
        .id = n->id,
        .attr = n->attr,
        .size = n->size,
        .capacity = node_capacity(ns, n),
        .linked = n->name != NULL,
    };
}

int
node_stat(struct nodes *ns, uint64_t id, struct node_stat *st)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);
    struct node *n = nodes_find(ns, id);

    if (!n)
        return -ESTALE;
    fill_stat(ns, n, st);
    return 0;
}

void
nodes_get_root(struct nodes *ns, struct file_attr *root)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);

    *root = ns->root;
}

int
nodes_change_root(struct nodes *ns, const struct attr_change *ch, struct file_attr *root)
{
    AUTO_UNLOCK pthread_mutex_t *one = lock_mutex(&ns->commit_lock);
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);
    AUTO(txn_freep) struct txn *t = NULL;
    struct file_attr attr = ns->root;
    struct timespec now;
    int r = nodes_read_only(ns);

    if (r < 0)
        return r;
    nodes_now(ns, &now);
    attr_apply(&attr, ch, &now);
    if (same_attr(&attr, &ns->root)) {
        ns->root = attr;
        ns->root_changed = true;
    } else {
        r = txn_new(&t, 0);
        if (r < 0)
            return r;
        txn_root(ns, t, &attr);
        r = txn_run(ns, t);
    }
    *root = ns->root;
    return r;
}

/* The root's attributes once a name in it has changed. */
static struct file_attr
touched_root(const struct nodes *ns, const struct timespec *now)
{
    struct file_attr root = ns->root;

    root.mtime = root.ctime = *now;
    return root;
}

bool
nodes_next(struct nodes *ns, uint64_t after, struct node_stat *st, char name[NAME_MAX_LEN + 1])
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);
    size_t at = after == UINT64_MAX ? ns->n_ids : id_place(ns, after + 1);

    while (at < ns->n_ids && !node_is_kept(ns->by_id[at]))
        at++;
    if (at == ns->n_ids)
        return false;
    fill_stat(ns, ns->by_id[at], st);
    strcpy(name, ns->by_id[at]->name);
    return true;
}

bool
nodes_next_id(struct nodes *ns, uint64_t *id)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);
    size_t at = id_place(ns, *id + 1);

    if (at == ns->n_ids)
        return false;
    *id = ns->by_id[at]->id;
    return true;
}

/* One byte a slot: whether it is taken, by a committed entry, a promise or a file as it is now. */
static int
map_slots(struct nodes *ns, uint32_t slots, uint8_t **out)
{
    AUTO_FREE struct entry *entries = NULL;
    uint8_t *used = calloc(slots, 1);
    size_t n = 0;
    int r = used ? store_list(ns->store, &entries, &n) : -ENOMEM;

    if (r < 0) {
        free(used);
        return r;
    }
    for (size_t i = 0; i < n; i++) {
        if (entries[i].slot != SLOT_NONE)
            used[entries[i].slot] = 1;
        if (entries[i].reserve_slot != SLOT_NONE)
            used[entries[i].reserve_slot] = 1;
    }
    pthread_mutex_lock(&ns->lock);
    for (size_t i = 0; i < ns->n_ids; i++)
        if (ns->by_id[i]->slot != SLOT_NONE)
            used[ns->by_id[i]->slot] = 1;
    pthread_mutex_unlock(&ns->lock);
    *out = used;
    return 0;
}

int
nodes_get_space(struct nodes *ns, struct nodes_space *space)
{
    AUTO_FREE uint8_t *used = NULL;
    uint32_t slots = superblock_slot_count(store_superblock(ns->store));
    int r = map_slots(ns, slots, &used);

    if (r < 0)
        return r;
    *space = (struct nodes_space){.slots = slots};
    for (uint32_t i = 0; i < slots; i++) {
        space->bytes += store_slot_capacity(ns->store, i);
        space->bytes_free += used[i] ? 0 : store_slot_capacity(ns->store, i);
        space->slots_free += !used[i];
    }
    return 0;
}

/* ---- names ----------------------------------------------------------------------------------- */

static int
check_name(const char *name)
{
    return strlen(name) > NAME_MAX_LEN ? -ENAMETOOLONG : 0;
}

bool
name_is_draft(const char *name)
{
    return strncmp(name, DRAFT_PREFIX, strlen(DRAFT_PREFIX)) == 0;
}

int
node_lookup(struct nodes *ns, const char *name, struct node_stat *st)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);
    struct node *n;
    int r = check_name(name);

    if (r < 0)
        return r;
    n = find_name(ns, name);
    if (!n)
        return -ENOENT;
    n->lookups++;
    fill_stat(ns, n, st);
    return 0;
}

int
node_look(struct nodes *ns, uint64_t id)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);
    struct node *n = nodes_find(ns, id);

    if (!n)
        return -ESTALE;
    n->lookups++;
    return 0;
}

void
node_forget(struct nodes *ns, uint64_t id, uint64_t times)
{
    struct node *n;

    pthread_mutex_lock(&ns->lock);
    n = nodes_find(ns, id);
    if (!n) {
        pthread_mutex_unlock(&ns->lock);
        return;
    }
    n->lookups -= times < n->lookups ? times : n->lookups;
    retire_and_unlock(ns, n, false);
}

static int
open_handle(struct node *n, int flags, struct handle **out)
{
    struct handle *h = calloc(1, sizeof *h);

    if (!h)
        return -ENOMEM;
    *h = (struct handle){.node = n, .next = n->handles, .flags = flags};
    n->handles = h;
    *out = h;
    return 0;
}

/* O_TRUNC: what is in the store stays there until a commit point. */
static void
truncate_all(struct nodes *ns, struct node *n, struct handle *h, bool privileged)
{
    struct timespec now;

    nodes_now(ns, &now);
    blob_put(n->blob);
    n->blob = NULL;
    n->size = 0;
    n->loaded = n->changed = true;
    n->attr.mtime = n->attr.ctime = now;
    if (!privileged)
        n->attr.mode &= ~(uint32_t)(n->attr.mode & S_IXGRP ? S_ISUID | S_ISGID : S_ISUID);
    h->pending |= DID_TRUNCATE;
}

/* A running program is not truncated.  The kernel sees to that, but for O_RDONLY|O_TRUNC only after
 * the open, when what O_TRUNC drops would be gone. */
static bool
runs(const struct node *n)
{
    enum { FOR_EXECUTION = 040 }; /* in the flags of an open by execve(2) */

    for (const struct handle *h = n->handles; h; h = h->next)
        if (h->flags & FOR_EXECUTION)
            return true;
    return false;
}

/* The name went to another file between the kernel's lookup and its open, so this one has no slot
 * any more.  -ESTALE makes the kernel look the name up again, but once only, and a program that
 * renames over it all the time is faster than that: so whoever looked it up gets this file, as an
 * unlinked one, as long as the previous content's bank is whole. */
static int
load_replaced(struct nodes *ns, struct node *n)
{
    return (n->changed && !n->loaded) || node_load(ns, n) < 0 ? -ESTALE : 0;
}

static int
open_node(struct nodes *ns, struct node *n, int flags, bool privileged, struct handle **h)
{
    bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
    bool later = ns->away && !(flags & O_TRUNC);
    int r = writes && !later ? nodes_read_only(ns) : 0;

    if (r == 0 && writes && (flags & O_ACCMODE) == O_RDONLY && runs(n))
        return -ETXTBSY;
    if (r == 0 && n->slot == SLOT_NONE)
        r = load_replaced(ns, n);
    if (r == 0 && writes && node_fit_slot(ns, n, n->size) < 0)
        r = -ESTALE;
    if (r == 0)
        r = open_handle(n, flags, h);
    if (r == 0 && (flags & O_TRUNC))
        truncate_all(ns, n, *h, privileged);
    return r;
}

int
node_open(struct nodes *ns, uint64_t id, int flags, bool privileged, struct handle **h)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);
    struct node *n = nodes_find(ns, id);

    return n ? open_node(ns, n, flags, privileged, h) : -ESTALE;
}

struct caching
node_caching(struct nodes *ns, struct handle *h, bool want_direct)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);
    struct node *n = h->node;

    if (n->handles == h && !h->next)
        n->direct = want_direct;
    n->stale |= n->direct;
    h->overwrites = n->direct && want_direct && (h->flags & O_DSYNC);
    return (struct caching){.direct = n->direct, .keep = !n->stale};
}

bool
node_overwrites(struct nodes *ns, const struct handle *h)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);

    return h->overwrites;
}

bool
node_is_synchronous(struct nodes *ns, const struct handle *h)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);

    return h->node->direct && (h->flags & O_DSYNC);
}

/* A new, empty file that the store does not know yet. */
static int
new_node(struct nodes *ns, const char *name, const struct file_attr *who, struct node **out)
{
    AUTO_FREE struct node *n = calloc(1, sizeof *n);
    AUTO_FREE char *copy = strdup(name);
    struct timespec now;
    int r = nodes_read_only(ns);

    if (r < 0)
        return r;
    if (!n || !copy || make_room(ns) < 0)
        return -ENOMEM;
    nodes_now(ns, &now);
    *n = (struct node){.attr = *who, .home = SLOT_NONE, .loaded = true, .changed = true};
    n->attr.mode &= 07777;
    if (ns->root.mode & S_ISGID)
        n->attr.gid = ns->root.gid;
    n->attr.atime = n->attr.mtime = n->attr.ctime = now;
    n->base = n->attr;
    r = nodes_take_slot(ns, 0, name, &n->slot);
    if (r < 0)
        return r;
    n->id = store_new_id(ns->store);
    ns->root = touched_root(ns, &now);
    ns->root_changed = true;
    *out = n;
    enter(ns, steal(&n), steal(&copy));
    return 0;
}

int
node_create(struct nodes *ns, const char *name, const struct file_attr *who, int flags,
            bool privileged, struct node_stat *st, struct handle **h)
{
    AUTO_UNLOCK pthread_mutex_t *one = lock_mutex(&ns->commit_lock);
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&ns->lock);
    struct node *n = NULL;
    bool is_new;
    int r = check_name(name);

    if (r < 0)
        return r;
    n = find_name(ns, name);
    if (n && (flags & O_EXCL))
        return -EEXIST;
    is_new = !n;
    if (is_new)
        r = new_node(ns, name, who, &n);
    if (r == 0)
        r = is_new ? open_handle(n, flags, h) : open_node(ns, n, flags, privileged, h);
    if (r < 0 && is_new && n) {
        free(unlink_name(ns, n));
        store_slot_drop(ns->store, node_retire(ns, n));
        ns->dropping--;
    }
    if (r < 0)
        return r;
    if (is_new) {
        (*h)->pending = DID_CREATE;
        n->draft = name_is_draft(name);
    }
    n->lookups++;
    fill_stat(ns, n, st);
    return 0;
}

int
node_mknod(struct nodes *ns, const char *name, const struct file_attr *who, struct node_stat *st)
{
    struct node *n = NULL;
    int r = check_name(name);

    if (r < 0)
        return r;
    lock_both(ns);
    r = find_name(ns, name) ? -EEXIST : new_node(ns, name, who, &n);
    if (r == 0)
        r = commit_file(ns, n); /* no handle's release will do it */
    if (r == 0) {
        n->lookups++;
        fill_stat(ns, n, st);
    } else if (n) {
        free(unlink_name(ns, n));
        retire_and_unlock(ns, n, true);
        return r;
    }
    unlock_both(ns);
    return r;
}

/* The name is gone, in the store too. */
static void
lose_name(struct nodes *ns, struct node *n, const struct timespec *now)
{
    free(unlink_name(ns, n));
    n->attr.ctime = n->base.ctime = *now;
}

int
node_unlink(struct nodes *ns, const char *name)
{
    AUTO(txn_freep) struct txn *t = NULL;
    struct file_attr root;
    struct timespec now;
    struct node *n;
    int r;

    lock_both(ns);
    n = find_name(ns, name);
    r = n ? nodes_read_only(ns) : -ENOENT;
    if (r == 0)
        r = txn_new(&t, 0);
    if (r < 0) {
        unlock_both(ns);
        return r;
    }
    nodes_now(ns, &now);
    root = touched_root(ns, &now);
    n->pins++;
    if (n->stored) {
        txn_change(t, &(struct change){.op = CHANGE_UNLINK, .id = n->id, .name = n->name});
        txn_root(ns, t, &root);
        r = txn_run(ns, t);
    } else {
        ns->root = root;
        ns->root_changed = true;
    }
    n->pins--;
    if (r == 0)
        lose_name(ns, n, &now);
    retire_and_unlock(ns, n, true);
    return r;
}

/* Adds the file to a transaction that gives it a name. */
static void
renamed_file(struct nodes *ns, struct txn *t, struct node *n, const struct timespec *now)
{
    struct file_attr attr = n->changed || !n->stored ? n->attr : n->base;

    attr.ctime = *now;
    txn_file(ns, t, n, &attr, true);
}

/* Commits that @a takes the name @to, or swaps with @b. */
static int
commit_rename(struct nodes *ns, struct node *a, struct node *b, const char *to, bool exchange,
              const struct timespec *now)
{
    AUTO(txn_freep) struct txn *t = NULL;
    struct file_attr root = touched_root(ns, now);
    int r = txn_new(&t, 2);

    if (r < 0)
        return r;
    renamed_file(ns, t, a, now);
    if (exchange) {
        renamed_file(ns, t, b, now);
        txn_change(t, &(struct change){.op = CHANGE_EXCHANGE, .id = a->id, .other = b->id});
    } else {
        txn_change(t, &(struct change){.op = CHANGE_RENAME, .id = a->id, .name = to});
    }
    txn_root(ns, t, &root);
    return txn_run(ns, t);
}

/* The same in memory.  @name is the string that @a is going to have, unless it swaps. */
static void
apply_rename(struct nodes *ns, struct node *a, struct node *b, char **name, bool exchange,
             const struct timespec *now)
{
    char *old = unlink_name(ns, a);

    if (exchange) {
        link_name(ns, a, unlink_name(ns, b));
        link_name(ns, b, old);
        b->attr.ctime = *now;
    } else {
        if (b)
            lose_name(ns, b, now);
        link_name(ns, a, steal(name));
        free(old);
    }
    a->attr.ctime = *now;
    a->draft = false;
    if (b)
        b->draft = false;
}

static int
check_rename(struct nodes *ns, const struct node *a, const struct node *b, unsigned flags)
{
    if ((flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)) ||
        flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    if (!a || (!b && (flags & RENAME_EXCHANGE)))
        return -ENOENT;
    if (b && (flags & RENAME_NOREPLACE))
        return -EEXIST;
    return nodes_read_only(ns);
}

int
node_rename(struct nodes *ns, const char *from, const char *to, unsigned flags)
{
    AUTO_FREE char *name = strdup(to);
    bool exchange = flags & RENAME_EXCHANGE;
    uint32_t slot = SLOT_NONE;
    struct timespec now;
    struct node *a, *b;
    int r = check_name(to);

    if (r < 0 || !name)
        return r < 0 ? r : -ENOMEM;
    lock_both(ns);
    a = find_name(ns, from);
    b = find_name(ns, to);
    r = check_rename(ns, a, b, flags);
    if (r < 0 || a == b) {
        unlock_both(ns);
        return r;
    }
    nodes_now(ns, &now);
    a->pins++;
    if (b)
        b->pins++;
    r = commit_rename(ns, a, b, to, exchange, &now);
    if (r == 0)
        apply_rename(ns, a, b, &name, exchange, &now);
    a->pins--;
    if (b)
        b->pins--;
    if (b)
        slot = node_retire(ns, a); /* a draft that was closed, and could not be renamed */
    retire_and_unlock(ns, b ? b : a, true);
    nodes_drop_slot(ns, slot);
    return r;
}

/* ---- changes of attributes ------------------------------------------------------------------- */

/* A size by name, committed with all the file's bytes. */
static int
truncate_by_name(struct nodes *ns, struct node *n, const struct attr_change *ch,
                 const struct timespec *now)
{
    int r = node_resize(ns, n, ch->size);

    if (r < 0)
        return r;
    attr_apply(&n->attr, ch, now);
    return node_is_kept(n) ? commit_file(ns, n) : 0;
}

/* Attributes are committed without the bytes that are being written. */
static int
change_attr(struct nodes *ns, struct node *n, const struct attr_change *ch,
            const struct timespec *now)
{
    AUTO(txn_freep) struct txn *t = NULL;
    struct file_attr base = n->base;
    int r = 0;

    attr_apply(&base, ch, now);
    if (n->name && n->stored &&
        (!same_attr(&base, &n->base) ||
         (n->attr_changed && ch->set & (SET_MTIME | SET_MTIME_NOW)))) {
        r = txn_new(&t, 1);
        if (r < 0)
            return r;
        txn_file(ns, t, n, &base, false);
        r = txn_run(ns, t);
    } else {
        n->base = base;
        n->attr_changed = true;
    }
    if (r == 0)
        attr_apply(&n->attr, ch, now);
    return r;
}

static int
change_node(struct nodes *ns, struct node *n, struct handle *h, const struct attr_change *ch)
{
    struct attr_change rest = *ch;
    struct timespec now;
    int r = nodes_read_only(ns);

    if (r < 0)
        return r;
    nodes_now(ns, &now);
    if (!(ch->set & SET_SIZE))
        return change_attr(ns, n, ch, &now);
    if (n->slot == SLOT_NONE)
        r = load_replaced(ns, n);
    if (r < 0)
        return r;
    if (!h)
        return truncate_by_name(ns, n, ch, &now);
    r = node_resize(ns, n, ch->size);
    if (r < 0)
        return r;
    node_wrote(ns, n, h, false);
    rest.set &= ~(unsigned)SET_SIZE;
    return rest.set ? change_attr(ns, n, &rest, &now) : 0;
}

int
node_change(struct nodes *ns, uint64_t id, struct handle *h, const struct attr_change *ch,
            struct node_stat *st)
{
    bool commits = !(h && ch->set == SET_SIZE);
    struct node *n;
    int r;

    if (commits)
        pthread_mutex_lock(&ns->commit_lock);
    pthread_mutex_lock(&ns->lock);
    n = nodes_find(ns, id);
    if (!n) {
        pthread_mutex_unlock(&ns->lock);
        if (commits)
            pthread_mutex_unlock(&ns->commit_lock);
        return -ESTALE;
    }
    n->pins++;
    r = change_node(ns, n, h, ch);
    n->pins--;
    if (r == 0)
        fill_stat(ns, n, st);
    retire_and_unlock(ns, n, commits);
    return r;
}
