/* SPDX-License-Identifier: BSD-3-Clause */
/* snapshot.c - a consistent, settled image of the committed state, copied to memory. */
#include "base/scope.h"
#include "core/store_impl.h"
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

struct extent {
    uint64_t off;
    uint64_t len;
    uint8_t *buf;
};

struct snapshot {
    atomic_uint refs;
    uint64_t size, generation;
    size_t n;
    struct extent *extents; /* sorted by offset, apart from each other; zeroes between */
};

static void
free_snapshot(struct snapshot *sn)
{
    for (size_t i = 0; i < sn->n; i++)
        free(sn->extents[i].buf);
    free(sn->extents);
    free(sn);
}

void
snapshot_put(struct snapshot *sn)
{
    if (sn && atomic_fetch_sub(&sn->refs, 1) == 1)
        free_snapshot(sn);
}

static void
putp(struct snapshot **sn)
{
    snapshot_put(*sn);
}

static void
add_extent(struct snapshot *sn, uint64_t off, uint64_t len, uint8_t *buf)
{
    sn->extents[sn->n++] = (struct extent){off, len, buf};
}

static int
add_superblocks(struct snapshot *sn, struct store *s)
{
    for (unsigned copy = 0; copy < 2; copy++) {
        uint8_t *buf = dev_alloc(BLOCK_SIZE);
        int r;

        if (!buf)
            return -ENOMEM;
        add_extent(sn, superblock_offset(copy), BLOCK_SIZE, buf);
        superblock_encode(&s->sb, buf);
        r = format_seal(s->sealer, SEAL_SUPERBLOCK, buf, BLOCK_SIZE);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Both directories tell the same, settled state, without an owner: one of this generation, one of
 * the next, as after an unmount. */
static int
add_directories(struct snapshot *sn, struct store *s, struct directory *dir)
{
    dir->clean = true;
    dir->resealing = false;
    dir->owner = (struct owner_mark){0};
    for (unsigned i = 0; i < 2; i++) {
        uint64_t len = directory_size(dir);
        uint8_t *buf = dev_alloc(len);
        int r;

        if (!buf)
            return -ENOMEM;
        add_extent(sn, s->sb.dir_off[i], len, buf);
        dir->index = (uint8_t)i;
        dir->generation = s->dir.generation + i;
        directory_encode(dir, s->sb.uuid, buf);
        r = format_seal(s->sealer, SEAL_DIRECTORY, buf, len);
        if (r < 0)
            return r;
    }
    return 0;
}

static int
add_bank(struct snapshot *sn, struct store *s, const struct content *c)
{
    uint8_t *raw;
    int r;

    if (c->generation == 0)
        return 0;
    r = bank_load(reading(s), s->sealer, &s->sb, c, &raw);
    if (r == 0)
        add_extent(sn, superblock_bank_offset(&s->sb, c->slot, c->bank),
                   BANK_HEADER + bank_padded(c->length), raw);
    return r;
}

/* Contents, and those before as far as they are whole. */
static int
add_banks(struct snapshot *sn, struct store *s, struct directory *dir)
{
    for (uint32_t i = dir->n_entries; i-- > 0;) {
        struct entry *e = &dir->entries[i];
        int r = add_bank(sn, s, &e->current);

        if (r < 0)
            return r;
        r = add_bank(sn, s, &e->previous);
        if (r == 0)
            continue;
        if (r == -ENOMEM)
            return r;
        e->previous = (struct content){0};
        if (e->kind == ENTRY_TOMBSTONE) {
            *e = dir->entries[dir->n_entries - 1];
            dir->n_entries--;
        }
    }
    return 0;
}

static int
extent_order(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;

    return x->off < y->off ? -1 : x->off > y->off;
}

static int
take(struct store *s, struct snapshot **out)
{
    AUTO(putp) struct snapshot *sn = calloc(1, sizeof(*sn));
    AUTO(directory_fini) struct directory dir = {0};
    int r;

    if (!sn)
        return -ENOMEM;
    atomic_init(&sn->refs, 1);
    sn->size = s->sb.image_size;
    sn->generation = s->dir.generation;
    r = directory_copy(&dir, &s->dir);
    if (r < 0)
        return r;
    sn->extents = calloc(4 + 2 * (size_t)dir.n_entries, sizeof sn->extents[0]);
    if (!sn->extents)
        return -ENOMEM;
    r = add_superblocks(sn, s);
    if (r == 0)
        r = add_banks(sn, s, &dir);
    if (r == 0)
        r = add_directories(sn, s, &dir);
    if (r < 0)
        return r;
    qsort(sn->extents, sn->n, sizeof sn->extents[0], extent_order);
    *out = steal(&sn);
    return 0;
}

int
snapshot_locked(struct store *s, struct snapshot **out)
{
    if (s->snapshot && s->snapshot->generation != s->dir.generation) {
        snapshot_put(s->snapshot);
        s->snapshot = NULL;
    }
    if (!s->snapshot) {
        int r = take(s, &s->snapshot);

        if (r < 0)
            return r;
    }
    atomic_fetch_add(&s->snapshot->refs, 1);
    *out = s->snapshot;
    return 0;
}

int
store_snapshot(struct store *s, struct snapshot **out)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);

    (void)held;
    return snapshot_locked(s, out);
}

uint64_t
snapshot_size(const struct snapshot *sn)
{
    return sn->size;
}

uint64_t
snapshot_generation(const struct snapshot *sn)
{
    return sn->generation;
}

int
snapshot_pread(const struct snapshot *sn, void *buf, size_t n, uint64_t off)
{
    uint8_t *out = buf;

    if (off > sn->size || n > sn->size - off)
        return -EINVAL;
    memset(buf, 0, n);
    for (size_t i = 0; i < sn->n; i++) {
        const struct extent *x = &sn->extents[i];
        uint64_t from = x->off > off ? x->off : off;
        uint64_t to = x->off + x->len < off + n ? x->off + x->len : off + n;

        if (from < to)
            memcpy(out + (from - off), x->buf + (from - x->off), to - from);
    }
    return 0;
}
