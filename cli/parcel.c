/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/parcel.h"
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/image.h"
#include "cli/openimage.h"
#include "fs/virt.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- the list -----------------------------------------------------------------------------------
 */

struct parcel *
parcels_find(const struct parcels *p, const char *name)
{
    for (size_t i = 0; i < p->n; i++) {
        if (strcmp(p->list[i].name, name) == 0)
            return &p->list[i];
    }
    return NULL;
}

static int
check_name(const char *name, const char *source)
{
    size_t len = strlen(name);

    if (len > NAME_MAX_LEN)
        return report(-ENAMETOOLONG, "%s: its name is longer than %d bytes", source, NAME_MAX_LEN);
    if (!entry_name_ok(name, len) || virt_name_is_reserved(name))
        return report(-EINVAL, "%s: \"%s\" cannot be the name of a file in an image", source, name);
    return 0;
}

int
parcels_add(struct parcels *p, const char *name, struct vault **content, const char *source)
{
    struct parcel *grown;
    int r = check_name(name, source);

    if (r < 0)
        return r;
    if (parcels_find(p, name))
        return report(-EEXIST, "%s: there are two files of the name \"%s\"", source, name);
    grown = reallocarray(p->list, p->n + 1, sizeof *grown);
    if (!grown)
        return report(-ENOMEM, "out of memory");
    p->list = grown;
    grown += p->n++;
    *grown = (struct parcel){.content = steal(content), .source = source};
    strcpy(grown->name, name);
    return 0;
}

void
parcels_fini(struct parcels *p)
{
    for (size_t i = 0; i < p->n; i++)
        vault_free(p->list[i].content);
    free(p->list);
    *p = (struct parcels)PARCELS_INIT;
}

/* ---- from a file --------------------------------------------------------------------------------
 */

int
parcel_report_errno(const char *source, const char *doing)
{
    return report(errno == ENOENT ? -ENOENT : -EIO, "%s: cannot %s: %s", source, doing,
                  errno_text(-errno));
}

static int
fill(int fd, const char *source, struct vault *v, size_t *got)
{
    for (;;) {
        ssize_t n;

        if (*got == v->len) {
            int r = *got > MAX_CAPACITY ? report(-EFBIG, "%s: is larger than any slot", source)
                                        : vault_grow(v, *got + *got / 2 + 4096);

            if (r < 0)
                return r;
        }
        n = read(fd, v->bytes + *got, v->len - *got);
        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return parcel_report_errno(source, "read");
        *got += n > 0 ? (size_t)n : 0;
    }
}

int
parcel_read(int fd, const char *source, struct vault **content)
{
    AUTO(vault_freep) struct vault *v = NULL;
    struct stat st;
    size_t got = 0;
    int r;

    if (fstat(fd, &st) < 0)
        return parcel_report_errno(source, "read");
    if (st.st_size > (off_t)MAX_CAPACITY)
        return report(-EFBIG, "%s: is larger than any slot", source);
    r = vault_new(&v, S_ISREG(st.st_mode) ? (size_t)st.st_size + 1 : 64 * 1024, false);
    if (r == 0)
        r = fill(fd, source, v, &got);
    if (r < 0)
        return r;
    if (S_ISREG(st.st_mode) && (off_t)got != st.st_size)
        return report(-EIO, "%s: changed while it was read", source);
    v->len = got;
    *content = steal(&v);
    return 0;
}

/* ---- into an image ------------------------------------------------------------------------------
 */

struct plan {
    const char *path;
    struct store *store;
    struct change *changes;
    size_t n;
    uint32_t *held; /* slots taken for .changes */
    size_t n_held;
};

static void
plan_fini(struct plan *p)
{
    for (size_t i = 0; i < p->n_held; i++)
        store_slot_drop(p->store, p->held[i]);
    free(p->held);
    free(p->changes);
}

static int
report_no_room(const struct plan *p, int r, const struct parcel *parcel)
{
    if (r == -EFBIG)
        return report(r,
                      "%s: %s has %zu bytes, and the largest slot holds %" PRIu32
                      ": nothing was written; it takes an image with larger slots",
                      p->path, parcel->name, parcel->content->len,
                      store_largest_capacity(p->store));
    if (r == -ENOSPC)
        return report(r,
                      "%s: no slot of at least %zu bytes is free for %s: nothing was written; "
                      "\"vnvram info\" shows what the others hold",
                      p->path, parcel->content->len, parcel->name);
    return r;
}

static int
take_slot(struct plan *p, const struct parcel *parcel, uint32_t *slot)
{
    uint64_t len = parcel->content->len;
    int r = -ENOSPC;

    if (parcel->room > len)
        r = store_slot_take(p->store, parcel->room, parcel->name, slot);
    if (r == -ENOSPC || r == -EFBIG)
        r = store_slot_take(p->store, len, parcel->name, slot);
    if (r < 0)
        return report_no_room(p, r, parcel);
    p->held[p->n_held++] = *slot;
    return 0;
}

/* Who owns the mount may use what is in it. */
static struct file_attr
new_attr(struct store *s)
{
    struct file_attr root, a = {.mode = 0600};

    store_get_root(s, &root);
    a.uid = root.uid;
    a.gid = root.gid;
    return a;
}

static int
report_there(const struct plan *p, const char *name)
{
    return report(-EEXIST,
                  "%s: holds a file %s already: nothing was written; --replace replaces it",
                  p->path, name);
}

static int
plan_parcel(struct plan *p, const struct parcel *parcel, bool replace)
{
    struct change *c = &p->changes[p->n];
    struct entry e;
    bool there = store_find(p->store, parcel->name, &e) == 0 && e.kind == ENTRY_FILE;
    struct timespec now;
    int r = 0;

    if (there && !replace)
        return report_there(p, parcel->name);
    *c = (struct change){
        .op = CHANGE_FILE,
        .name = parcel->name,
        .has_content = true,
        .data = parcel->content->bytes,
        .len = parcel->content->len,
        .attr = parcel->has_attr ? parcel->attr
                : there          ? e.attr
                                 : new_attr(p->store),
    };
    clock_gettime(CLOCK_REALTIME, &now);
    if (!parcel->has_attr)
        c->attr.mtime = c->attr.ctime = now;
    if (!parcel->has_attr && !there)
        c->attr.atime = now;
    if (there && store_slot_capacity(p->store, e.slot) >= c->len)
        c->slot = e.slot;
    else
        r = take_slot(p, parcel, &c->slot);
    if (r < 0)
        return r;
    c->id = there ? e.id : store_new_id(p->store);
    p->n++;
    return 0;
}

static int
plan_removal(struct plan *p, const char *name, bool replace)
{
    struct entry e;

    if (store_find(p->store, name, &e) < 0 || e.kind != ENTRY_FILE)
        return 0;
    if (!replace)
        return report_there(p, name);
    p->changes[p->n++] = (struct change){.op = CHANGE_UNLINK, .id = e.id};
    return 0;
}

static bool
holds_no_files(struct store *s)
{
    struct store_info info;

    store_get_info(s, &info);
    return info.files == 0;
}

/* The longest first: each takes the smallest slot that fits, and short ones fit into more. */
static int
by_length(const void *a, const void *b)
{
    const struct parcel *const *x = a, *const *y = b;
    size_t n = (*x)->content->len, m = (*y)->content->len;

    return n < m ? 1 : n > m ? -1 : strcmp((*x)->name, (*y)->name);
}

static int
make_plan(struct plan *plan, const struct parcels *p, const struct parcel_commit *how)
{
    AUTO_FREE const struct parcel **sorted = calloc(p->n + 1, sizeof *sorted);
    int r = 0;

    plan->changes = calloc(p->n + how->n_remove + 2, sizeof *plan->changes);
    plan->held = calloc(p->n + 1, sizeof *plan->held);
    if (!sorted || !plan->changes || !plan->held)
        return report(-ENOMEM, "out of memory");
    for (size_t i = 0; i < p->n; i++)
        sorted[i] = &p->list[i];
    qsort(sorted, p->n, sizeof *sorted, by_length);
    for (size_t i = 0; r == 0 && i < p->n; i++)
        r = plan_parcel(plan, sorted[i], how->replace);
    for (size_t i = 0; r == 0 && i < how->n_remove; i++)
        r = plan_removal(plan, how->remove[i], how->replace);
    if (r == 0 && how->root && holds_no_files(plan->store))
        plan->changes[plan->n++] = (struct change){.op = CHANGE_ROOT, .attr = *how->root};
    return r;
}

static int
commit(const struct parcels *p, struct store *s, const char *path, const struct parcel_commit *how)
{
    AUTO(plan_fini) struct plan plan = {.path = path, .store = s};
    int r = make_plan(&plan, p, how);

    if (r == 0) {
        r = store_commit(s, plan.changes, plan.n, NULL);
        if (r == -ENOSPC)
            report(r, "%s: its directory has no room for so many files: nothing was written", path);
    }
    return r < 0 ? r : store_settle(s);
}

int
parcels_commit(const struct parcels *p, struct options *o, const char *path,
               const struct parcel_commit *how)
{
    AUTO(image_close) struct open_image image = {0};
    int r = image_open_to_change(&image, o, path);

    if (r == 0 && how->was_encrypted && store_superblock(image.store)->seal_mode == SEAL_NONE)
        report_at(REPORT_WARNING, 0,
                  "%s: is not sealed: what was encrypted before lies in the clear in it", path);
    for (size_t i = 0; r == 0 && i < p->n; i++)
        r = vault_lock(p->list[i].content); /* a passphrase's work may have undone it */
    return r < 0 ? r : commit(p, image.store, path, how);
}

/* ---- out of an image ----------------------------------------------------------------------------
 */

/* While a daemon writes the image, a look may fall into a commit. */
enum { TAKE_TRIES = 4 * LOOK_TRIES };

struct taking {
    struct options *o;
    const char *path;
    const struct parcel_take *what;
};

static int
take_entry(struct parcels *p, struct store *s, const struct entry *e, const struct taking *t)
{
    AUTO(vault_freep) struct vault *v = NULL;
    int r = vault_new(&v, e->current.length, t->what->secret);

    if (r == 0 && v->len > 0)
        r = store_read(s, &e->current, v->bytes);
    if (r == 0)
        r = parcels_add(p, e->name, &v, t->path);
    if (r == 0) {
        p->list[p->n - 1].attr = e->attr;
        p->list[p->n - 1].has_attr = true;
        p->list[p->n - 1].room = store_slot_capacity(s, e->slot);
        p->list[p->n - 1].generation = e->current.generation;
    }
    return r;
}

/* Hidden ones, such as swtpm's lock, are mostly taken by name only. */
static int
take_all(struct parcels *p, struct store *s, const struct taking *t)
{
    AUTO_FREE struct entry *entries = NULL;
    size_t n = 0;
    int r = store_list(s, &entries, &n);

    for (size_t i = 0; r == 0 && i < n; i++) {
        const struct entry *e = &entries[i];

        if (e->kind == ENTRY_FILE && (t->what->hidden || e->name[0] != '.') &&
            (!t->what->want || t->what->want(t->o, e->name)))
            r = take_entry(p, s, e, t);
    }
    return r;
}

static int
take_named(struct parcels *p, struct store *s, const struct taking *t)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < t->what->n; i++) {
        struct entry e;

        if (store_find(s, t->what->names[i], &e) < 0 || e.kind != ENTRY_FILE)
            return report(-ENOENT, "%s: holds no file %s", t->path, t->what->names[i]);
        r = take_entry(p, s, &e, t);
    }
    return r;
}

/* 1: taken, but of a state that was about to be replaced. */
static int
take_once(struct parcels *p, const struct taking *t)
{
    AUTO(image_close) struct open_image image = {0};
    struct store_info info;
    int r = image_open_to_read(&image, t->o, t->path);

    if (r < 0)
        return r;
    store_get_info(image.store, &info);
    if (t->what->origin) {
        t->what->origin->info = info;
        store_get_root(image.store, &t->what->origin->root);
    }
    r = t->what->n > 0 ? take_named(p, image.store, t) : take_all(p, image.store, t);
    return r == 0 && info.recovered ? 1 : r;
}

int
parcels_take(struct parcels *p, struct options *o, const char *path, const struct parcel_take *what)
{
    const struct taking t = {.o = o, .path = path, .what = what};
    int r = keys_read(&o->key, false); /* asks, maybe: outside of what is tried again */

    if (r < 0)
        return r;
    for (int try = 1;; try++) {
        image_hold_reports();
        r = take_once(p, &t);
        if ((r != 1 && r != -EUCLEAN && r != -EBADMSG && r != -ESTALE) || try == TAKE_TRIES)
            break;
        image_drop_reports();
        parcels_fini(p);
        image_pause();
    }
    image_show_reports();
    return r < 0 ? r : 0;
}
