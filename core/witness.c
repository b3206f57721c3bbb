/* SPDX-License-Identifier: BSD-3-Clause */
/* witness.c - whether a device that was lost and found again still holds what the store had
 * flushed.
 *
 * What the store was writing when it was lost may be there whole, in part or not at all: a
 * superblock of the next sequence, the directory in flight, banks that no flushed directory names.
 * All else must be what it was; anything newer is somebody else's. */
#include "base/report.h"
#include "base/scope.h"
#include "core/store_impl.h"
#include <errno.h>
#include <string.h>

/* One copy at least is ours, and none is somebody else's.  A change of keys writes the copies one
 * after the other. */
static int
check_superblocks(struct store *s, struct dev *d)
{
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    AUTO_FREE struct superblock *sb = malloc(sizeof *sb);
    bool any = false;

    if (!buf || !sb)
        return -ENOMEM;
    for (unsigned copy = 0; copy < 2; copy++) {
        int r = superblock_load(d, copy, buf, sb);

        if (r == -EIO)
            return r;
        if (r < 0)
            continue; /* torn, or bad before */
        if (memcmp(sb->uuid, s->sb.uuid, UUID_SIZE) != 0 || sb->sequence > s->sb.sequence + 1)
            return -EUCLEAN;
        any |= sb->sequence >= s->sb.sequence;
    }
    return any ? 0 : -EUCLEAN;
}

static bool
is_same(const struct directory_claim *claim, const struct directory *dir)
{
    return dir && claim->generation == dir->generation &&
           memcmp(claim->digest, dir->digest, SEAL_TAG_SIZE) == 0;
}

/* The flushed directory lies where it was.  In the other place is what was there when the image was
 * opened, an older one of ours, or the one in flight. */
static int
check_directories(struct store *s, struct dev *d)
{
    for (unsigned i = 0; i < 2; i++) {
        AUTO(directory_fini) struct directory dir = {0};
        struct directory_claim claim;
        int r = directory_load(d, s->sealer, &s->sb, i, &dir, &claim);

        if (r == -EIO || r == -ENOMEM)
            return r;
        if (i == s->dir.index ? r < 0 || !is_same(&claim, &s->dir)
                              : claim.generation > s->seen && !is_same(&claim, s->in_flight))
            return -EUCLEAN;
    }
    return 0;
}

static int
check_banks(struct store *s, struct dev *d)
{
    for (uint32_t i = 0; i < s->dir.n_entries; i++) {
        const struct content *c = &s->dir.entries[i].current;
        AUTO_FREE uint8_t *raw = NULL;
        int r = c->generation ? bank_load(d, s->sealer, &s->sb, c, &raw) : 0;

        if (r == -EIO || r == -ENOMEM)
            return r;
        if (r < 0)
            return -EUCLEAN;
    }
    return 0;
}

int
store_witness(void *arg, struct dev *d)
{
    struct store *s = arg;
    int r = check_superblocks(s, d);

    if (r == 0)
        r = check_directories(s, d);
    if (r == 0)
        r = check_banks(s, d);
    return r == 0 && owner_is_held(s->own) ? owner_witness(s->own, d) : r;
}

void
store_dev_failed(void *arg, int r, const char *why)
{
    struct store *s = arg;

    if (s->read_only != 0)
        return;
    s->read_only = r;
    s->read_only_why = why;
    report(r, "%s: %s: read-only from now on", s->dev->name, why);
}
