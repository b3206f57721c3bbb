/* SPDX-License-Identifier: BSD-3-Clause */
/* Growth of an image: where the new slots go, and power cuts over it, sealed and not, with
 * directories that stay and with such that move, with an anchor and without.  Whatever is left
 * opens, shows the same files, has the slots of before or of after, and nothing half of either. */
#include "base/report.h"
#include "base/scope.h"
#include "core/check.h"
#include "tests/faultdev.h"
#include "tests/sealedimage.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ALL_SUBSETS = 6, MAX_PENDING = 512, SPARE = 2 * 1024 * 1024 };

static const char key_text[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/* Which image, and how it grows. */
struct plan {
    const char *name;
    bool sealed, anchored;
    struct slot_class first[2], more[2];
    size_t n_more;
    bool moves;  /* the directories */
    bool spoilt; /* superblock A is unreadable before */
};

static const struct plan plans[] = {
    {"plain", false, false, {{2, 4096}, {2, 8192}}, {{1, 16384}, {2, 4096}}, 2, false, false},
    {"sealed", true, false, {{2, 4096}, {2, 8192}}, {{1, 16384}, {2, 4096}}, 2, false, false},
    {"plain, moved", false, false, {{33, 4096}, {4, 8192}}, {{1, 12288}}, 1, true, false},
    {"sealed, moved", true, false, {{33, 4096}, {4, 8192}}, {{1, 12288}}, 1, true, false},
    {"plain, anchored", false, true, {{2, 4096}, {2, 8192}}, {{1, 16384}}, 1, false, false},
    {"spoilt, moved", false, false, {{33, 4096}, {4, 8192}}, {{1, 12288}}, 1, true, true},
    {"sealed, anchored, moved", true, true, {{33, 4096}, {4, 8192}}, {{1, 12288}}, 1, true, false},
};

enum { N_PLANS = sizeof plans / sizeof plans[0] };

static struct key_options no_key = KEY_OPTIONS_INIT, key;

static struct key_options *
key_for(const struct plan *p)
{
    return p->sealed ? &key : &no_key;
}

/* ---- images ------------------------------------------------------------------------------------
 */

/* An open image; it and its anchor belong to this. */
struct opened {
    struct store *store;
    struct anchor *anchor;
};

static void
close_opened(struct opened *o)
{
    store_close(o->store);
    anchor_close(o->anchor);
    *o = (struct opened){0};
}

struct pair {
    struct dev *image, *anchor; /* .anchor NULL: none */
};

/* Takes both devices over. */
static int
open_with(struct opened *o, const struct plan *p, struct pair pair, bool repair)
{
    struct store_options opt = {.unlock = keys_unlock, .unlock_arg = key_for(p), .repair = repair};
    int r;

    *o = (struct opened){0};
    if (pair.anchor)
        assert_int_equal(anchor_open(&o->anchor, pair.anchor, false), 0);
    opt.anchor = o->anchor;
    r = store_open(&o->store, pair.image, &opt);
    if (r < 0) {
        dev_close(pair.image);
        anchor_close(o->anchor);
        o->anchor = NULL;
    }
    return r;
}

static struct pair
fork_pair(const struct pair *p)
{
    return (struct pair){faultdev_fork(p->image), p->anchor ? faultdev_fork(p->anchor) : NULL};
}

static void
free_pair(struct pair *p)
{
    dev_close(p->image);
    dev_close(p->anchor);
}

static void
open_must(struct opened *o, const struct plan *p, struct pair pair)
{
    assert_int_equal(open_with(o, p, pair, false), 0);
}

static void
format_plain(struct dev *d, const struct format_spec *spec)
{
    assert_int_equal(store_format(d, spec, sealer_plain()), 0);
}

/* What lies behind the image is not blank: it may be the rest of anything, a bank of this very
 * image even. */
static void
soil(struct dev *d, uint64_t from, uint64_t bank_at)
{
    AUTO_FREE uint8_t *bank = dev_alloc(2 * BLOCK_SIZE);

    faultdev_peek(d, bank, 2 * BLOCK_SIZE, bank_at);
    for (uint64_t off = from; off + 2 * BLOCK_SIZE <= d->size; off += 2 * BLOCK_SIZE)
        faultdev_poke(d, bank, 2 * BLOCK_SIZE, off);
}

static struct pair
make_image(const struct plan *p)
{
    struct format_spec spec = {.classes = p->first, .n_classes = 2, .uuid = "uuid of an image"};
    struct store_options opt = {.unlock = keys_unlock, .unlock_arg = key_for(p)};
    struct superblock sb;
    struct pair made, kept = {0};
    struct opened o = {0};
    struct entry e;

    assert_int_equal(store_layout(&sb, &spec, NULL), 0);
    made.image = faultdev_new(sb.image_size + SPARE);
    made.anchor = faultdev_new(ANCHOR_SIZE);
    if (p->sealed)
        format_sealed(made.image, &spec, &key);
    else
        format_plain(made.image, &spec);
    if (p->anchored)
        assert_int_equal(anchor_open(&o.anchor, made.anchor, true), 0);
    opt.anchor = o.anchor;
    assert_int_equal(store_open(&o.store, made.image, &opt), 0);
    put_file(o.store, "alpha", 3000, 1);
    put_file(o.store, "alpha", 3100, 2);
    put_file(o.store, "beta", 6000, 3);
    put_file(o.store, "gone", 100, 4);
    unlink_file(o.store, "gone");
    assert_int_equal(store_find(o.store, "alpha", &e), 0);
    kept.image = faultdev_fork(made.image);
    if (p->anchored)
        kept.anchor = faultdev_fork(made.anchor);
    else
        dev_close(made.anchor);
    close_opened(&o);
    if (p->spoilt)
        faultdev_poke(kept.image, "spoilt", 6, SUPERBLOCK_A + 100);
    soil(kept.image, sb.image_size, superblock_bank_offset(&sb, e.slot, e.current.bank));
    return kept;
}

static uint32_t
count_of(const struct slot_class *classes, size_t n)
{
    uint32_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += classes[i].count;
    return count;
}

/* ---- what is left ------------------------------------------------------------------------------
 */

static void
note_finding(void *arg, int r, const char *where, const char *text)
{
    (void)arg;
    if (r < 0)
        fail_msg("%s: %s", where, text);
}

static void
checks_well(const struct dev *d, const struct plan *p)
{
    AUTO(dev_closep) struct dev *fork = faultdev_fork(d);
    struct check_result res;

    assert_int_equal(check_image(fork, keys_unlock, key_for(p), note_finding, NULL, &res), 0);
    assert_true(res.authenticated || !p->sealed);
}

/* Whether a block at @off is of an area of @sb's. */
static bool
in_area(const struct superblock *sb, uint64_t off)
{
    for (unsigned i = 0; i < 2; i++) {
        if (off >= sb->dir_off[i] && off - sb->dir_off[i] < sb->dir_capacity)
            return true;
    }
    for (unsigned i = 0; i < sb->n_segments; i++) {
        const struct segment *g = &sb->segments[i];
        uint64_t len = g->count * (uint64_t)(BANK_HEADER + g->capacity);

        if ((off >= g->bank_off[0] && off - g->bank_off[0] < len) ||
            (off >= g->bank_off[1] && off - g->bank_off[1] < len))
            return true;
    }
    return false;
}

/* Both superblocks are the new one, nothing is left of directories elsewhere, and the new slots are
 * blank. */
static void
is_all_new(const struct dev *d, const struct superblock *sb, uint32_t old_slots)
{
    uint8_t a[BLOCK_SIZE], b[BLOCK_SIZE];
    uint64_t length, generation;

    faultdev_peek(d, a, sizeof a, SUPERBLOCK_A);
    faultdev_peek(d, b, sizeof b, SUPERBLOCK_B);
    assert_memory_equal(a, b, sizeof a);
    for (uint64_t off = FIRST_DIRECTORY; off < d->size; off += BLOCK_SIZE) {
        if (in_area(sb, off))
            continue;
        faultdev_peek(d, a, sizeof a, off);
        assert_true(!format_has_magic(a) || bank_peek(a, &length, &generation) == 0);
    }
    for (uint32_t slot = old_slots; slot < superblock_slot_count(sb); slot++) {
        for (unsigned bank = 0; bank < 2; bank++) {
            for (uint64_t at = 0; at < BANK_HEADER + superblock_slot_capacity(sb, slot);
                 at += BLOCK_SIZE) {
                faultdev_peek(d, a, sizeof a, superblock_bank_offset(sb, slot, bank) + at);
                assert_false(format_has_magic(a));
            }
        }
    }
}

/* ---- cutting -----------------------------------------------------------------------------------
 */

struct run {
    const struct plan *plan;
    struct pair pair; /* what is being watched */
    struct state files;
    uint32_t old_slots, new_slots;
    unsigned long states, old, new;
};

/* Takes @left over. */
static void
judge(struct run *run, struct pair left, bool acknowledged)
{
    AUTO(free_pair) struct pair seen = left;
    AUTO(close_opened) struct opened o = {0};
    struct pair fork = fork_pair(&seen);
    struct dev *image = fork.image;
    struct store_info info;
    struct state st;

    if (open_with(&o, run->plan, fork, true) < 0)
        fail_msg("%s: state %lu does not open", run->plan->name, run->states);
    store_get_info(o.store, &info);
    run->states++;
    run->old += info.slots_total == run->old_slots;
    run->new += info.slots_total == run->new_slots;
    assert_int_equal(run->old + run->new, run->states);
    assert_true(!acknowledged || info.slots_total == run->new_slots);
    assert_int_equal(state_read(o.store, &st), 0);
    assert_true(state_equal(&st, &run->files));
    state_fini(&st);
    if (info.slots_total == run->new_slots)
        is_all_new(image, store_superblock(o.store), run->old_slots);
    checks_well(image, run->plan);
}

/* What a cut leaves of the device that is being flushed, and the other one as it is. */
static void
judge_cut(struct run *run, const struct dev *d, const uint8_t *masks)
{
    struct pair left = fork_pair(&run->pair);

    if (d == run->pair.image) {
        dev_close(left.image);
        left.image = faultdev_cut(d, masks);
    } else {
        dev_close(left.anchor);
        left.anchor = faultdev_cut(d, masks);
    }
    judge(run, left, false);
}

/* As in test_sealed_crash. */
static void
cut_here(void *arg, const struct dev *d)
{
    struct run *run = arg;
    size_t n = faultdev_pending(d), step;
    uint8_t masks[MAX_PENDING];
    bool quick = getenv("VNVRAM_QUICK") != NULL; /* under slow tools */

    assert_true(n <= MAX_PENDING);
    step = quick ? n / 4 + 1 : n / 16 + 1; /* of many, that are alike, some */
    for (unsigned m = 0; n <= ALL_SUBSETS && m < 1U << n; m++) {
        for (size_t i = 0; i < n; i++)
            masks[i] = m >> i & 1 ? WHOLE : 0;
        judge_cut(run, d, masks);
    }
    for (size_t k = 0; n > ALL_SUBSETS && k <= n; k += k + 3 < n && k > 2 ? step : 1) {
        for (int how = 0; how < 3; how++) {
            for (size_t i = 0; i < n; i++)
                masks[i] = (how == 0 ? i < k : how == 1 ? i == k : i != k) ? WHOLE : 0;
            judge_cut(run, d, masks);
        }
    }
    for (size_t torn = n > 4 ? n - 4 : 0; torn < n; torn++) {
        memset(masks, WHOLE, n);
        for (int sectors = 1; sectors < SECTORS; sectors += quick ? 5 : 1) {
            masks[torn] = (uint8_t)((1U << sectors) - 1);
            judge_cut(run, d, masks);
            masks[torn] = (uint8_t)~masks[torn];
            judge_cut(run, d, masks);
        }
    }
}

static void
watch(struct run *run)
{
    faultdev_watch(run->pair.image, cut_here, run);
    if (run->pair.anchor)
        faultdev_watch(run->pair.anchor, cut_here, run);
}

/* An image of which half a growth is on the medium: opening it finishes that, whatever cuts in. */
static void
cut_the_finish(struct run *run, struct pair half)
{
    AUTO(close_opened) struct opened o = {0};

    run->pair = half;
    watch(run);
    open_must(&o, run->plan, half);
}

struct halfway {
    struct pair *pair, half;
    unsigned flushes, at;
};

static void
remember_halfway(void *arg, const struct dev *d)
{
    struct halfway *h = arg;

    if (h->flushes++ == h->at) {
        h->half = fork_pair(h->pair);
        dev_close(h->half.image);
        h->half.image = faultdev_cut(d, NULL);
    }
}

/* The state before the image's flush number @at of a growth, if there is one. */
static struct pair
half_grown(const struct plan *p, const struct pair *base, unsigned at)
{
    AUTO(close_opened) struct opened o = {0};
    struct pair pair = fork_pair(base);
    struct halfway h = {.pair = &pair, .at = at};

    open_must(&o, p, pair);
    faultdev_watch(pair.image, remember_halfway, &h);
    assert_int_equal(store_grow(o.store, p->more, p->n_more), 0);
    return h.half;
}

static void
cut_through(const struct plan *p)
{
    AUTO(free_pair) struct pair base = make_image(p);
    AUTO(close_opened) struct opened o = {0};
    struct run run = {.plan = p, .pair = fork_pair(&base)};
    uint64_t directories;

    run.old_slots = count_of(p->first, 2);
    run.new_slots = run.old_slots + count_of(p->more, p->n_more);
    open_must(&o, p, run.pair);
    assert_int_equal(state_read(o.store, &run.files), 0);
    directories = store_superblock(o.store)->dir_off[0];
    watch(&run);
    assert_int_equal(store_grow(o.store, p->more, p->n_more), 0);
    assert_true(p->moves == (directories != store_superblock(o.store)->dir_off[0]));
    judge(&run, fork_pair(&run.pair), true);
    for (unsigned at = 0; at < 6; at++) {
        struct pair half = half_grown(p, &base, at);

        if (half.image)
            cut_the_finish(&run, half);
    }
    print_message("# %s: %lu states: %lu old, %lu new\n", p->name, run.states, run.old, run.new);
    assert_true(run.states > 10 && run.old > 0 && run.new > 0);
    state_fini(&run.files);
}

static void
a_growth_is_done_or_not_wherever_power_is_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_PLANS; i++)
        cut_through(&plans[i]);
}

/* ---- the rest ----------------------------------------------------------------------------------
 */

static void
slots_stay_where_they_are_and_new_ones_come_behind(void **state)
{
    struct superblock before, after;

    (void)state;
    for (size_t i = 0; i < N_PLANS; i++) {
        const struct plan *p = &plans[i];
        AUTO(free_pair) struct pair base = make_image(p);
        AUTO(close_opened) struct opened o = {0};
        struct entry e;

        open_must(&o, p, fork_pair(&base));
        before = *store_superblock(o.store);
        assert_int_equal(store_grow(o.store, p->more, p->n_more), 0);
        after = *store_superblock(o.store);
        assert_int_equal(after.n_segments, before.n_segments + p->n_more);
        assert_memory_equal(after.segments, before.segments,
                            before.n_segments * sizeof before.segments[0]);
        assert_true(after.segments[2].bank_off[0] >= before.image_size);
        assert_int_equal(after.sequence, before.sequence + 1);
        put_file(o.store, "large", p->more[0].capacity, 9);
        assert_int_equal(store_find(o.store, "large", &e), 0);
        assert_int_equal(e.slot, superblock_slot_count(&before));
    }
}

static void
a_grown_image_grows_again_is_resealed_and_copied(void **state)
{
    const struct plan *p = &plans[3];
    AUTO(free_pair) struct pair base = make_image(p);
    AUTO(close_opened) struct opened o = {0};
    uint8_t slots[KEYSLOT_COUNT][KEYSLOT_SIZE], size, block[BLOCK_SIZE];
    struct snapshot *sn;
    struct sealer *sealer;
    struct dev *copy;
    struct state st, copied;
    struct pair pair = fork_pair(&base);

    (void)state;
    open_must(&o, p, pair);
    assert_int_equal(store_grow(o.store, p->more, p->n_more), 0);
    put_file(o.store, "large", 12000, 9);
    assert_int_equal(store_grow(o.store, p->first, 2), 0);
    assert_int_equal(keys_renew_volume(&key, store_superblock(o.store)->uuid,
                                       store_superblock(o.store)->key_epoch + 1, slots, &size,
                                       &sealer),
                     0);
    assert_int_equal(store_reseal(o.store, sealer, slots, size), 0);
    checks_well(pair.image, p);
    assert_int_equal(state_read(o.store, &st), 0);
    assert_int_equal(st.n, 3);
    assert_int_equal(store_snapshot(o.store, &sn), 0);
    copy = faultdev_new(snapshot_size(sn));
    for (uint64_t off = 0; off < snapshot_size(sn); off += BLOCK_SIZE) {
        assert_int_equal(snapshot_pread(sn, block, sizeof block, off), 0);
        faultdev_poke(copy, block, sizeof block, off);
    }
    snapshot_put(sn);
    close_opened(&o);
    checks_well(copy, p);
    o.store = open_sealed(copy, &key);
    assert_int_equal(state_read(o.store, &copied), 0);
    assert_true(state_equal(&st, &copied));
    state_fini(&st);
    state_fini(&copied);
}

/* Nor one whose directories are gone. */
static void
the_superblock_of_before_is_refused_afterwards(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_PLANS; i++) {
        const struct plan *p = &plans[i];
        AUTO(free_pair) struct pair base = make_image(p);
        struct pair grown = fork_pair(&base);
        struct opened o;
        uint8_t old[BLOCK_SIZE];
        struct dev *d;

        open_must(&o, p, grown);
        assert_int_equal(store_grow(o.store, p->more, p->n_more), 0);
        d = faultdev_fork(grown.image);
        close_opened(&o);
        faultdev_peek(base.image, old, sizeof old, SUPERBLOCK_A);
        faultdev_poke(d, old, sizeof old, SUPERBLOCK_A);
        faultdev_poke(d, old, sizeof old, SUPERBLOCK_B);
        assert_int_equal(open_with(&o, p, (struct pair){d, NULL}, true),
                         p->moves ? -EUCLEAN : -ESTALE);
    }
}

static void
what_does_not_fit_changes_nothing(void **state)
{
    static const struct slot_class huge[] = {{1, 64 * 1024 * 1024}}, none[] = {{0, 4096}},
                                   many[] = {{MAX_SLOTS, 4096}}, zero[] = {{1, 0}};
    const struct plan *p = &plans[0];
    AUTO(free_pair) struct pair base = make_image(p);
    AUTO(close_opened) struct opened o = {0};
    struct slot_class classes[MAX_SEGMENTS];
    struct pair pair = fork_pair(&base);
    unsigned long writes;

    (void)state;
    for (size_t i = 0; i < MAX_SEGMENTS; i++)
        classes[i] = (struct slot_class){1, 4096};
    open_must(&o, p, pair);
    writes = faultdev_count(pair.image, FAULT_WRITE);
    assert_int_equal(store_grow(o.store, huge, 1), -ERANGE);
    assert_int_equal(store_grow(o.store, none, 1), -EINVAL);
    assert_int_equal(store_grow(o.store, zero, 1), -EINVAL);
    assert_int_equal(store_grow(o.store, none, 0), -EINVAL);
    assert_int_equal(store_grow(o.store, many, 1), -ENOSPC);
    assert_int_equal(store_grow(o.store, classes, MAX_SEGMENTS - 1), -ENOSPC);
    assert_int_equal(faultdev_count(pair.image, FAULT_WRITE), writes);
    store_set_read_only(o.store, -EROFS, "as a test");
    assert_int_equal(store_grow(o.store, p->more, 1), -EROFS);
}

/* Whatever fails, one failed write never becomes two, and what is there opens. */
static void
a_failing_device_leaves_old_or_new(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_PLANS; i++) {
        for (int op = FAULT_WRITE; op <= FAULT_SYNC; op++) {
            const struct plan *p = &plans[i];
            AUTO(free_pair) struct pair base = make_image(p);
            int r = -EIO;

            for (unsigned long nth = 0; r < 0; nth++) {
                AUTO(close_opened) struct opened o = {0};
                struct pair pair = fork_pair(&base);
                struct dev *left;
                struct opened after;

                open_must(&o, p, pair);
                faultdev_fail(pair.image, (enum fault_op)op, nth, -EIO, NULL);
                r = store_grow(o.store, p->more, p->n_more);
                assert_true(r == 0 || r == -EIO);
                left = faultdev_cut(pair.image, NULL);
                if (r < 0)
                    assert_int_equal(store_settle(o.store), -EROFS);
                assert_int_equal(open_with(&after, p, (struct pair){left, NULL}, true), 0);
                close_opened(&after);
            }
        }
    }
}

static void
be_silent(void *arg, enum report_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static int
forget_keys(void **state)
{
    (void)state;
    key_options_fini(&key);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_stay_where_they_are_and_new_ones_come_behind),
        cmocka_unit_test(a_growth_is_done_or_not_wherever_power_is_cut),
        cmocka_unit_test(a_grown_image_grows_again_is_resealed_and_copied),
        cmocka_unit_test(the_superblock_of_before_is_refused_afterwards),
        cmocka_unit_test(what_does_not_fit_changes_nothing),
        cmocka_unit_test(a_failing_device_leaves_old_or_new),
    };

    if (crypt_init() < 0)
        return 1;
    report_set_sink(be_silent, NULL);
    key = key_of(key_text);
    return cmocka_run_group_tests(tests, NULL, forget_keys);
}
