/* SPDX-License-Identifier: BSD-3-Clause */
/* layout.c - where everything goes in a new image, and writing one. */
#include "base/bytes.h"
#include "base/progress.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/store_impl.h"
#include <errno.h>
#include <string.h>

/* Room for every slot's file and for every bank's tombstone with longest names, twice over for
 * growth. */
enum { LONGEST_RECORD = 440, DIRECTORY_GRAIN = 64 * 1024 };

static uint64_t
round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

bool
slot_class_ok(const struct slot_class *c)
{
    return c->count > 0 && c->count <= MAX_SLOTS && c->capacity > 0 && c->capacity <= MAX_CAPACITY;
}

uint32_t
layout_directory_capacity(uint64_t slots)
{
    return (uint32_t)round_up(2 * 2 * slots * LONGEST_RECORD, DIRECTORY_GRAIN);
}

uint64_t
layout_place_class(struct segment *g, const struct slot_class *class, uint64_t off)
{
    uint64_t run;

    *g = (struct segment){.capacity = (uint32_t)round_up(class->capacity, BLOCK_SIZE),
                          .count = class->count};
    run = g->count * ((uint64_t)BANK_HEADER + g->capacity);
    g->bank_off[0] = off;
    g->bank_off[1] = off + (run > NEIGHBOUR_GAP ? run : NEIGHBOUR_GAP);
    return g->bank_off[1] + run;
}

int
store_layout(struct superblock *sb, const struct format_spec *spec, uint64_t *need)
{
    uint64_t slots = 0, off;

    if (spec->n_classes == 0 || spec->n_classes > MAX_SEGMENTS)
        return -EINVAL;
    for (size_t i = 0; i < spec->n_classes; i++) {
        if (!slot_class_ok(&spec->classes[i]))
            return -EINVAL;
        slots += spec->classes[i].count;
    }
    if (slots > MAX_SLOTS)
        return -EINVAL;
    *sb = (struct superblock){
        .sequence = 1,
        .n_segments = (uint16_t)spec->n_classes,
        .seal_mode = spec->seal_mode,
        .key_size = spec->key_size,
        .key_epoch = spec->seal_mode == SEAL_NONE ? 0 : 1,
    };
    memcpy(sb->uuid, spec->uuid, UUID_SIZE);
    memcpy(sb->keyslots, spec->keyslots, sizeof sb->keyslots);
    sb->dir_capacity = layout_directory_capacity(slots);
    sb->dir_off[0] = FIRST_DIRECTORY;
    sb->dir_off[1] = FIRST_DIRECTORY + sb->dir_capacity;
    off = sb->dir_off[1] + sb->dir_capacity;
    for (size_t i = 0; i < spec->n_classes; i++)
        off = layout_place_class(&sb->segments[i], &spec->classes[i], off);
    if (need)
        *need = off;
    sb->image_size = spec->image_size ? spec->image_size / BLOCK_SIZE * BLOCK_SIZE : off;
    return sb->image_size < off ? -ERANGE : 0;
}

int
zero_range(struct dev *d, uint64_t off, uint64_t len)
{
    static uint8_t zeroes[256 * 1024]
        __attribute__((aligned(BLOCK_SIZE))); /* and never anything else */

    while (len > 0) {
        size_t n = len < sizeof zeroes ? (size_t)len : sizeof zeroes;
        int r = dev_pwrite(d, zeroes, n, off);

        if (r < 0)
            return r;
        progress_add(n);
        off += n;
        len -= n;
    }
    return 0;
}

/* Every place where a structure may be looked for.  Owner records of ours are older than the new
 * image. */
static int
zero_structures(struct dev *d, const struct superblock *sb, bool owned)
{
    const uint64_t behind = OWNER_RECORDS + (owned ? OWNER_RECORD_COUNT * BLOCK_SIZE : 0);
    int r = zero_range(d, 0, OWNER_RECORDS);

    if (r == 0)
        r = zero_range(d, behind, sb->dir_off[1] + sb->dir_capacity - behind);
    for (uint32_t i = 0; r == 0 && i < superblock_slot_count(sb); i++) {
        for (unsigned b = 0; r == 0 && b < 2; b++)
            r = zero_range(d, superblock_bank_offset(sb, i, b),
                           BANK_HEADER + (uint64_t)superblock_slot_capacity(sb, i));
    }
    return r < 0 ? r : dev_sync(d); /* old content is gone before the new image exists */
}

/* A dev_guard_fn. */
static int
format_guard(void *own, struct dev *d)
{
    int r = owner_check(own);

    return r == -EBUSY ? report(r, "%s: another host has taken it over", d->name) : r;
}

/* Before anything else is written, so that whoever owns what is there notices. */
static int
take_to_format(struct ownership **own, struct dev *d, const struct format_spec *spec)
{
    int r;

    if (!owner_is_kept(spec->owner, d))
        return 0;
    *own = owner_new(spec->owner);
    r = *own ? owner_take(*own, d, spec->uuid, true) : -ENOMEM;
    if (r == 0)
        dev_set_guard(d, format_guard, *own);
    return r;
}

static void
free_ownership(struct ownership **own)
{
    owner_free(*own);
}

/* The smallest slot for the promise that none before it has taken. */
static uint32_t
slot_for_promise(const struct superblock *sb, const struct directory *dir, uint64_t size)
{
    uint32_t best = SLOT_NONE;

    for (uint32_t i = 0; i < superblock_slot_count(sb); i++) {
        uint32_t capacity = superblock_slot_capacity(sb, i);
        bool taken = false;

        for (uint32_t k = 0; k < dir->n_entries; k++)
            taken |= dir->entries[k].reserve_slot == i;
        if (taken || capacity < size)
            continue;
        if (best == SLOT_NONE || capacity < superblock_slot_capacity(sb, best))
            best = i;
    }
    return best;
}

static int
add_promises(struct directory *dir, const struct superblock *sb, const struct format_spec *spec)
{
    dir->entries = calloc(spec->n_reservations + 1, sizeof dir->entries[0]);
    if (!dir->entries)
        return -ENOMEM;
    for (size_t i = 0; i < spec->n_reservations; i++) {
        const struct reservation *want = &spec->reservations[i];
        struct entry *e = &dir->entries[i];
        size_t len = strlen(want->name);

        if (!entry_name_ok(want->name, len) || directory_find(dir, want->name) >= 0 ||
            want->size == 0 || want->size > MAX_CAPACITY)
            return report(-EINVAL, "cannot reserve '%s'", want->name);
        *e = (struct entry){.kind = ENTRY_RESERVED,
                            .slot = SLOT_NONE,
                            .reserved = (uint32_t)want->size,
                            .reserve_slot = slot_for_promise(sb, dir, want->size)};
        memcpy(e->name, want->name, len + 1);
        if (e->reserve_slot == SLOT_NONE)
            return report(-ENOSPC, "no slot is left to reserve %llu bytes for '%s'",
                          (unsigned long long)want->size, want->name);
        dir->n_entries++;
    }
    return 0;
}

static int
write_new(struct dev *d, const struct superblock *sb, struct sealer *sealer, struct directory *dir)
{
    int r = 0;

    /* Both directories exist from the start: a missing one is always damage. */
    for (unsigned i = 0; r == 0 && i < 2; i++) {
        dir->index = (uint8_t)i;
        dir->generation = i + 1;
        r = directory_write(d, sealer, sb, dir);
    }
    if (r == 0)
        r = dev_sync(d); /* no superblock before there is something to find */
    for (unsigned copy = 0; r == 0 && copy < 2; copy++)
        r = superblock_write(d, copy, sb, sealer);
    return r < 0 ? r : dev_sync(d);
}

int
store_format(struct dev *d, const struct format_spec *spec, struct sealer *sealer)
{
    AUTO(directory_fini)
    struct directory dir = {.next_id = 1, .superblock_sequence = 1, .clean = true};
    AUTO(free_ownership) struct ownership *own = NULL;
    AUTO_PROGRESS bool shown = progress_started("formatting", 0);
    struct superblock sb;
    struct timespec now;
    bool blank;
    int r = store_layout(&sb, spec, NULL);

    clock_gettime(CLOCK_REALTIME, &now);
    if (r == 0 && sb.image_size > d->size)
        r = -ERANGE;
    if (r == 0)
        r = add_promises(&dir, &sb, spec);
    if (r < 0)
        return r;
    sb.created = dir.committed = now.tv_sec;
    dir.root = spec->root;
    dir.key_epoch = sb.key_epoch;
    /* Zeroes over zeroes would show nothing new: holes of a new sparse file stay holes. */
    blank = store_probe(d) == -ENODATA;
    r = take_to_format(&own, d, spec);
    if (r == 0 && !blank)
        r = zero_structures(d, &sb, own != NULL);
    if (r == 0)
        r = write_new(d, &sb, sealer, &dir);
    dev_set_guard(d, NULL, NULL);
    if (r == 0 && own)
        r = owner_release(own);
    dev_set_witness(d, NULL, NULL, NULL);
    return r;
}
