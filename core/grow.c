/* SPDX-License-Identifier: BSD-3-Clause */
/* grow.c - more slots for an image: new areas behind all others, then one change of the superblock.
 *
 * Nothing that the old superblock leads to is written before the new one is on the medium.
 * Directories that are too small for the new slots are written anew in a larger place; the old
 * place is zeroed while the second copy of the superblock still tells where it is, so that a power
 * cut cannot leave it. */
#include "base/progress.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/store_impl.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

static uint64_t
segment_run(const struct segment *g)
{
    return g->count * ((uint64_t)BANK_HEADER + g->capacity);
}

static uint64_t
later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Where the last area ends. */
static uint64_t
areas_end(const struct superblock *sb)
{
    uint64_t end = later(sb->dir_off[0], sb->dir_off[1]) + sb->dir_capacity;

    for (unsigned i = 0; i < sb->n_segments; i++) {
        const struct segment *g = &sb->segments[i];

        end = later(end, later(g->bank_off[0], g->bank_off[1]) + segment_run(g));
    }
    return end;
}

static bool
directories_moved(const struct superblock *from, const struct superblock *to)
{
    return from->dir_off[0] != to->dir_off[0] || from->dir_off[1] != to->dir_off[1];
}

int
store_layout_grown(struct superblock *sb, const struct slot_class *classes, size_t n)
{
    uint64_t slots = superblock_slot_count(sb), off = areas_end(sb);
    uint32_t capacity;

    if (n == 0)
        return -EINVAL;
    if (n > MAX_SEGMENTS - (size_t)sb->n_segments)
        return -ENOSPC;
    for (size_t i = 0; i < n; i++) {
        if (!slot_class_ok(&classes[i]))
            return -EINVAL;
        slots += classes[i].count;
    }
    if (slots > MAX_SLOTS)
        return -ENOSPC;
    capacity = layout_directory_capacity(slots);
    if (capacity > sb->dir_capacity) {
        sb->dir_capacity = capacity;
        sb->dir_off[0] = off;
        sb->dir_off[1] = off + capacity;
        off += 2 * (uint64_t)capacity;
    }
    for (size_t i = 0; i < n; i++)
        off = layout_place_class(&sb->segments[sb->n_segments++], &classes[i], off);
    sb->image_size = later(sb->image_size, off);
    sb->sequence++;
    return 0;
}

/* ---- the old directories ------------------------------------------------------------------------
 */

static bool
overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a < b + b_len && b < a + a_len;
}

/* Whether [off, off + len) holds anything of @sb's. */
static bool
is_used(const struct superblock *sb, uint64_t off, uint64_t len)
{
    bool used = off < FIRST_DIRECTORY;

    for (unsigned i = 0; i < 2; i++)
        used |= overlap(off, len, sb->dir_off[i], sb->dir_capacity);
    for (unsigned i = 0; i < 2 * (unsigned)sb->n_segments; i++) {
        const struct segment *g = &sb->segments[i / 2];

        used |= overlap(off, len, g->bank_off[i % 2], segment_run(g));
    }
    return used;
}

int
wipe_directories(struct store *s, const struct superblock *old)
{
    if (!directories_moved(old, &s->sb))
        return 0;
    for (unsigned i = 0; i < 2; i++) {
        int r = is_used(&s->sb, old->dir_off[i], old->dir_capacity)
                    ? 0
                    : zero_range(s->dev, old->dir_off[i], old->dir_capacity);

        if (r < 0)
            return r == -EIO ? fail_store(s, r, "a write failed") : r;
    }
    return commit_flush(s); /* before the last superblock that knows the place is gone */
}

/* ---- the new areas ------------------------------------------------------------------------------
 */

static uint64_t
bytes_to_zero(const struct superblock *from, const struct superblock *to)
{
    uint64_t n = 0;

    if (directories_moved(from, to))
        n = 2 * ((uint64_t)from->dir_capacity + to->dir_capacity);
    for (unsigned i = from->n_segments; i < to->n_segments; i++)
        n += 2 * segment_run(&to->segments[i]);
    return n;
}

/* Whatever lay there must not be taken for content later. */
static int
zero_new_areas(struct dev *d, const struct superblock *from, const struct superblock *to)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && directories_moved(from, to) && i < 2; i++)
        r = zero_range(d, to->dir_off[i], to->dir_capacity);
    for (unsigned i = from->n_segments; r == 0 && i < to->n_segments; i++) {
        for (unsigned bank = 0; r == 0 && bank < 2; bank++)
            r = zero_range(d, to->segments[i].bank_off[bank], segment_run(&to->segments[i]));
    }
    return r;
}

/* The committed directory as it is, to the byte, since an anchor may know it; and its successor,
 * settled, which demands the new superblock. */
static int
write_moved_directories(struct store *s, const struct superblock *sb, struct directory *next)
{
    AUTO(directory_fini) struct directory same = {0};
    int r = directory_copy(&same, &s->dir);

    places_forget(s);
    if (r == 0)
        r = directory_write(s->dev, s->sealer, sb, &same);
    if (r < 0)
        return r;
    if (memcmp(same.digest, s->dir.digest, SEAL_TAG_SIZE) != 0)
        return report(-EUCLEAN, "%s: the directory is another than it was", s->dev->name);
    r = next_directory(s, next);
    if (r < 0)
        return r;
    next->superblock_sequence = sb->sequence;
    next->clean = true;
    next->committed = s->dir.committed;
    return directory_write(s->dev, s->sealer, sb, next);
}

static int
prepare(struct store *s, const struct superblock *sb, struct directory *next)
{
    int r = zero_new_areas(s->dev, &s->sb, sb);

    if (r == 0 && directories_moved(&s->sb, sb))
        r = write_moved_directories(s, sb, next);
    if (r == -EIO)
        return fail_store(s, r, "a write failed");
    return r < 0 ? r : commit_flush(s);
}

/* ---- the switch ---------------------------------------------------------------------------------
 */

static int
write_copy(struct store *s, unsigned copy, const uint8_t *sealed)
{
    int r = dev_pwrite(s->dev, sealed, BLOCK_SIZE, superblock_offset(copy));

    return r < 0 ? fail_store(s, r, "a write failed") : commit_flush(s);
}

/* The grown image is the store's own from here on. */
static void
take_over(struct store *s, const struct superblock *sb, uint32_t **holds, struct directory *next)
{
    s->sb = *sb;
    s->n_slots = superblock_slot_count(sb);
    free(s->holds);
    s->holds = steal(holds);
    if (next->generation == 0)
        return;
    directory_fini(&s->dir);
    s->dir = *next;
    s->seen = next->generation;
    *next = (struct directory){0};
}

static uint32_t *
grown_holds(const struct store *s, uint32_t n_slots)
{
    uint32_t *holds = calloc(n_slots, sizeof *holds);

    if (holds)
        memcpy(holds, s->holds, s->n_slots * sizeof *holds);
    return holds;
}

/* The new superblock is on the medium: what is missing, the next opening does. */
static int
finish_growth(struct store *s, const struct superblock *old, const uint8_t *sealed)
{
    int r = wipe_directories(s, old);

    if (r == 0)
        r = write_copy(s, s->sb_best, sealed);
    if (r == 0)
        r = commit_anchor(s); /* before the directory that it is at is overwritten */
    if (r == 0)
        r = demand_superblock(s);
    if (r == -ENOMEM) /* each commit demands it, so the next ones will */
        return report_at(REPORT_WARNING, 0,
                         "%s: has grown; %s, so it takes two more commits until the old superblock "
                         "cannot be put back",
                         s->dev->name, errno_text(r));
    return r < 0 ? report(r, "%s: has grown all the same", s->dev->name) : 0;
}

/* A lack of memory shows before anything is written that counts. */
static int
grow_to(struct store *s, const struct superblock *sb)
{
    AUTO(directory_fini) struct directory next = {0};
    AUTO_FREE uint32_t *holds = grown_holds(s, superblock_slot_count(sb));
    AUTO_FREE uint8_t *sealed = dev_alloc(BLOCK_SIZE);
    AUTO_PROGRESS bool shown = progress_started("growing", bytes_to_zero(&s->sb, sb));
    const struct superblock old = s->sb;
    int r = holds && sealed ? superblock_seal(sealed, sb, s->sealer) : -ENOMEM;

    if (r == 0)
        r = tenure_announce(s);
    if (r == 0)
        r = prepare(s, sb, &next);
    if (r < 0)
        return report(r, "%s: %s: it has not grown", s->dev->name, errno_text(r));
    r = write_copy(s, 1 - s->sb_best, sealed);
    if (r < 0)
        return report(r, "%s: it has grown or not: \"vnvram info\" tells", s->dev->name);
    take_over(s, sb, &holds, &next);
    return finish_growth(s, &old, sealed);
}

int
store_grow(struct store *s, const struct slot_class *classes, size_t n)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);
    struct superblock sb = s->sb;
    int r = store_layout_grown(&sb, classes, n);

    (void)held;
    if (s->read_only != 0)
        return -EROFS;
    if (r < 0)
        return r;
    if (sb.image_size > s->dev->size)
        return report(-ERANGE,
                      "%s: %" PRIu64 " bytes are too small for these slots, which take %" PRIu64,
                      s->dev->name, s->dev->size, sb.image_size);
    return grow_to(s, &sb);
}
