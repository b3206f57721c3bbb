/* SPDX-License-Identifier: BSD-3-Clause */
/* Power cuts over what changes a sealed image: commits, keys added, changed and removed, and a
 * reseal. Whatever is left opens with exactly the keys of the state before or of the one after, and
 * shows exactly the files of one of the two; after the acknowledgement, of the one after. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "tests/faultdev.h"
#include "tests/sealedimage.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ALL_SUBSETS = 6, MAX_PENDING = 64 };

/* ---- keys --------------------------------------------------------------------------------------
 */

enum who { FIRST, SECOND, THIRD, N_KEYS };

static const char *const key_texts[N_KEYS] = {
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    "102132435465768798a9bacbdcedfe0f102132435465768798a9bacbdcedfe0f",
    "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"};

/* Options of each key, which remember the volume keys that they have opened. */
static struct key_options keys[N_KEYS];

/* ---- operations --------------------------------------------------------------------------------
 */

/* A state: what is seen, and by whom. */
struct view {
    struct state files;
    bool opens[N_KEYS];
};

typedef void operation(struct store *s);

static void
set_slots(struct store *s, int slot, enum who who)
{
    uint8_t slots[KEYSLOT_COUNT][KEYSLOT_SIZE];

    memcpy(slots, store_superblock(s)->keyslots, sizeof slots);
    if (who == N_KEYS)
        memset(slots[slot], 0, KEYSLOT_SIZE);
    else
        assert_int_equal(keys_wrap(&keys[FIRST], &keys[who], 32, slots[slot]), 0);
    assert_int_equal(store_set_keyslots(s, slots), 0);
}

static void
write_file(struct store *s)
{
    put_file(s, "alpha", 3333, 50);
}

static void
write_new_file(struct store *s)
{
    put_file(s, "gamma", 4096, 51);
}

static void
add_key(struct store *s)
{
    set_slots(s, 3, THIRD);
}

static void
change_key(struct store *s)
{
    set_slots(s, 0, THIRD);
}

static void
remove_key(struct store *s)
{
    set_slots(s, 1, N_KEYS);
}

static void
reseal(struct store *s)
{
    uint8_t slots[KEYSLOT_COUNT][KEYSLOT_SIZE], size;
    struct sealer *sealer;

    assert_int_equal(keys_renew_volume(&keys[THIRD], store_superblock(s)->uuid,
                                       store_superblock(s)->key_epoch + 1, slots, &size, &sealer),
                     0);
    assert_int_equal(store_reseal(s, sealer, slots, size), 0);
}

/* A reseal that keeps the user's key: no key set tells which state it is, only what opens. */
static void
reseal_with_the_same_key(struct store *s)
{
    uint8_t slots[KEYSLOT_COUNT][KEYSLOT_SIZE], size;
    struct sealer *sealer;

    assert_int_equal(keys_renew_volume(&keys[FIRST], store_superblock(s)->uuid,
                                       store_superblock(s)->key_epoch + 1, slots, &size, &sealer),
                     0);
    assert_int_equal(store_reseal(s, sealer, slots, size), 0);
}

/* ---- looking -----------------------------------------------------------------------------------
 */

/* No bank is left of a volume key that does not count (any more, or yet). */
static void
all_banks_are_of_one_key(struct dev *d, const struct superblock *sb)
{
    AUTO_FREE uint8_t *block = dev_alloc(BLOCK_SIZE);

    for (uint32_t slot = 0; slot < superblock_slot_count(sb); slot++) {
        for (unsigned bank = 0; bank < 2; bank++) {
            uint64_t length, generation;

            assert_int_equal(
                dev_pread(d, block, BLOCK_SIZE, superblock_bank_offset(sb, slot, bank)), 0);
            if (bank_peek(block, &length, &generation) == 0)
                assert_int_equal(load_le32(block + 44), sb->key_epoch); /* its key epoch */
        }
    }
}

/* Opens what is left for writing, as the next mount would, with each key in turn, each on a fork.
 */
static void
view_of(const struct dev *d, struct view *v)
{
    *v = (struct view){0};
    for (int who = 0; who < N_KEYS; who++) {
        const struct store_options opt = {.unlock = keys_unlock, .unlock_arg = &keys[who]};
        struct dev *fork = faultdev_fork(d);
        AUTO(store_closep) struct store *s = NULL;
        struct state st;
        int r = store_open(&s, fork, &opt);

        if (r < 0) {
            dev_close(fork);
            if (r != -EKEYREJECTED)
                fail_msg("key %d: neither opens nor is wrong: %d", who, r);
            continue;
        }
        assert_int_equal(state_read(s, &st), 0);
        all_banks_are_of_one_key(fork, store_superblock(s));
        v->opens[who] = true;
        if (v->files.n > 0)
            assert_true(state_equal(&st, &v->files)); /* all keys see the same */
        state_fini(&v->files);
        v->files = st;
    }
}

static bool
same_view(const struct view *a, const struct view *b)
{
    return memcmp(a->opens, b->opens, sizeof a->opens) == 0 && state_equal(&a->files, &b->files);
}

/* ---- cutting -----------------------------------------------------------------------------------
 */

struct run {
    const char *name;
    struct view before, after;
    unsigned long states, old, new;
};

static void
judge(struct run *run, struct dev *left, bool acknowledged)
{
    AUTO(dev_closep) struct dev *d = left;
    struct view v;
    bool old, new;

    view_of(d, &v);
    old = same_view(&v, &run->before);
    new = same_view(&v, &run->after);
    run->states++;
    run->old += old && !new;
    run->new += new;
    if (!new && (acknowledged || !old))
        fail_msg("%s: state %lu is neither old nor new: keys %d%d%d open", run->name, run->states,
                 v.opens[0], v.opens[1], v.opens[2]);
    state_fini(&v.files);
}

/* All subsets of the pending writes where they are few; else every prefix, every single one missing
 * or present.  And each write torn after each sector, the others whole. */
static void
cut_here(void *arg, const struct dev *d)
{
    struct run *run = arg;
    size_t n = faultdev_pending(d);
    uint8_t masks[MAX_PENDING];
    bool quick = getenv("VNVRAM_QUICK") != NULL; /* under slow tools */

    assert_true(n <= MAX_PENDING);
    for (unsigned m = 0; n <= ALL_SUBSETS && m < 1U << n; m++) {
        for (size_t i = 0; i < n; i++)
            masks[i] = m >> i & 1 ? WHOLE : 0;
        judge(run, faultdev_cut(d, masks), false);
    }
    for (size_t k = 0; n > ALL_SUBSETS && k <= n; k++) {
        for (int how = 0; how < 3; how++) {
            for (size_t i = 0; i < n; i++)
                masks[i] = (how == 0 ? i < k : how == 1 ? i == k : i != k) ? WHOLE : 0;
            judge(run, faultdev_cut(d, masks), false);
        }
    }
    for (size_t torn = 0; torn < n && torn < 8; torn++) {
        memset(masks, WHOLE, n);
        for (int sectors = 1; sectors < SECTORS; sectors += quick ? 5 : 1) {
            masks[torn] = (uint8_t)((1U << sectors) - 1);
            judge(run, faultdev_cut(d, masks), false);
            masks[torn] = (uint8_t)~masks[torn];
            judge(run, faultdev_cut(d, masks), false);
        }
    }
}

static struct dev *
make_image(void)
{
    static const struct slot_class classes[] = {{1, 8192}, {4, 4096}};
    struct format_spec spec = {.classes = classes, .n_classes = 2, .uuid = "uuid of an image"};
    struct superblock sb;
    struct dev *d;
    struct store *s;

    for (int i = 0; i < N_KEYS; i++) {
        key_options_fini(&keys[i]);
        keys[i] = key_of(key_texts[i]);
    }
    assert_int_equal(store_layout(&sb, &spec, NULL), 0);
    d = faultdev_new(sb.image_size);
    format_sealed(d, &spec, &keys[FIRST]);
    s = open_sealed(faultdev_fork(d), &keys[FIRST]);
    store_close(s);
    s = open_sealed(d, &keys[FIRST]);
    put_file(s, "alpha", 3000, 1);
    put_file(s, "alpha", 3100, 2);
    put_file(s, "beta", 6000, 3);
    set_slots(s, 1, SECOND);
    assert_int_equal(store_settle(s), 0);
    d = faultdev_fork(d); /* the store's own goes with it */
    store_close(s);
    return d;
}

static void
cut_through(const char *name, operation *op, bool tells_by_keys)
{
    AUTO(dev_closep) struct dev *base = make_image();
    struct run run = {.name = name};
    struct dev *d = faultdev_fork(base);
    struct store *s;

    view_of(base, &run.before);
    assert_true(run.before.opens[FIRST] && run.before.opens[SECOND] && !run.before.opens[THIRD]);

    s = open_sealed(d, &keys[FIRST]);
    op(s);
    view_of(d, &run.after);
    store_close(s);
    assert_true(tells_by_keys == (memcmp(run.before.opens, run.after.opens, N_KEYS) != 0));

    /* The same again, watched; volume keys and IVs differ, what is seen does not. */
    d = faultdev_fork(base);
    s = open_sealed(d, &keys[FIRST]);
    faultdev_watch(d, cut_here, &run);
    op(s);
    judge(&run, faultdev_cut(d, NULL), true);
    store_close(s);
    print_message("# %s: %lu states: %lu old, %lu new\n", name, run.states, run.old, run.new);
    assert_true(run.states > 10 && run.old > 0 && run.new > 0);
    state_fini(&run.before.files);
    state_fini(&run.after.files);
}

/* ------------------------------------------------------------------------------------------------
 */

static void
a_commit_is_old_or_new(void **state)
{
    (void)state;
    cut_through("overwrite", write_file, false);
    cut_through("create", write_new_file, false);
}

static void
an_added_key_opens_or_does_not(void **state)
{
    (void)state;
    cut_through("key add", add_key, true);
}

static void
a_changed_key_is_the_old_or_the_new_one(void **state)
{
    (void)state;
    cut_through("key change", change_key, true);
}

static void
a_removed_key_opens_or_does_not(void **state)
{
    (void)state;
    cut_through("key remove", remove_key, true);
}

static void
a_reseal_leaves_the_old_or_the_new_volume_key(void **state)
{
    (void)state;
    cut_through("reseal", reseal, true);
    cut_through("reseal with the same key", reseal_with_the_same_key, true);
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
    for (int i = 0; i < N_KEYS; i++)
        key_options_fini(&keys[i]);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_commit_is_old_or_new),
        cmocka_unit_test(an_added_key_opens_or_does_not),
        cmocka_unit_test(a_changed_key_is_the_old_or_the_new_one),
        cmocka_unit_test(a_removed_key_opens_or_does_not),
        cmocka_unit_test(a_reseal_leaves_the_old_or_the_new_volume_key),
    };

    if (crypt_init() < 0)
        return 1;
    report_set_sink(be_silent, NULL);
    for (int i = 0; i < N_KEYS; i++)
        keys[i] = key_of(key_texts[i]);
    return cmocka_run_group_tests(tests, NULL, forget_keys);
}
