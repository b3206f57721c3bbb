/* SPDX-License-Identifier: BSD-3-Clause */
/* store.c - opening, looking, slots.  commit.c changes, recover.c finds the state, image.c reads
 * and writes single structures. */
#include "base/report.h"
#include "base/scope.h"
#include "core/store_impl.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

int
directory_find(const struct directory *dir, const char *name)
{
    for (uint32_t i = 0; i < dir->n_entries; i++) {
        if (strcmp(dir->entries[i].name, name) == 0)
            return (int)i;
    }
    return -1;
}

int
directory_find_id(const struct directory *dir, uint64_t id)
{
    for (uint32_t i = 0; i < dir->n_entries; i++) {
        if (dir->entries[i].kind == ENTRY_FILE && dir->entries[i].id == id)
            return (int)i;
    }
    return -1;
}

/* ---- open --------------------------------------------------------------------------------------
 */

/* An update of the superblocks was interrupted between the copies: finish it, so that the older
 * copy (and a key slot that was removed from it) does not stay.  Likewise a repair. */
static int
finish_superblocks(struct store *s, const struct superblock *stale)
{
    int r = stale ? wipe_directories(s, stale) : 0;

    if (r == 0)
        r = superblock_write(s->dev, 1 - s->sb_best, &s->sb, s->sealer);
    return r < 0 ? r : commit_flush(s);
}

/* A reseal that was cut short may have overwritten contents before with such of another key. */
static void
forget_previous(struct directory *dir)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < dir->n_entries; i++) {
        dir->entries[i].previous = (struct content){0};
        if (dir->entries[i].kind != ENTRY_TOMBSTONE)
            dir->entries[n++] = dir->entries[i];
    }
    dir->n_entries = n;
}

int
write_recovery(struct store *s, const struct superblocks *sbs, bool repair)
{
    int r = commit_anchor(s); /* before the directory that it may be at is overwritten */

    if (r == 0 && sbs && (sbs->other_stale || (repair && sbs->other_bad)))
        r = finish_superblocks(s, sbs->other_stale ? &sbs->other : NULL);
    if (s->dir.resealing) {
        forget_previous(&s->dir);
        if (r == 0)
            r = wipe_unused_banks(s); /* of the key that does not count any more */
    }
    if (r == 0 && s->recovered) {
        s->dir.recoveries++;
        s->dir.clean = false;
        r = settle_locked(s);
    } else if (r == 0 && s->dir.resealing) {
        r = settle_locked(s);
    }
    /* Whoever did not let it go may have been writing. */
    if (r == 0 && s->own && owner_was_owned(s->own))
        r = tenure_announce(s);
    return r;
}

/* While another daemon moves the anchor, there is nothing to compare with. */
static int
check_anchor(const struct store *s, const struct recovery *rec, bool accept)
{
    struct anchor_point shown = {.generation = rec->dir.generation};
    struct anchor_point other = {.generation = rec->other.generation};

    if (!s->anchor || (s->place == STORE_INCOMING && !s->view))
        return 0;
    memcpy(shown.uuid, s->sb.uuid, UUID_SIZE);
    memcpy(shown.digest, rec->dir.digest, SEAL_TAG_SIZE);
    memcpy(other.uuid, s->sb.uuid, UUID_SIZE);
    memcpy(other.digest, rec->other.digest, SEAL_TAG_SIZE);
    return anchor_judge(s->anchor, s->dev->name, &shown, &other, accept);
}

int
adopt_recovery(struct store *s, struct recovery *rec, bool accept_rollback)
{
    int r = check_anchor(s, rec, accept_rollback);

    if (r < 0)
        return r;
    directory_fini(&s->dir);
    s->dir = rec->dir;
    rec->dir = (struct directory){0};
    if (rec->seen > s->seen)
        s->seen = rec->seen;
    if (s->dir.next_id > s->next_id)
        s->next_id = s->dir.next_id;
    s->recovered = rec->recovered;
    if (s->anchor && anchor_get(s->anchor)->generation > s->seen)
        s->seen = anchor_get(s->anchor)->generation; /* rolled back, and accepted */
    tenure_mark(s);
    if (rec->recovered)
        report_at(REPORT_WARNING, 0,
                  "%s: the last commit was cut short; generation %" PRIu64
                  ", the one before, is shown",
                  s->dev->name, s->dir.generation);
    return 0;
}

static int
load_superblocks(struct store *s, const struct store_options *opt, struct superblocks *sbs)
{
    int r = recover_superblocks(s->dev, opt->unlock, opt->unlock_arg, sbs);

    if (r < 0)
        return r;
    s->sb = sbs->sb;
    s->sb_best = sbs->best;
    s->sealer = sbs->sealer;
    if (s->sb.ro_compat != 0 && !opt->read_only)
        return report(-EPROTONOSUPPORT,
                      "%s: has a feature that this version can only read; "
                      "mount it with -o ro",
                      s->dev->name);
    return 0;
}

/* Superblocks are read before, so that nothing is written to an image that would be refused; nobody
 * may have changed them since. */
static int
take_from_hosts(struct store *s, const struct superblocks *sbs)
{
    AUTO_FREE struct superblock *sb = malloc(sizeof *sb);
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    int r = sb && buf ? tenure_begin(s) : -ENOMEM;

    for (unsigned copy = 0; r == 0 && s->own && copy < 2; copy++) {
        int found = superblock_load(s->dev, copy, buf, sb);
        bool best = copy == sbs->best;

        if (found < 0 ? best
                      : sb->sequence > s->sb.sequence || (best && sb->sequence != s->sb.sequence) ||
                            memcmp(sb->uuid, s->sb.uuid, UUID_SIZE) != 0)
            r = report(-EBUSY, "%s: its keys or slots are being changed: try again", s->dev->name);
    }
    return r;
}

static int
load(struct store *s, const struct store_options *opt, struct superblocks *sbs)
{
    struct recovery rec;
    int r = load_superblocks(s, opt, sbs);

    if (r == 0 && s->place == STORE_HERE)
        r = take_from_hosts(s, sbs);
    if (r < 0)
        return r;
    r = recover_directory(s->dev, s->sealer, &s->sb, opt->degraded, &rec);
    if (r == 0)
        r = tenure_keep(s);
    if (r == 0)
        r = adopt_recovery(s, &rec, opt->accept_rollback);
    directory_fini(&rec.dir);
    if (r < 0)
        return r;
    s->n_slots = superblock_slot_count(&s->sb);
    s->holds = calloc(s->n_slots, sizeof s->holds[0]);
    return s->holds ? 0 : -ENOMEM;
}

static void
free_store(struct store **sp)
{
    struct store *s = *sp;

    if (!s)
        return;
    dev_close(s->view);
    owner_free(s->own);
    snapshot_put(s->snapshot);
    sealer_free(s->sealer);
    directory_fini(&s->dir);
    free(s->holds);
    places_forget(s);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

int
store_open(struct store **out, struct dev *d, const struct store_options *opt)
{
    AUTO(free_store) struct store *s = calloc(1, sizeof(*s));
    bool reads_only = opt->read_only || opt->incoming;
    struct superblocks sbs;
    int r;

    if (!s)
        return -ENOMEM;
    assert(reads_only || (!d->read_only && !opt->degraded));
    pthread_mutex_init(&s->lock, NULL);
    s->dev = d;
    s->anchor = opt->anchor;
    s->accept_rollback = opt->incoming && opt->accept_rollback;
    s->place = opt->incoming ? STORE_INCOMING : STORE_HERE;
    if (opt->read_only) {
        s->read_only = -EROFS;
        s->read_only_why = opt->degraded ? "degraded: the image is damaged" : "mounted read-only";
    }
    if (!opt->read_only && owner_is_kept(opt->owner, d)) {
        s->own = owner_new(opt->owner);
        if (!s->own)
            return -ENOMEM;
    }
    /* Whatever a killed daemon left in the cache must be on the medium before it is believed, and
     * what is believed must have come from there. */
    r = reads_only ? 0 : dev_sync(d);
    if (r == 0)
        r = dev_medium(d, true);
    if (r == 0)
        r = load(s, opt, &sbs);
    if (r == 0 && !s->own) /* what another host writes no cache here shows */
        r = dev_medium(d, false);
    if (r == 0 && !reads_only)
        dev_set_witness(d, store_witness, store_dev_failed, s);
    if (r == 0 && opt->incoming)
        r = leave_locked(s, STORE_INCOMING);
    else if (r == 0 && !reads_only)
        r = write_recovery(s, &sbs, opt->repair);
    if (r < 0) {
        tenure_end(s);
        dev_set_witness(d, NULL, NULL, NULL);
        return r;
    }
    *out = steal(&s);
    return 0;
}

void
store_close(struct store *s)
{
    if (!s)
        return;
    tenure_end(s);
    dev_close(s->dev);
    free_store(&s);
}

void
store_closep(struct store **s)
{
    store_close(*s);
}

/* ---- look --------------------------------------------------------------------------------------
 */

/* One byte a slot: whether it is in use.  NULL when memory is short. */
static uint8_t *
used_map(const struct store *s)
{
    uint8_t *used = calloc(s->n_slots, 1);

    if (!used)
        return NULL;
    for (uint32_t i = 0; i < s->n_slots; i++)
        used[i] = s->holds[i] != 0;
    for (uint32_t i = 0; i < s->dir.n_entries; i++) {
        const struct entry *e = &s->dir.entries[i];

        if (e->slot != SLOT_NONE)
            used[e->slot] = 1;
        if (e->reserve_slot != SLOT_NONE)
            used[e->reserve_slot] = 1;
    }
    return used;
}

static void
count_slots(struct store *s, struct store_info *info)
{
    AUTO_FREE uint8_t *used = used_map(s);

    for (uint32_t i = 0; i < s->n_slots; i++) {
        info->slots_used += used ? used[i] : 0;
        info->bytes_total += superblock_slot_capacity(&s->sb, i);
    }
    for (uint32_t i = 0; i < s->dir.n_entries; i++) {
        const struct entry *e = &s->dir.entries[i];

        info->bytes_used += e->current.length;
        info->files += e->kind == ENTRY_FILE;
        info->tombstones += e->kind == ENTRY_TOMBSTONE;
    }
}

void
store_get_info(struct store *s, struct store_info *info)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);

    (void)held;
    *info = (struct store_info){
        .generation = s->dir.generation,
        .superblock_sequence = s->sb.sequence,
        .image_size = s->sb.image_size,
        .seal_mode = s->sb.seal_mode,
        .key_size = s->sb.key_size,
        .key_epoch = s->sb.key_epoch,
        .slots_total = s->n_slots,
        .clean = s->dir.clean,
        .held_tpm12 = s->dir.held_tpm12,
        .held_tpm20 = s->dir.held_tpm20,
        .recovered = s->recovered,
        .recoveries = s->dir.recoveries,
        .flushes = s->flushes,
        .committed = s->dir.committed,
        .read_only = s->read_only,
        .read_only_why = s->read_only_why,
        .place = s->place,
    };
    memcpy(info->uuid, s->sb.uuid, UUID_SIZE);
    info->owned = owner_is_held(s->own);
    if (s->own)
        info->owner = *owner_mine(s->own);
    info->guarded = s->mark.guarded;
    count_slots(s, info);
}

enum store_place
store_where(struct store *s)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);

    return s->place;
}

const struct superblock *
store_superblock(const struct store *s)
{
    return &s->sb;
}

void
store_get_root(struct store *s, struct file_attr *root)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);

    (void)held;
    *root = s->dir.root;
}

int
store_list(struct store *s, struct entry **entries, size_t *n)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);
    struct directory copy;
    int r = directory_copy(&copy, &s->dir);

    (void)held;
    if (r < 0)
        return r;
    *entries = copy.entries;
    *n = copy.n_entries;
    return 0;
}

int
store_find(struct store *s, const char *name, struct entry *e)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);
    int i = directory_find(&s->dir, name);

    (void)held;
    if (i < 0)
        return -ENOENT;
    *e = s->dir.entries[i];
    return 0;
}

int
store_find_id(struct store *s, uint64_t id, struct entry *e)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);
    int i = directory_find_id(&s->dir, id);

    (void)held;
    if (i < 0)
        return -ENOENT;
    *e = s->dir.entries[i];
    return 0;
}

int
store_read(struct store *s, const struct content *c, void *buf)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);
    AUTO_FREE uint8_t *raw = NULL;
    int r;

    (void)held;
    if (c->generation == 0)
        return 0;
    r = bank_open(reading(s), s->sealer, &s->sb, c, &raw);
    if (r < 0)
        return r;
    memcpy(buf, raw + BANK_HEADER, c->length);
    if (s->sb.seal_mode != SEAL_NONE)
        explicit_bzero(raw + BANK_HEADER, bank_padded(c->length));
    return 0;
}

bool
store_is_whole(struct store *s, const struct content *c)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);
    AUTO_FREE uint8_t *raw = NULL;

    (void)held;
    return c->generation == 0 || bank_load(reading(s), s->sealer, &s->sb, c, &raw) == 0;
}

bool
store_is_read_only(const struct store *s)
{
    return s->read_only != 0;
}

bool
store_is_sole(const struct store *s)
{
    return s->dev->sole && !s->own;
}

void
store_set_read_only(struct store *s, int r, const char *why)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);

    (void)held;
    if (s->read_only == 0) {
        s->read_only = r;
        s->read_only_why = why;
    }
}

/* ---- slots -------------------------------------------------------------------------------------
 */

uint32_t
store_slot_capacity(const struct store *s, uint32_t slot)
{
    return superblock_slot_capacity(&s->sb, slot);
}

uint32_t
store_largest_capacity(const struct store *s)
{
    uint32_t max = 0;

    for (unsigned i = 0; i < s->sb.n_segments; i++) {
        if (s->sb.segments[i].capacity > max)
            max = s->sb.segments[i].capacity;
    }
    return max;
}

/* The generation of the newest previous content in each slot, 0 for none: what reuse would lose. */
static uint64_t *
previous_map(const struct store *s)
{
    uint64_t *prev = calloc(s->n_slots, sizeof(*prev));

    if (!prev)
        return NULL;
    for (uint32_t i = 0; i < s->dir.n_entries; i++) {
        const struct content *c = &s->dir.entries[i].previous;

        if (c->generation > prev[c->slot])
            prev[c->slot] = c->generation;
    }
    return prev;
}

/* The slot kept for @name, if it is free for it and large enough. */
static uint32_t
own_reserve(const struct store *s, const char *name, uint64_t size)
{
    int i = name ? directory_find(&s->dir, name) : -1;
    uint32_t slot;

    if (i < 0)
        return SLOT_NONE;
    slot = s->dir.entries[i].reserve_slot;
    if (slot == SLOT_NONE || s->holds[slot] || superblock_slot_capacity(&s->sb, slot) < size)
        return SLOT_NONE;
    return slot;
}

/* The smallest free slot of at least @size bytes; among equals the one whose reuse loses least. */
static uint32_t
best_free(const struct store *s, const uint8_t *used, const uint64_t *prev, uint64_t size)
{
    uint32_t best = SLOT_NONE, best_capacity = 0;

    for (uint32_t i = 0; i < s->n_slots; i++) {
        uint32_t capacity = superblock_slot_capacity(&s->sb, i);

        if (used[i] || capacity < size)
            continue;
        if (best == SLOT_NONE || capacity < best_capacity ||
            (capacity == best_capacity && prev[i] < prev[best])) {
            best = i;
            best_capacity = capacity;
        }
    }
    return best;
}

int
store_slot_take(struct store *s, uint64_t size, const char *name, uint32_t *slot)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);
    AUTO_FREE uint8_t *used = used_map(s);
    AUTO_FREE uint64_t *prev = previous_map(s);
    uint32_t best = own_reserve(s, name, size);

    (void)held;
    if (!used || !prev)
        return -ENOMEM;
    if (size > store_largest_capacity(s))
        return -EFBIG;
    if (best == SLOT_NONE)
        best = best_free(s, used, prev, size);
    if (best == SLOT_NONE)
        return -ENOSPC;
    s->holds[best]++;
    *slot = best;
    return 0;
}

void
store_slot_hold(struct store *s, uint32_t slot)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);

    (void)held;
    assert(slot < s->n_slots);
    s->holds[slot]++;
}

void
store_slot_drop(struct store *s, uint32_t slot)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);

    (void)held;
    assert(slot < s->n_slots && s->holds[slot] > 0);
    s->holds[slot]--;
}

uint64_t
store_new_id(struct store *s)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);

    (void)held;
    return s->next_id++;
}
