/* SPDX-License-Identifier: BSD-3-Clause */
/* rekey.c - key slots and volume keys: changes of the superblock that a power cut leaves old or
 * new. */
#include "base/progress.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/store_impl.h"
#include <errno.h>
#include <string.h>

/* Writes @sb to both copies, the worse one first, each flushed before the other is touched: one
 * good copy is on the medium at any time.  A lack of memory shows before the first write: the two
 * never differ for that. */
static int
write_both(struct store *s, const struct superblock *sb, struct sealer *sealer)
{
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    unsigned first = 1 - s->sb_best;
    int r = buf ? superblock_seal(buf, sb, sealer) : -ENOMEM;

    if (r < 0)
        return r;
    for (unsigned i = 0; i < 2; i++) {
        unsigned copy = i == 0 ? first : 1 - first;

        r = dev_pwrite(s->dev, buf, BLOCK_SIZE, superblock_offset(copy));
        r = r < 0 ? fail_store(s, r, "a write failed") : commit_flush(s);
        if (r < 0)
            return report(r,
                          "%s: the old keys may count, or the new ones: \"vnvram key test\" tells "
                          "which",
                          s->dev->name);
    }
    return 0;
}

/* Nothing has been written that counts. */
static int
keys_unchanged(const struct store *s, int r)
{
    return report(r, "%s: %s: the keys are as they were", s->dev->name, errno_text(r));
}

int
demand_superblock(struct store *s)
{
    int r = 0;

    for (int i = 0; r == 0 && i < 2; i++) {
        s->dir.clean = false;
        r = settle_locked(s);
    }
    return r;
}

int
store_set_keyslots(struct store *s, uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE])
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);
    struct superblock sb = s->sb;
    int r;

    (void)held;
    if (s->read_only != 0)
        return -EROFS;
    if (s->sb.seal_mode == SEAL_NONE)
        return -EINVAL;
    sb.sequence++;
    memcpy(sb.keyslots, keyslots, sizeof sb.keyslots);
    r = tenure_announce(s);
    if (r == 0)
        r = write_both(s, &sb, s->sealer);
    if (r < 0)
        return r == -ENOMEM ? keys_unchanged(s, r) : r;
    s->sb = sb;
    r = demand_superblock(s);
    if (r == -ENOMEM) /* each commit demands it, so the next ones will */
        return report_at(REPORT_WARNING, 0,
                         "%s: the keys have changed; %s, so it takes two more commits until the "
                         "old superblock cannot be put back",
                         s->dev->name, errno_text(r));
    return r < 0 ? report(r, "%s: the keys have changed all the same", s->dev->name) : 0;
}

/* ---- reseal -------------------------------------------------------------------------------------
 */

/* Commits the unchanged state with the mark that lets recovery pass over a directory of another
 * key. */
static int
announce(struct store *s)
{
    struct directory next;
    int r = next_directory(s, &next);

    if (r < 0)
        return r;
    next.clean = true;
    next.resealing = true;
    return commit_directory(s, &next);
}

static int
rewrite_content(struct store *s, struct superblock *sb, struct sealer *sealer, struct entry *e,
                uint64_t generation)
{
    struct content c = {
        .slot = e->current.slot, .bank = 1 - e->current.bank, .generation = generation};
    uint64_t padded = bank_padded(e->current.length);
    AUTO_FREE uint8_t *raw = NULL, *bank = NULL;
    int r = bank_open(s->dev, s->sealer, &s->sb, &e->current, &raw);

    if (r < 0)
        return r;
    r = bank_write(s->dev, sealer, sb, &c, raw + BANK_HEADER, e->current.length, &bank);
    explicit_bzero(raw + BANK_HEADER, padded);
    if (r == 0)
        r = dev_wait(s->dev);
    if (r == 0)
        e->current = c;
    return r;
}

/* Everything under the new key, beside what the old one still opens; not yet flushed. */
static int
rewrite_all(struct store *s, struct superblock *sb, struct sealer *sealer, struct directory *next)
{
    for (uint32_t i = next->n_entries; i-- > 0;) {
        struct entry *e = &next->entries[i];
        int r = 0;

        e->previous = (struct content){0}; /* nobody will have its key */
        if (e->kind == ENTRY_TOMBSTONE) {
            *e = next->entries[--next->n_entries];
            continue;
        }
        if (e->current.generation != 0)
            r = rewrite_content(s, sb, sealer, e, next->generation);
        if (r < 0)
            return r;
    }
    places_forget(s);
    return directory_write(s->dev, sealer, sb, next);
}

/* Old ciphertext whose key is gone is zeroed; it would be of no use but to a thief of the old key.
 */
int
wipe_unused_banks(struct store *s)
{
    for (uint32_t slot = 0; slot < s->n_slots; slot++) {
        for (unsigned bank = 0; bank < 2; bank++) {
            bool used = false;
            AUTO_FREE uint8_t *zero = NULL;
            uint64_t len = BANK_HEADER + (uint64_t)superblock_slot_capacity(&s->sb, slot);
            int r;

            for (uint32_t i = 0; i < s->dir.n_entries; i++) {
                const struct content *c = &s->dir.entries[i].current;

                used |= c->generation != 0 && c->slot == slot && c->bank == bank;
            }
            zero = used ? NULL : dev_alloc(len);
            if (used)
                continue;
            if (!zero)
                return -ENOMEM;
            r = dev_pwrite(s->dev, zero, len, superblock_bank_offset(&s->sb, slot, bank));
            progress_add(len);
            if (r < 0)
                return fail_store(s, r, "a write failed");
        }
    }
    return commit_flush(s); /* before a directory says that the reseal is over */
}

/* From here on only the new key counts, and the store owns its sealer. */
static int
switch_over(struct store *s, const struct superblock *sb, struct sealer **sealer,
            struct directory *next)
{
    int r = write_both(s, sb, *sealer);

    if (r < 0)
        return r;
    sealer_free(s->sealer);
    s->sealer = steal(sealer);
    s->sb = *sb;
    directory_fini(&s->dir);
    s->dir = *next;
    s->seen = next->generation;
    *next = (struct directory){0};
    return commit_anchor(s);
}

/* All contents, and a directory that names them, beside what counts. */
static int
write_resealed(struct store *s, struct superblock *sb, struct sealer *sealer,
               struct directory *next)
{
    int r = tenure_announce(s);

    if (r == 0)
        r = announce(s);
    if (r == 0)
        r = next_directory(s, next);
    if (r < 0)
        return r;
    next->superblock_sequence = sb->sequence;
    next->key_epoch = sb->key_epoch;
    next->resealing = true;
    s->in_flight = next;
    r = rewrite_all(s, sb, sealer, next);
    if (r == 0)
        r = commit_flush(s);
    s->in_flight = NULL;
    if (r == 0)
        s->seen = next->generation; /* it is there, though nothing leads to it yet */
    return r == -EIO ? fail_store(s, r, "a write failed") : r;
}

/* What a reseal writes, or most of it: it ends with the banks that it wipes. */
static uint64_t
bytes_to_wipe(const struct store *s)
{
    uint64_t n = 0;

    for (uint32_t slot = 0; slot < s->n_slots; slot++)
        n += 2 * (BANK_HEADER + (uint64_t)superblock_slot_capacity(&s->sb, slot));
    return n;
}

int
store_reseal(struct store *s, struct sealer *sealer, uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE],
             uint8_t key_size)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);
    AUTO(sealer_freep) struct sealer *owned = sealer;
    AUTO(directory_fini) struct directory next = {0};
    AUTO_PROGRESS bool shown = progress_started("resealing", bytes_to_wipe(s));
    struct superblock sb = s->sb;
    int r;

    (void)held;
    if (s->read_only != 0)
        return -EROFS;
    if (s->sb.seal_mode == SEAL_NONE)
        return -EINVAL;
    sb.sequence++;
    sb.key_epoch++;
    sb.key_size = key_size;
    memcpy(sb.keyslots, keyslots, sizeof sb.keyslots);
    r = write_resealed(s, &sb, sealer, &next);
    if (r < 0)
        return keys_unchanged(s, r);
    r = switch_over(s, &sb, &owned, &next);
    if (r < 0 && s->sb.sequence != sb.sequence)
        return r == -ENOMEM ? keys_unchanged(s, r) : r;
    if (r == 0)
        r = wipe_unused_banks(s);
    if (r == 0)
        r = settle_locked(s);
    return r < 0 ? report(r, "%s: resealed, but %s: the next mount wipes what the old key opens",
                          s->dev->name, errno_text(r))
                 : 0;
}
