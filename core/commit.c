/* SPDX-License-Identifier: BSD-3-Clause */
/* commit.c - transactions: changes applied to a copy of the directory, the contents they bring
 * written to banks that nobody depends on, then the inactive directory, then one flush. */
#include "base/report.h"
#include "base/scope.h"
#include "core/store_impl.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

int
fail_store(struct store *s, int r, const char *why)
{
    if (s->read_only != 0)
        return r;
    s->read_only = r;
    s->read_only_why = why;
    dev_medium(s->dev, true); /* the cache may now show what no medium holds */
    return report(r, "%s: %s: read-only from now on; what was acknowledged is safe", s->dev->name,
                  why);
}

int
commit_flush(struct store *s)
{
    int r = dev_sync(s->dev);

    s->flushes++;
    return r < 0 ? fail_store(s, r, "a flush failed") : 0;
}

int
commit_anchor(struct store *s)
{
    struct anchor_point p = {.generation = s->dir.generation};
    int r;

    if (!s->anchor)
        return 0;
    memcpy(p.uuid, s->sb.uuid, UUID_SIZE);
    memcpy(p.digest, s->dir.digest, SEAL_TAG_SIZE);
    r = anchor_is_at(s->anchor, &p) ? 0 : anchor_move(s->anchor, &p);
    return r < 0 ? fail_store(s, r, "the anchor cannot be moved") : 0;
}

int
next_directory(struct store *s, struct directory *next)
{
    struct timespec now;
    int r = directory_copy(next, &s->dir);

    if (r < 0)
        return r;
    clock_gettime(CLOCK_REALTIME, &now);
    next->generation = (s->seen > s->dir.generation ? s->seen : s->dir.generation) + 1;
    next->index = 1 - s->dir.index;
    next->superblock_sequence = s->sb.sequence;
    next->key_epoch = s->sb.key_epoch;
    next->next_id = s->next_id;
    next->committed = now.tv_sec;
    next->clean = false;
    next->resealing = false;
    next->owner = s->mark;
    return 0;
}

int
commit_directory(struct store *s, struct directory *next)
{
    int r;

    s->in_flight = next;
    r = place_write(s, next);
    if (r == 0)
        r = dev_wait(s->dev);
    if (r == 0) {
        r = commit_flush(s);
    } else if (r == -EIO) {
        r = fail_store(s, r, "a write failed");
    }
    s->in_flight = NULL;
    if (r < 0) {
        directory_fini(next);
        return r;
    }
    directory_fini(&s->dir);
    s->dir = *next;
    s->seen = next->generation;
    *next = (struct directory){0};
    return commit_anchor(s);
}

/* ---- the frame ---------------------------------------------------------------------------------
 */

int
check_our_superblock(struct store *s)
{
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    AUTO_FREE struct superblock *sb = malloc(sizeof *sb);

    if (!buf || !sb)
        return -ENOMEM;
    for (unsigned copy = 0; copy < 2; copy++) {
        int r = superblock_load(s->dev, copy, buf, sb);

        if (r == -ENOMEM)
            return r;
        if (r == 0 ? sb->sequence != s->sb.sequence || memcmp(sb->uuid, s->sb.uuid, UUID_SIZE) != 0
                   : copy == s->sb_best)
            return -EUCLEAN;
    }
    return 0;
}

/* Whether recovery would find the very directory that we have committed, and all its contents
 * whole. */
static int
check_our_directory(struct store *s)
{
    struct recovery rec;
    bool same;
    int r = recover_directory(s->dev, s->sealer, &s->sb, false, &rec);

    if (r < 0)
        return r == -ENOMEM ? r : -EUCLEAN;
    same = rec.dir.generation == s->dir.generation &&
           memcmp(rec.dir.digest, s->dir.digest, SEAL_TAG_SIZE) == 0;
    directory_fini(&rec.dir);
    return same ? 0 : -EUCLEAN;
}

/* Whether it is at least where we have put it. */
static bool
has_our_newest(struct store *s)
{
    AUTO(directory_fini) struct directory dir = {0};
    struct directory_claim claim;

    return directory_load(s->dev, s->sealer, &s->sb, s->dir.index, &dir, &claim) == 0 &&
           claim.generation == s->dir.generation &&
           memcmp(claim.digest, s->dir.digest, SEAL_TAG_SIZE) == 0;
}

/* Somebody has touched the file.  Changed owners, modes and links are harmless; other bytes are
 * not: what would be written over them might mix two states.  Without the memory to tell, nothing
 * is written, and the next one looks again. */
static void
judge_touch(struct store *s)
{
    int r = s->read_only != 0 ? 0 : check_our_superblock(s);

    if (r == 0 && s->read_only == 0)
        r = check_our_directory(s);
    s->unjudged = r == -ENOMEM;
    if (r == 0 || s->unjudged)
        return;
    s->read_only = r;
    s->read_only_why = "somebody else has written to the image";
    report(r, "%s: %s: read-only from now on; what lies there is no longer known", s->dev->name,
           s->read_only_why);
}

struct store *
commit_begin(struct store *s)
{
    enum dev_news news = dev_begin(s->dev);

    pthread_mutex_lock(&s->lock);
    s->dev->guard_asked = false; /* for a commit that did not come to its flush, maybe long ago */
    s->unsure |= news == DEV_UNKNOWN;
    if (news != DEV_NO_NEWS)
        places_forget(s);
    if (news == DEV_UNKNOWN && (check_our_superblock(s) < 0 || !has_our_newest(s)))
        news = DEV_TOUCHED;
    if (news == DEV_TOUCHED || s->unjudged)
        judge_touch(s);
    return s;
}

int
commit_allowed(const struct store *s)
{
    if (s->read_only != 0)
        return -EROFS;
    return s->unjudged ? report(-ENOMEM, "%s: no memory to see who has touched it", s->dev->name)
                       : 0;
}

void
commit_endp(struct store **s)
{
    pthread_mutex_unlock(&(*s)->lock);
    dev_end((*s)->dev);
}

/* ---- the plan -----------------------------------------------------------------------------------
 */

/* A content to write: the entry that gets it is found by id, since entries move. */
struct planned {
    uint64_t id;
    const void *data;
    size_t len;
    uint8_t *bank; /* on its way to the device */
};

struct plan {
    struct store *s;
    struct directory dir; /* what will be committed */
    struct planned *writes;
    size_t n_writes;
};

static void
plan_fini(struct plan *p)
{
    directory_fini(&p->dir);
    if (dev_wait(p->s->dev) < 0) /* of a commit that has failed already, maybe for lack of memory */
        fail_store(p->s, -EIO, "a write failed");
    for (size_t i = 0; i < p->n_writes; i++)
        free(p->writes[i].bank);
    free(p->writes);
}

static void
remove_entry(struct directory *dir, int i)
{
    memmove(&dir->entries[i], &dir->entries[i + 1],
            (dir->n_entries - (uint32_t)i - 1) * sizeof dir->entries[0]);
    dir->n_entries--;
}

/* Room for one more entry at the end, zeroed; NULL when memory is short. */
static struct entry *
append_entry(struct directory *dir)
{
    struct entry *more = realloc(dir->entries, (dir->n_entries + 2) * sizeof(*more));

    if (!more)
        return NULL;
    dir->entries = more;
    more += dir->n_entries++;
    *more = (struct entry){.slot = SLOT_NONE, .reserve_slot = SLOT_NONE};
    return more;
}

static bool
directory_uses(const struct directory *dir, uint32_t slot)
{
    for (uint32_t i = 0; i < dir->n_entries; i++) {
        if (dir->entries[i].slot == slot || dir->entries[i].reserve_slot == slot)
            return true;
    }
    return false;
}

/* A slot for a promise of @size bytes that no directory uses and nobody holds. */
static uint32_t
spare_slot(const struct plan *p, uint32_t size)
{
    uint32_t best = SLOT_NONE;

    for (uint32_t i = 0; i < p->s->n_slots; i++) {
        uint32_t capacity = superblock_slot_capacity(&p->s->sb, i);

        if (capacity < size || p->s->holds[i] || directory_uses(&p->dir, i) ||
            directory_uses(&p->s->dir, i))
            continue;
        if (best == SLOT_NONE || capacity < superblock_slot_capacity(&p->s->sb, best))
            best = i;
    }
    return best;
}

static bool
fits(const struct plan *p, uint32_t slot, uint32_t size)
{
    return slot != SLOT_NONE && superblock_slot_capacity(&p->s->sb, slot) >= size;
}

/* Keeps the promise to @e's name after its slot has changed; @freed is the slot that it gave up, or
 * SLOT_NONE.  A promise that no slot can keep any more is dropped, aloud: refusing the change would
 * lose more. */
static void
keep_promise(struct plan *p, struct entry *e, uint32_t freed)
{
    if (e->reserved == 0)
        return;
    if (fits(p, e->slot, e->reserved)) {
        e->reserve_slot = SLOT_NONE;
        return;
    }
    if (e->reserve_slot == SLOT_NONE && fits(p, freed, e->reserved))
        e->reserve_slot = freed;
    if (e->reserve_slot == SLOT_NONE)
        e->reserve_slot = spare_slot(p, e->reserved);
    if (e->reserve_slot == SLOT_NONE) {
        report_at(REPORT_WARNING, 0, "%s: no slot is left to keep %u bytes reserved for '%s'",
                  p->s->dev->name, e->reserved, e->name);
        e->reserved = 0;
    }
}

/* What "the content before" is once @e's current content has been replaced. */
static struct content
before(const struct entry *e)
{
    return e->current.generation ? e->current : e->previous;
}

/* @i stops being a file: a promise, a tombstone, or nothing is left of its name. */
static void
retire_entry(struct plan *p, int i, struct content previous)
{
    struct entry *e = &p->dir.entries[i];
    uint32_t freed = e->slot;

    e->previous = previous;
    e->current = (struct content){0};
    e->slot = SLOT_NONE;
    keep_promise(p, e, freed);
    if (e->reserved != 0)
        e->kind = ENTRY_RESERVED;
    else if (previous.generation != 0)
        e->kind = ENTRY_TOMBSTONE;
    else
        remove_entry(&p->dir, i);
}

/* ---- changes ------------------------------------------------------------------------------------
 */

/* Of several contents for one file the last counts; none (@len 0) is one, too. */
static void
plan_write(struct plan *p, uint64_t id, const void *data, size_t len)
{
    size_t i = 0;

    while (i < p->n_writes && p->writes[i].id != id)
        i++;
    p->writes[i] = (struct planned){.id = id, .data = data, .len = len};
    if (i == p->n_writes)
        p->n_writes++;
}

/* A name that the image could not hold must not get into it: nobody could open it again. */
static int
check_name(const char *name)
{
    size_t len = name ? strlen(name) : 0;

    if (len > NAME_MAX_LEN)
        return -ENAMETOOLONG;
    return entry_name_ok(name, len) ? 0 : -EINVAL;
}

/* The entry of a file that is to come: a new one, or what was left of the name. */
static int
create_entry(struct plan *p, const struct change *c)
{
    int i = c->name ? directory_find(&p->dir, c->name) : -1;
    struct entry *e;
    int r;

    if (!c->name)
        return -ENOENT; /* no such file, and no name to make one */
    r = check_name(c->name);
    if (r < 0)
        return r;
    if (i >= 0 && p->dir.entries[i].kind == ENTRY_FILE)
        return -EEXIST;
    e = i >= 0 ? &p->dir.entries[i] : append_entry(&p->dir);
    if (!e)
        return -ENOMEM;
    strcpy(e->name, c->name);
    e->kind = ENTRY_FILE;
    e->id = c->id;
    e->slot = c->slot;
    if (e->reserve_slot == c->slot)
        e->reserve_slot = SLOT_NONE;
    keep_promise(p, e, SLOT_NONE);
    return (int)(e - p->dir.entries);
}

static int
apply_file(struct plan *p, const struct change *c)
{
    int i = directory_find_id(&p->dir, c->id);
    struct entry *e;

    if (c->id == 0 || c->id >= p->dir.next_id || c->slot >= p->s->n_slots ||
        !file_attr_ok(&c->attr))
        return -EINVAL;
    if (c->has_content && c->len > superblock_slot_capacity(&p->s->sb, c->slot))
        return -EFBIG;
    if (i < 0)
        i = create_entry(p, c);
    if (i < 0)
        return i;
    e = &p->dir.entries[i];
    e->attr = c->attr;
    if (e->slot != c->slot) {
        uint32_t freed = e->slot;

        if (!c->has_content && e->current.generation != 0)
            return -EINVAL; /* a move carries the content */
        e->slot = c->slot;
        if (e->reserve_slot == c->slot)
            e->reserve_slot = SLOT_NONE;
        keep_promise(p, e, freed);
    }
    if (!c->has_content)
        return 0;
    e->previous = before(e);
    e->current = (struct content){0};
    plan_write(p, c->id, c->data, c->len);
    return 0;
}

static int
apply_rename(struct plan *p, const struct change *c)
{
    int from = directory_find_id(&p->dir, c->id), to;
    struct entry *f, *t, moved;
    uint32_t freed;
    int r = from < 0 ? -ENOENT : check_name(c->name);

    if (r < 0)
        return r;
    to = directory_find(&p->dir, c->name);
    if (to == from)
        return 0;
    if (to < 0) {
        t = append_entry(&p->dir);
        if (!t)
            return -ENOMEM;
        to = (int)p->dir.n_entries - 1;
        strcpy(t->name, c->name);
    }
    f = &p->dir.entries[from];
    t = &p->dir.entries[to];
    moved = *f;
    strcpy(moved.name, c->name);
    moved.reserved = t->reserved;
    moved.reserve_slot = t->reserve_slot;
    if (before(t).generation != 0)
        moved.previous = before(t);
    /* The slot goes with the file, so the old name's promise must look for another. */
    f->slot = SLOT_NONE;
    freed = t->slot;
    *t = moved;
    keep_promise(p, t, freed);
    retire_entry(p, from, (struct content){0});
    return 0;
}

static int
apply_exchange(struct plan *p, const struct change *c)
{
    int i = directory_find_id(&p->dir, c->id), k = directory_find_id(&p->dir, c->other);
    struct entry *a, *b, was;

    if (i < 0 || k < 0)
        return -ENOENT;
    if (i == k)
        return 0;
    a = &p->dir.entries[i];
    b = &p->dir.entries[k];
    was = *a;
    /* Names and the promises made to them stay; files change places. */
    a->id = b->id;
    a->slot = b->slot;
    a->attr = b->attr;
    a->current = b->current;
    a->previous = b->previous;
    b->id = was.id;
    b->slot = was.slot;
    b->attr = was.attr;
    b->current = was.current;
    b->previous = was.previous;
    keep_promise(p, a, SLOT_NONE);
    keep_promise(p, b, SLOT_NONE);
    return 0;
}

static int
apply_unlink(struct plan *p, const struct change *c)
{
    int i = directory_find_id(&p->dir, c->id);

    if (i < 0)
        return -ENOENT;
    retire_entry(p, i, before(&p->dir.entries[i]));
    return 0;
}

/* Nothing is promised to the entry @i any more. */
static int
release_promise(struct plan *p, int i)
{
    struct entry *e = i >= 0 ? &p->dir.entries[i] : NULL;

    if (!e || e->reserved == 0)
        return -ENOENT;
    e->reserved = 0;
    e->reserve_slot = SLOT_NONE;
    if (e->kind == ENTRY_FILE)
        return 0;
    e->kind = ENTRY_TOMBSTONE;
    if (e->previous.generation == 0)
        remove_entry(&p->dir, i);
    return 0;
}

static int
apply_reserve(struct plan *p, const struct change *c)
{
    int i = c->name ? directory_find(&p->dir, c->name) : -1;
    struct entry *e;
    int r = check_name(c->name);

    if (r < 0 || c->len == 0)
        return r < 0 ? r : release_promise(p, i);
    if (c->len > store_largest_capacity(p->s))
        return -EFBIG;
    e = i >= 0 ? &p->dir.entries[i] : append_entry(&p->dir);
    if (!e)
        return -ENOMEM;
    if (i < 0)
        strcpy(e->name, c->name);
    if (e->kind != ENTRY_FILE)
        e->kind = ENTRY_RESERVED;
    e->reserved = (uint32_t)c->len;
    if (fits(p, e->slot, e->reserved)) {
        e->reserve_slot = SLOT_NONE;
        return 0;
    }
    if (!fits(p, e->reserve_slot, e->reserved))
        e->reserve_slot = spare_slot(p, e->reserved);
    return e->reserve_slot == SLOT_NONE ? -ENOSPC : 0;
}

static int
apply_forget(struct plan *p, const struct change *c)
{
    int i = c->name ? directory_find(&p->dir, c->name) : -1;

    if (i < 0)
        return -ENOENT;
    p->dir.entries[i].previous = (struct content){0};
    if (p->dir.entries[i].kind == ENTRY_TOMBSTONE)
        remove_entry(&p->dir, i);
    return 0;
}

static int
apply(struct plan *p, const struct change *c)
{
    switch (c->op) {
    case CHANGE_FILE:
        return apply_file(p, c);
    case CHANGE_RENAME:
        return apply_rename(p, c);
    case CHANGE_EXCHANGE:
        return apply_exchange(p, c);
    case CHANGE_UNLINK:
        return apply_unlink(p, c);
    case CHANGE_ROOT:
        if (!file_attr_ok(&c->attr))
            return -EINVAL;
        p->dir.root = c->attr;
        return 0;
    case CHANGE_RESERVE:
        return apply_reserve(p, c);
    case CHANGE_FORGET:
        return apply_forget(p, c);
    }
    return -EINVAL;
}

/* ---- banks --------------------------------------------------------------------------------------
 */

static bool
names_bank(const struct content *c, uint32_t slot, unsigned bank)
{
    return c->generation != 0 && c->slot == slot && c->bank == bank;
}

/* Whether @dir shows what lies in the bank as some file's content. */
static bool
is_current(const struct directory *dir, uint32_t slot, unsigned bank)
{
    for (uint32_t i = 0; i < dir->n_entries; i++) {
        if (names_bank(&dir->entries[i].current, slot, bank))
            return true;
    }
    return false;
}

static uint64_t
previous_generation(const struct directory *dir, uint32_t slot, unsigned bank)
{
    for (uint32_t i = 0; i < dir->n_entries; i++) {
        if (names_bank(&dir->entries[i].previous, slot, bank))
            return dir->entries[i].previous.generation;
    }
    return 0;
}

/* The bank of @slot to write: never one that the last flushed directory shows; of two that are
 * free, the one whose previous content is oldest or that has none. */
static int
free_bank(const struct plan *p, uint32_t slot)
{
    int best = -1;

    for (int b = 0; b < 2; b++) {
        if (is_current(&p->s->dir, slot, (unsigned)b) || is_current(&p->dir, slot, (unsigned)b))
            continue;
        if (best < 0 || previous_generation(&p->dir, slot, (unsigned)b) <
                            previous_generation(&p->dir, slot, (unsigned)best))
            best = b;
    }
    return best;
}

/* The bank is about to be overwritten: nobody's previous content lies there any more. */
static void
forget_bank(struct directory *dir, uint32_t slot, unsigned bank)
{
    for (uint32_t i = dir->n_entries; i-- > 0;) {
        if (!names_bank(&dir->entries[i].previous, slot, bank))
            continue;
        dir->entries[i].previous = (struct content){0};
        if (dir->entries[i].kind == ENTRY_TOMBSTONE)
            remove_entry(dir, (int)i);
    }
}

static int
write_content(struct plan *p, struct planned *w)
{
    int i = directory_find_id(&p->dir, w->id), bank;
    struct content c = {.generation = p->dir.generation};
    int r;

    if (i < 0 || w->len == 0)
        return 0; /* unlinked in the same commit, or empty: no bank holds it */
    c.slot = p->dir.entries[i].slot;
    bank = free_bank(p, c.slot);
    if (bank < 0)
        return report(-EUCLEAN, "%s: slot %u has no free bank", p->s->dev->name, c.slot);
    c.bank = (uint8_t)bank;
    forget_bank(&p->dir, c.slot, c.bank);
    r = bank_write(p->s->dev, p->s->sealer, &p->s->sb, &c, w->data, w->len, &w->bank);
    if (r < 0)
        return r;
    i = directory_find_id(&p->dir, w->id);
    p->dir.entries[i].current = c;
    return 0;
}

static void
note_tpm(struct directory *dir)
{
    int i20 = directory_find(dir, "tpm2-00.permall"), i12 = directory_find(dir, "tpm-00.permall");

    if (i20 >= 0 && dir->entries[i20].current.generation != 0)
        dir->held_tpm20 = true;
    if (i12 >= 0 && dir->entries[i12].current.generation != 0)
        dir->held_tpm12 = true;
}

/* Tombstones give way, oldest first, when the directory would not fit its place. */
static int
shrink_directory(const struct plan *p, struct directory *dir)
{
    while (directory_size(dir) > p->s->sb.dir_capacity) {
        int oldest = -1;

        for (uint32_t i = 0; i < dir->n_entries; i++) {
            if (dir->entries[i].kind == ENTRY_TOMBSTONE &&
                (oldest < 0 ||
                 dir->entries[i].previous.generation < dir->entries[oldest].previous.generation))
                oldest = (int)i;
        }
        if (oldest < 0)
            return -ENOSPC;
        remove_entry(dir, oldest);
    }
    return 0;
}

/* A later change of the same commit may have moved the file to a smaller slot. */
static int
check_sizes(const struct plan *p)
{
    for (size_t i = 0; i < p->n_writes; i++) {
        int k = directory_find_id(&p->dir, p->writes[i].id);

        if (k >= 0 &&
            p->writes[i].len > superblock_slot_capacity(&p->s->sb, p->dir.entries[k].slot))
            return -EFBIG;
    }
    return 0;
}

static int
run_plan(struct plan *p)
{
    int r = check_sizes(p);

    if (r == 0)
        r = shrink_directory(p, &p->dir);

    for (size_t i = 0; r == 0 && i < p->n_writes; i++) {
        r = write_content(p, &p->writes[i]);
        if (r == -EIO)
            return fail_store(p->s, r, "a write failed");
    }
    if (r < 0)
        return r;
    note_tpm(&p->dir);
    return commit_directory(p->s, &p->dir);
}

int
store_commit(struct store *s, const struct change *changes, size_t n, uint64_t *generation)
{
    AUTO(commit_endp) struct store *held = commit_begin(s);
    AUTO(plan_fini) struct plan p = {.s = s};
    int r = commit_allowed(s);

    (void)held;
    if (r == 0)
        r = tenure_announce(s);
    if (r == 0)
        r = next_directory(s, &p.dir);
    if (r < 0)
        return r;
    p.writes = calloc(n + 1, sizeof p.writes[0]);
    if (!p.writes)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        r = apply(&p, &changes[i]);
        if (r < 0)
            return r;
    }
    r = run_plan(&p);
    if (r == 0 && generation)
        *generation = s->dir.generation;
    /* What a former owner writes late shall never be taken for a commit that was cut short. */
    return r == 0 && s->mark.guarded ? settle_locked(s) : r;
}

int
settle_locked(struct store *s)
{
    struct directory next;
    int r;

    if (s->dir.clean && !s->dir.resealing)
        return 0;
    r = next_directory(s, &next);
    if (r < 0)
        return r;
    next.clean = true;
    next.committed = s->dir.committed; /* nothing else has changed */
    places_rest(s);                    /* there is time to write all of it */
    r = commit_directory(s, &next);
    places_rest(s); /* nor does anybody know when the next one comes */
    return r;
}

int
store_settle(struct store *s)
{
    AUTO(commit_endp) struct store *held = commit_begin(s);
    int r;

    (void)held;
    if (s->unsure)
        judge_touch(s); /* all of it, once there is time */
    s->unsure = false;
    r = commit_allowed(s);
    if (r == 0)
        r = settle_locked(s);
    dev_idle(s->dev);
    return r;
}
