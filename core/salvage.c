/* SPDX-License-Identifier: BSD-3-Clause */
/* salvage.c - contents found by their own headers, named by whatever directory can still be read.
 */
#include "core/salvage.h"
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/store_impl.h"
#include <errno.h>
#include <string.h>

/* Of the content that the directory names. */
enum fate { UNSEEN, COUNTED, SAVED };

struct salvage {
    struct dev *d;
    bool have_superblock;
    struct superblock sb;
    struct sealer *sealer; /* NULL: no superblock tells how; only unsealed contents are readable */
    struct directory dir;  /* the newest readable one, or empty */
    enum fate *fates;      /* of its entries */
    salvage_sink *sink;
    void *sink_arg;
    unsigned found, lost;
    uint64_t patience; /* bytes that may still be read in vain */
};

/* Banks do not overlap; but what looks like one, wherever it lies, may be made to. */
enum { PATIENCE = 4 /* times the device */ };

static int
load_superblock(struct salvage *s)
{
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);

    if (!buf)
        return -ENOMEM;
    for (unsigned copy = 0; copy < 2; copy++) {
        struct superblock sb;

        if (superblock_load(s->d, copy, buf, &sb) < 0)
            continue;
        if (!s->have_superblock || sb.sequence > s->sb.sequence)
            s->sb = sb;
        s->have_superblock = true;
    }
    return 0;
}

static void
load_directory(struct salvage *s)
{
    for (unsigned i = 0; i < 2; i++) {
        struct directory dir;
        struct directory_claim claim;

        if (s->sb.dir_off[i] > s->d->size || s->sb.dir_capacity > s->d->size - s->sb.dir_off[i] ||
            directory_load(s->d, s->sealer, &s->sb, i, &dir, &claim) < 0)
            continue;
        if (dir.generation > s->dir.generation) {
            directory_fini(&s->dir);
            s->dir = dir;
        } else {
            directory_fini(&dir);
        }
    }
}

static bool
is_content(const struct content *c, const struct bank_header *h, const uint8_t *raw)
{
    return c->generation == h->generation && c->slot == h->slot && c->bank == h->bank &&
           memcmp(c->digest, raw + BANK_TAG, SEAL_TAG_SIZE) == 0;
}

static void
name_content(const struct salvage *s, const struct bank_header *h, const uint8_t *raw,
             struct salvaged *out)
{
    for (uint32_t i = 0; i < s->dir.n_entries; i++) {
        const struct entry *e = &s->dir.entries[i];

        if (is_content(&e->current, h, raw)) {
            out->role = SALVAGE_CURRENT;
            s->fates[i] = SAVED;
        } else if (is_content(&e->previous, h, raw)) {
            out->role = SALVAGE_PREVIOUS;
        } else {
            continue;
        }
        out->name = e->name;
        return;
    }
}

static void
lose(struct salvage *s, uint64_t off)
{
    s->lost++;
    for (uint32_t i = 0; i < s->dir.n_entries; i++) {
        const struct content *c = &s->dir.entries[i].current;

        if (c->generation != 0 && superblock_bank_offset(&s->sb, c->slot, c->bank) == off)
            s->fates[i] = COUNTED;
    }
}

/* What is named and not there is lost, too: overwritten, or behind the end of what is left. */
static void
count_unsaved(struct salvage *s)
{
    for (uint32_t i = 0; i < s->dir.n_entries; i++) {
        const struct entry *e = &s->dir.entries[i];

        if (e->current.generation == 0 || s->fates[i] == SAVED)
            continue;
        report_at(REPORT_WARNING, 0, "%s: the current content of \"%s\" is not whole any more",
                  s->d->name, e->name);
        if (s->fates[i] == UNSEEN)
            s->lost++;
    }
}

/* Whether a bank that says so of itself can lie at @off. */
static bool
is_at_home(const struct salvage *s, const struct bank_header *h, uint64_t off)
{
    return !s->have_superblock || (h->slot < superblock_slot_count(&s->sb) && h->bank < 2 &&
                                   off == superblock_bank_offset(&s->sb, h->slot, h->bank));
}

/* @raw, from @off, has the right checksum: hand it out if it is ours to read. */
static int
hand_out(struct salvage *s, uint8_t *raw, uint64_t padded, uint64_t off)
{
    struct salvaged out = {.role = SALVAGE_LOOSE};
    struct bank_header h;
    int r = bank_decode(&h, raw, padded);

    if (r == 0 && s->have_superblock && memcmp(h.uuid, s->sb.uuid, UUID_SIZE) != 0)
        return 0; /* left over from an image that was here before */
    if (r == 0 && !is_at_home(s, &h, off))
        return 0;
    if (r == 0 && h.seal_mode != (s->sealer ? s->sb.seal_mode : SEAL_NONE))
        r = -EUCLEAN;
    if (r == 0)
        r = format_verify(s->sealer, SEAL_BANK, raw, BANK_HEADER + padded);
    if (r == 0 && s->sealer)
        r = s->sealer->ops->decrypt(s->sealer, h.iv, raw + BANK_HEADER, padded);
    if (r < 0) {
        lose(s, off);
        return 0;
    }
    out.generation = h.generation;
    out.length = h.length;
    out.slot = h.slot;
    out.bank = h.bank;
    name_content(s, &h, raw, &out);
    r = s->sink(s->sink_arg, &out, raw + BANK_HEADER);
    explicit_bzero(raw + BANK_HEADER, padded);
    s->found++;
    return r;
}

/* The content, of at most @room bytes, of which the header lies at @off, if there is one.
 * *@passed: the bytes behind the header that are its own, if it was handed out. */
static int
salvage_bank(struct salvage *s, uint8_t *block, uint64_t off, uint64_t room, uint64_t *passed)
{
    uint64_t length, generation, padded;
    AUTO_FREE uint8_t *raw = NULL;
    unsigned found = s->found;
    int r;

    *passed = 0;
    if (dev_pread(s->d, block, BLOCK_SIZE, off) < 0 || bank_peek(block, &length, &generation) < 0)
        return 0;
    padded = bank_padded(length);
    if (length > room || padded > s->patience || BANK_HEADER + padded > s->d->size - off) {
        lose(s, off);
        return 0;
    }
    raw = dev_alloc(BANK_HEADER + padded);
    if (!raw)
        return -ENOMEM;
    s->patience -= padded;
    if (dev_pread(s->d, raw, BANK_HEADER + padded, off) < 0 ||
        !format_crc_ok(raw, BANK_HEADER + padded)) {
        lose(s, off);
        return 0;
    }
    r = hand_out(s, raw, padded, off);
    if (s->found > found) {
        *passed = padded;
        s->patience += padded;
    }
    return r;
}

/* A file may hold copies of banks, too: so not where no bank can be. */
static int
salvage_slots(struct salvage *s, uint8_t *block)
{
    uint64_t end = s->d->size / BLOCK_SIZE * BLOCK_SIZE, passed;
    uint32_t n = superblock_slot_count(&s->sb);
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < 2 * n; i++) {
        uint64_t off = superblock_bank_offset(&s->sb, i / 2, i % 2);

        if (off < end)
            r = salvage_bank(s, block, off, superblock_slot_capacity(&s->sb, i / 2), &passed);
    }
    return r;
}

/* Without a superblock banks may be anywhere; one that is whole is passed over, whatever is in it.
 */
static int
salvage_blocks(struct salvage *s, uint8_t *block)
{
    uint64_t end = s->d->size / BLOCK_SIZE * BLOCK_SIZE, passed;
    int r = 0;

    for (uint64_t off = FIRST_DIRECTORY; r == 0 && off < end; off += BLOCK_SIZE + passed)
        r = salvage_bank(s, block, off, MAX_CAPACITY, &passed);
    if (r == 0 && s->patience < s->d->size)
        report_at(REPORT_WARNING, 0,
                  "%s: too much of it looks like contents and is none: not all was looked at",
                  s->d->name);
    return r;
}

static int
salvage_all(struct salvage *s)
{
    AUTO_FREE uint8_t *block = dev_alloc(BLOCK_SIZE);

    if (!block)
        return -ENOMEM;
    s->patience = PATIENCE * s->d->size;
    return s->have_superblock ? salvage_slots(s, block) : salvage_blocks(s, block);
}

int
store_salvage(struct dev *d, store_unlock_fn *unlock, void *arg, salvage_sink *sink, void *sink_arg,
              unsigned *n, unsigned *lost)
{
    struct salvage s = {.d = d, .sink = sink, .sink_arg = sink_arg};
    int r = dev_medium(d, true);

    if (r == 0)
        r = load_superblock(&s);
    if (r == 0 && s.have_superblock) {
        r = unlock(arg, &s.sb, &s.sealer);
        if (r == 0)
            load_directory(&s);
    }
    s.fates = calloc(s.dir.n_entries + 1, sizeof *s.fates);
    if (r == 0)
        r = s.fates ? salvage_all(&s) : -ENOMEM;
    if (r == 0)
        count_unsaved(&s);
    free(s.fates);
    sealer_free(s.sealer);
    directory_fini(&s.dir);
    *n = s.found;
    *lost = s.lost;
    return r;
}
