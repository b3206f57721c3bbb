/* SPDX-License-Identifier: BSD-3-Clause */
/* The anchor: its records, and a model of crashes of image and anchor together.
 *
 * Both lie on device doubles (faultdev.h).  Before each flush of either, every state that a power
 * cut or the death of the daemon could leave is opened with its anchor: it must be accepted, show
 * what was acknowledged or what was being committed, and every image that was acknowledged earlier,
 * put in its place, must be refused.  From each of these states further commits crash again. */
#include "base/report.h"
#include "base/scope.h"
#include "core/anchor.h"
#include "core/store.h"
#include "tests/faultdev.h"
#include "tests/testimage.h"
#include "tests/testseal.h"
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LEVELS = 2, HISTORY = 16, MAX_PENDING = 24, ALL_SUBSETS = 6 };

enum op { WRITE, RESEAL, KEYSLOTS, SETTLE };

static struct {
    const uint64_t *key;  /* NULL: not sealed */
    unsigned long states; /* crash states opened */
    unsigned long refused;
    struct dev *older[HISTORY]; /* images as they were at earlier acknowledgements, or at crashes */
    unsigned n_older;
    int levels; /* crashes in a row: LEVELS, or fewer where time is short */
} run = {.levels = LEVELS};

/* What may be shown: the acknowledged value of the file, or the one being committed. */
struct watch {
    struct dev *image, *anchor;
    uint32_t acked, tried;
    int level;
};

/* ---- image and anchor ---------------------------------------------------------------------------
 */

static struct dev *
new_image(uint8_t uuid)
{
    const struct slot_class class = {2, BLOCK_SIZE};
    struct format_spec spec = {.classes = &class, .n_classes = 1, .uuid = {uuid}};

    if (run.key)
        testimage_seal(&spec, 1000, *run.key);
    return testimage_new(&spec, 1000, 0);
}

/* An open image with its anchor. */
struct mount {
    struct store *store;
    struct anchor *anchor;
};

/* Takes over both devices. */
static int
mount_open(struct mount *m, struct dev *image, struct dev *anchor, bool create, bool accept)
{
    struct store_options opt = {
        .unlock = testseal_unlock,
        .unlock_arg = (void *)(uintptr_t)run.key,
        .accept_rollback = accept,
    };
    int r;

    *m = (struct mount){0};
    if (anchor) {
        r = anchor_open(&m->anchor, anchor, create);
        if (r < 0) {
            dev_close(anchor);
            dev_close(image);
            return r;
        }
    }
    opt.anchor = m->anchor;
    r = store_open(&m->store, image, &opt);
    if (r < 0) {
        dev_close(image);
        anchor_close(m->anchor);
        *m = (struct mount){0};
    }
    return r;
}

static void
mount_close(struct mount *m)
{
    store_close(m->store);
    anchor_close(m->anchor);
    *m = (struct mount){0};
}

static int
put_value(struct store *s, uint32_t value)
{
    return testimage_put(s, "a", &value, sizeof value, NULL);
}

static uint32_t
get_value(struct store *s)
{
    struct entry e;
    uint32_t value;

    if (store_find(s, "a", &e) < 0)
        return 0;
    assert_int_equal(e.current.length, sizeof value);
    assert_int_equal(store_read(s, &e.current, &value), 0);
    return value;
}

static int
perform(struct store *s, enum op op, uint32_t value)
{
    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE];
    struct sealer *sealer;
    int r;

    switch (op) {
    case WRITE:
        return put_value(s, value);
    case SETTLE:
        return store_settle(s);
    case KEYSLOTS:
        memcpy(keyslots, store_superblock(s)->keyslots, sizeof keyslots);
        keyslots[1][0]++;
        return store_set_keyslots(s, keyslots);
    case RESEAL:
        testseal_keyslots(2000 + value, *run.key, keyslots);
        sealer = testseal_keyed(2000 + value);
        r = store_reseal(s, sealer, keyslots, 32);
        if (r < 0)
            sealer_free(sealer);
        return r;
    }
    return -EINVAL;
}

/* ---- judging ------------------------------------------------------------------------------------
 */

static void watch(struct watch *w, struct dev *image, struct dev *anchor);

static void
remember(const struct dev *image)
{
    assert_true(run.n_older < HISTORY);
    run.older[run.n_older++] = faultdev_fork(image);
}

static void
forget(unsigned to)
{
    while (run.n_older > to)
        dev_close(run.older[--run.n_older]);
}

/* Every image of the remembered ones from @first up to @end is older than what @anchor knows. */
static void
refuse_older(const struct dev *anchor, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++) {
        struct mount m;
        int r = mount_open(&m, faultdev_fork(run.older[i]), faultdev_fork(anchor), false, false);

        if (r != -ESTALE)
            fail_msg("image %u of %u was not refused as rolled back: %d", i, end, r);
        run.refused++;
    }
}

/* A crash has left @image and @anchor, which are taken over. */
static void
judge(const struct watch *before, struct dev *image, struct dev *anchor)
{
    struct watch w = {.acked = before->acked, .tried = before->tried, .level = before->level + 1};
    unsigned known = run.n_older;
    struct dev *crashed_image = faultdev_fork(image);
    struct mount m;
    uint32_t shown;
    int r;

    run.states++;
    if (before->level == 0 || run.states % 32 == 0)
        refuse_older(anchor, 0, known - 1); /* the last one is what was acknowledged */
    watch(&w, image, anchor);
    r = mount_open(&m, image, anchor, false, false);
    if (r < 0)
        fail_msg("a crash is taken for a rollback: %d (level %d, %" PRIu32 " acknowledged)", r,
                 before->level, before->acked);
    shown = get_value(m.store);
    if (shown != before->acked && shown != before->tried)
        fail_msg("%" PRIu32 " is shown, not %" PRIu32 " or %" PRIu32, shown, before->acked,
                 before->tried);
    w.acked = shown;
    for (uint32_t i = 1; i <= 2; i++) {
        w.tried = shown + 1000 * i;
        assert_int_equal(put_value(m.store, w.tried), 0);
        w.acked = w.tried;
    }
    assert_int_equal(store_settle(m.store), 0);
    /* What the crash left is two commits behind now, and so is all that was remembered. */
    remember(crashed_image);
    refuse_older(anchor, before->level == 0 ? 0 : known, run.n_older);
    forget(known);
    dev_close(crashed_image);
    mount_close(&m);
}

/* ---- crashing -----------------------------------------------------------------------------------
 */

/* Masks to try for @n pending writes: each whole or lost in all combinations, as far as these are
 * few, and one torn at each sector. */
static bool
next_masks(uint8_t *masks, size_t n, unsigned long i)
{
    unsigned long subsets = n <= ALL_SUBSETS ? 1UL << n : 2 * n;
    unsigned long tears = n * (SECTORS - 1);

    if (i < subsets) {
        for (size_t k = 0; k < n; k++)
            masks[k] = (n <= ALL_SUBSETS ? i >> k & 1 : (i / 2 == k) == (i % 2)) ? WHOLE : 0;
        return true;
    }
    i -= subsets;
    if (i >= tears)
        return false;
    memset(masks, WHOLE, n);
    masks[i / (SECTORS - 1)] = (uint8_t)((1 << (i % (SECTORS - 1) + 1)) - 1);
    return true;
}

static void
crash(struct watch *w, bool of_image)
{
    struct dev *hit = of_image ? w->image : w->anchor, *other = of_image ? w->anchor : w->image;
    size_t n = faultdev_pending(hit);
    uint8_t masks[MAX_PENDING];

    if (w->level >= run.levels || n == 0)
        return;
    assert_true(n <= MAX_PENDING);
    for (unsigned long i = 0; next_masks(masks, n, i); i++) {
        struct dev *left = faultdev_cut(hit, masks), *beside = faultdev_cut(other, NULL);

        judge(w, of_image ? left : beside, of_image ? beside : left);
    }
    for (size_t i = 0; i <= n; i++) {
        struct dev *left = faultdev_kill(hit, i), *beside = faultdev_fork(other);

        judge(w, of_image ? left : beside, of_image ? beside : left);
    }
}

static void
on_image_flush(void *arg, const struct dev *d)
{
    (void)d;
    crash(arg, true);
}

static void
on_anchor_flush(void *arg, const struct dev *d)
{
    struct watch *w = arg;

    if (faultdev_pending(d) == 0)
        return;
    /* The image is flushed before its anchor is moved, or the anchor could be ahead. */
    assert_int_equal(faultdev_pending(w->image), 0);
    crash(w, false);
}

static void
watch(struct watch *w, struct dev *image, struct dev *anchor)
{
    w->image = image;
    w->anchor = anchor;
    faultdev_watch(image, on_image_flush, w);
    faultdev_watch(anchor, on_anchor_flush, w);
}

/* Runs @ops, each crashed at each of its flushes. */
static void
crash_all(const enum op *ops, unsigned n)
{
    struct dev *image = new_image(1), *anchor = faultdev_new(ANCHOR_SIZE);
    struct watch w = {0};
    struct mount m;

    assert_int_equal(mount_open(&m, image, anchor, true, false), 0);
    remember(image);
    watch(&w, image, anchor);
    for (unsigned i = 0; i < n; i++) {
        w.tried = ops[i] == WRITE ? i + 1 : w.acked;
        assert_int_equal(perform(m.store, ops[i], i + 1), 0);
        w.acked = w.tried;
        remember(image);
    }
    assert_int_equal(get_value(m.store), w.acked);
    mount_close(&m);
    forget(0);
}

static void
every_crash_is_told_from_a_rollback(void **state)
{
    static const enum op ops[] = {WRITE, WRITE, SETTLE, WRITE};

    (void)state;
    run.key = NULL;
    crash_all(ops, sizeof ops / sizeof ops[0]);
}

static void
so_is_every_crash_of_a_sealed_image(void **state)
{
    static const uint64_t key = 42;
    static const enum op ops[] = {WRITE, KEYSLOTS, WRITE, RESEAL, WRITE};

    (void)state;
    run.key = &key;
    crash_all(ops, sizeof ops / sizeof ops[0]);
    run.key = NULL;
}

/* ---- one by one ---------------------------------------------------------------------------------
 */

/* An image with its anchor, after @n commits. */
static void
begin(struct mount *m, struct dev **image, struct dev **anchor, uint32_t n)
{
    *image = new_image(1);
    *anchor = faultdev_new(ANCHOR_SIZE);
    assert_int_equal(mount_open(m, *image, *anchor, true, false), 0);
    for (uint32_t i = 1; i <= n; i++)
        assert_int_equal(put_value(m->store, i), 0);
}

static void
an_anchor_costs_one_flush_and_one_write_a_commit(void **state)
{
    struct dev *image, *anchor;
    struct mount m;
    unsigned long flushes, writes;

    (void)state;
    begin(&m, &image, &anchor, 1);
    flushes = faultdev_count(anchor, FAULT_SYNC);
    writes = faultdev_count(anchor, FAULT_WRITE);
    assert_int_equal(put_value(m.store, 2), 0);
    assert_int_equal(faultdev_count(anchor, FAULT_SYNC), flushes + 1);
    assert_int_equal(faultdev_count(anchor, FAULT_WRITE), writes + 1);
    mount_close(&m);
}

/* Copies of one image that both went on, the second as much, less or more. */
static void
a_fork_is_refused(void **state)
{
    for (uint32_t commits = 1; commits <= 4; commits++) {
        struct dev *image, *anchor, *fork;
        struct mount m, other;

        begin(&m, &image, &anchor, 2);
        fork = faultdev_fork(image);
        for (uint32_t i = 0; i < 2; i++)
            assert_int_equal(put_value(m.store, 10 + i), 0);
        assert_int_equal(mount_open(&other, fork, NULL, false, false), 0);
        for (uint32_t i = 0; i < commits; i++)
            assert_int_equal(put_value(other.store, 20 + i), 0);
        fork = faultdev_fork(fork);
        mount_close(&other);
        anchor = faultdev_fork(anchor);
        mount_close(&m);
        assert_int_equal(mount_open(&m, fork, anchor, false, false), -ESTALE);
    }
    (void)state;
}

static void
another_image_is_refused(void **state)
{
    struct dev *image, *anchor;
    struct mount m;

    (void)state;
    begin(&m, &image, &anchor, 1);
    anchor = faultdev_fork(anchor);
    mount_close(&m);
    assert_int_equal(mount_open(&m, new_image(2), anchor, false, false), -ESTALE);
}

static void
an_accepted_rollback_moves_the_anchor(void **state)
{
    struct dev *image, *anchor, *old, *newest;
    struct mount m;
    struct store_info info;

    (void)state;
    begin(&m, &image, &anchor, 2);
    old = faultdev_fork(image);
    assert_int_equal(put_value(m.store, 3), 0);
    assert_int_equal(put_value(m.store, 4), 0);
    store_get_info(m.store, &info);
    newest = faultdev_fork(image);
    anchor = faultdev_fork(anchor);
    mount_close(&m);

    assert_int_equal(mount_open(&m, old, anchor, false, true), 0);
    assert_int_equal(get_value(m.store), 2);
    assert_int_equal(put_value(m.store, 5), 0);
    assert_true(anchor_get(m.anchor)->generation > info.generation); /* no number twice */
    anchor = faultdev_fork(anchor);
    old = faultdev_fork(old);
    mount_close(&m);

    assert_int_equal(mount_open(&m, newest, faultdev_fork(anchor), false, false), -ESTALE);
    assert_int_equal(mount_open(&m, old, anchor, false, false), 0);
    assert_int_equal(get_value(m.store), 5);
    mount_close(&m);
}

/* ---- hand-over, by a daemon that accepts a rollback ---- */

static struct dev_ops moving_ops;

static int
take_at_once(struct dev *d, unsigned wait_ms)
{
    (void)wait_ms;
    d->read_only = false;
    return 0;
}

static void
release_nothing(struct dev *d)
{
    (void)d;
}

/* A fork of @d that store_take() can take. */
static struct dev *
moving_fork(const struct dev *d)
{
    struct dev *fork = faultdev_fork(d);

    moving_ops = *fork->ops;
    moving_ops.take = take_at_once;
    moving_ops.release = release_nothing;
    fork->ops = &moving_ops;
    return fork;
}

/* What another daemon has made of it meanwhile. */
static void
become(struct dev *d, const struct dev *other)
{
    _Alignas(BLOCK_SIZE) uint8_t block[BLOCK_SIZE];

    for (uint64_t off = 0; off < d->size; off += sizeof block) {
        faultdev_peek(other, block, sizeof block, off);
        assert_int_equal(dev_pwrite(d, block, sizeof block, off), 0);
    }
}

static void
a_rollback_is_accepted_once(void **state)
{
    struct store_options opt = {
        .unlock = testseal_unlock, .incoming = true, .accept_rollback = true};
    struct dev *image, *anchor, *old, *newer;
    struct mount m, other;

    (void)state;
    begin(&other, &image, &anchor, 2);
    old = moving_fork(image);
    assert_int_equal(put_value(other.store, 3), 0);
    anchor = moving_fork(anchor);
    mount_close(&other);

    assert_int_equal(anchor_open(&m.anchor, anchor, false), 0);
    opt.anchor = m.anchor;
    assert_int_equal(store_open(&m.store, old, &opt), 0);
    assert_int_equal(store_take(m.store, 0), 0);
    assert_int_equal(get_value(m.store), 2);
    assert_int_equal(store_release(m.store, true), 0);

    image = faultdev_fork(old);
    newer = faultdev_fork(anchor);
    assert_int_equal(mount_open(&other, image, newer, false, false), 0);
    assert_int_equal(put_value(other.store, 4), 0);
    become(old, image);
    assert_int_equal(put_value(other.store, 5), 0);
    become(anchor, newer);
    mount_close(&other);
    assert_int_equal(store_take(m.store, 0), -ESTALE);
    mount_close(&m);
}

/* Fallback by one generation is for commits that were not acknowledged, and the anchor knows. */
static void
an_acknowledged_commit_that_is_damaged_is_not_fallen_back_from(void **state)
{
    for (int what = 0; what < 2; what++) {
        struct dev *image, *anchor, *without;
        struct mount m;
        struct entry e;
        uint64_t at;

        begin(&m, &image, &anchor, 3);
        assert_int_equal(store_find(m.store, "a", &e), 0);
        at = what == 0 ? superblock_bank_offset(store_superblock(m.store), e.current.slot,
                                                e.current.bank) +
                             BANK_HEADER
                       : store_superblock(m.store)->dir_off[anchor_get(m.anchor)->generation % 2];
        image = faultdev_fork(image);
        anchor = faultdev_fork(anchor);
        if (what == 1) { /* which of the two it is */
            uint8_t block[BLOCK_SIZE];
            struct directory_claim claim;

            faultdev_peek(image, block, sizeof block, at);
            directory_claim(block, &claim);
            if (claim.generation != anchor_get(m.anchor)->generation)
                at = store_superblock(m.store)->dir_off[1 - anchor_get(m.anchor)->generation % 2];
        }
        mount_close(&m);
        faultdev_poke(image, "scribble", 8, at + 100);
        without = faultdev_fork(image);
        assert_int_equal(mount_open(&m, without, NULL, false, false), 0);
        assert_int_equal(get_value(m.store), 2);
        mount_close(&m);
        assert_int_equal(mount_open(&m, image, anchor, false, false),
                         what == 0 ? -EUCLEAN : -ESTALE);
    }
    (void)state;
}

static void
a_failed_anchor_makes_the_store_read_only(void **state)
{
    static const enum fault_op ops[] = {FAULT_WRITE, FAULT_SYNC};

    for (int i = 0; i < 2; i++) {
        struct dev *image, *anchor;
        struct anchor *left;
        struct mount m;
        struct store_info info;

        begin(&m, &image, &anchor, 2);
        faultdev_fail(anchor, ops[i], 0, -EIO, NULL);
        assert_int_equal(put_value(m.store, 3), -EIO);
        assert_int_equal(put_value(m.store, 4), -EROFS);
        store_get_info(m.store, &info);
        assert_int_equal(info.read_only, -EIO);
        /* what a failed flush left in the cache is on no medium */
        assert_int_equal(anchor_open(&left, faultdev_fork(anchor), false), 0);
        assert_true(anchor_get(left)->generation < info.generation);
        anchor_close(left);
        image = faultdev_fork(image);
        anchor = faultdev_fork(anchor);
        mount_close(&m);
        assert_int_equal(mount_open(&m, image, anchor, false, false), 0);
        assert_int_equal(get_value(m.store), 3); /* flushed, though not acknowledged */
        mount_close(&m);
    }
    (void)state;
}

static int
open_anchor(struct dev *d, bool create)
{
    struct anchor *a;
    int r = anchor_open(&a, d, create);

    if (r < 0)
        dev_close(d);
    else
        anchor_close(a);
    return r;
}

static void
blank_and_damaged_are_never_taken_for_new(void **state)
{
    struct dev *image, *anchor, *d;
    struct mount m;

    (void)state;
    assert_int_equal(open_anchor(faultdev_new(ANCHOR_SIZE), false), -EUCLEAN);
    assert_int_equal(open_anchor(faultdev_new(BLOCK_SIZE), true), -EUCLEAN);
    begin(&m, &image, &anchor, 3);
    anchor = faultdev_fork(anchor);
    mount_close(&m);
    assert_int_equal(open_anchor(faultdev_fork(anchor), true), -EEXIST);
    d = faultdev_fork(anchor);
    faultdev_spoil(d, 100);
    assert_int_equal(open_anchor(faultdev_fork(d), false), 0); /* the other record is whole */
    faultdev_spoil(d, BLOCK_SIZE + 100);
    assert_int_equal(open_anchor(faultdev_fork(d), false), -EUCLEAN);
    assert_int_equal(open_anchor(d, true), -EEXIST);
    dev_close(anchor);
}

/* Every bit of a record is covered. */
static void
every_flipped_bit_of_a_record_is_found(void **state)
{
    struct dev *image, *anchor;
    struct mount m;
    uint64_t generation;

    (void)state;
    begin(&m, &image, &anchor, 4);
    generation = anchor_get(m.anchor)->generation;
    anchor = faultdev_fork(anchor);
    mount_close(&m);
    for (unsigned bit = 0; bit < 8 * 128; bit++) {
        struct dev *d = faultdev_fork(anchor);
        struct anchor *a;
        uint8_t byte;

        for (unsigned i = 0; i < 2; i++) {
            faultdev_peek(d, &byte, 1, i * BLOCK_SIZE + bit / 8);
            byte ^= (uint8_t)(1U << bit % 8);
            faultdev_poke(d, &byte, 1, i * BLOCK_SIZE + bit / 8);
        }
        assert_int_equal(open_anchor(d, false), -EUCLEAN);
        d = faultdev_fork(anchor);
        faultdev_peek(d, &byte, 1, bit / 8);
        byte ^= (uint8_t)(1U << bit % 8);
        faultdev_poke(d, &byte, 1, bit / 8);
        assert_int_equal(anchor_open(&a, d, false), 0);
        assert_true(anchor_get(a)->generation >= generation - 1);
        anchor_close(a);
    }
    dev_close(anchor);
}

/* Says @value (of @size bytes) at @off in both records of a good anchor; its checksum is right. */
static int
open_with(const struct dev *good, size_t off, uint64_t value, size_t size)
{
    struct dev *d = faultdev_fork(good);
    _Alignas(BLOCK_SIZE) uint8_t block[BLOCK_SIZE];

    for (unsigned i = 0; i < 2; i++) {
        faultdev_peek(d, block, sizeof block, i * BLOCK_SIZE);
        for (size_t k = 0; k < size; k++)
            block[off + k] = (uint8_t)(value >> 8 * k);
        format_set_crc(block, sizeof block);
        faultdev_poke(d, block, sizeof block, i * BLOCK_SIZE);
    }
    return open_anchor(d, false);
}

/* doc/format.md, section 9 */
static void
each_field_of_a_record_is_checked(void **state)
{
    struct dev *image, *anchor;
    struct mount m;

    (void)state;
    begin(&m, &image, &anchor, 4);
    anchor = faultdev_fork(anchor);
    mount_close(&m);
    assert_int_equal(open_with(anchor, 12, 1, 4), 0);                /* version */
    assert_int_equal(open_with(anchor, 12, 2, 4), -EPROTONOSUPPORT); /* a newer one */
    assert_int_equal(open_with(anchor, 32, 0, 8), -EUCLEAN);         /* generation */
    assert_int_equal(open_with(anchor, 40, 0, 8), -EUCLEAN);         /* sequence */
    assert_int_equal(open_with(anchor, 80, 1, 1), -EUCLEAN);         /* reserved bytes */
    assert_int_equal(open_with(anchor, BLOCK_SIZE - 1, 1, 1), -EUCLEAN);
    dev_close(anchor);
}

static void
enough_states_were_seen(void **state)
{
    (void)state;
    print_message("%lu crash states accepted, %lu older images refused\n", run.states, run.refused);
    assert_true(run.states >= (run.levels == LEVELS ? 20000 : 500));
    assert_true(run.refused >= (run.levels == LEVELS ? 20000 : 500));
}

static void
swallow(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level, (void)line;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_crash_is_told_from_a_rollback),
        cmocka_unit_test(so_is_every_crash_of_a_sealed_image),
        cmocka_unit_test(an_anchor_costs_one_flush_and_one_write_a_commit),
        cmocka_unit_test(a_fork_is_refused),
        cmocka_unit_test(another_image_is_refused),
        cmocka_unit_test(an_accepted_rollback_moves_the_anchor),
        cmocka_unit_test(a_rollback_is_accepted_once),
        cmocka_unit_test(an_acknowledged_commit_that_is_damaged_is_not_fallen_back_from),
        cmocka_unit_test(a_failed_anchor_makes_the_store_read_only),
        cmocka_unit_test(blank_and_damaged_are_never_taken_for_new),
        cmocka_unit_test(every_flipped_bit_of_a_record_is_found),
        cmocka_unit_test(each_field_of_a_record_is_checked),
        cmocka_unit_test(enough_states_were_seen),
    };

    if (getenv("VNVRAM_QUICK"))
        run.levels = 1;
    report_set_sink(swallow, NULL);
    return cmocka_run_group_tests_name("anchor", tests, NULL, NULL);
}
