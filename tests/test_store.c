/* SPDX-License-Identifier: BSD-3-Clause */
/* Every function of core/store.h, error by error, on a device double. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
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

/* ---- images ------------------------------------------------------------------------------------
 */

static const uint64_t volume_key = 0xfeed, user_key = 0xbeef, wrong_key = 0xdead;
static const struct slot_class two_classes[] = {{4, 4096}, {2, 16384}};

static struct format_spec
plain_spec(void)
{
    return (struct format_spec){
        .classes = two_classes,
        .n_classes = 2,
        .uuid = {0xaa, 0xbb},
        .root = {0750, 7, 8, {10, 1}, {20, 2}, {30, 3}},
    };
}

static struct format_spec
sealed_spec(void)
{
    struct format_spec spec = plain_spec();

    testimage_seal(&spec, volume_key, user_key);
    return spec;
}

static struct dev *
format_image(const struct format_spec *spec)
{
    return testimage_new(spec, volume_key, 0);
}

static struct dev *
new_image(void)
{
    const struct format_spec spec = plain_spec();

    return format_image(&spec);
}

static struct dev *
new_sealed_image(void)
{
    const struct format_spec spec = sealed_spec();

    return format_image(&spec);
}

static int
open_with(struct dev *d, bool read_only, const uint64_t *key, struct store **s)
{
    const struct store_options opt = {
        .read_only = read_only, .unlock = testseal_unlock, .unlock_arg = (void *)(uintptr_t)key};

    return store_open(s, d, &opt);
}

static struct store *
must_open(struct dev *d)
{
    struct store *s = NULL;

    assert_int_equal(open_with(d, false, NULL, &s), 0);
    return s;
}

/* The image that @s leaves when it is cut off now; @s stays open. */
static struct dev *
left_by(struct dev *d)
{
    return faultdev_cut(d, NULL);
}

/* ---- files -------------------------------------------------------------------------------------
 */

static struct file_attr
some_attr(void)
{
    return (struct file_attr){0640, 1, 2, {100, 1}, {200, 2}, {300, 3}};
}

/* Creates or overwrites in one commit. */
static int
put(struct store *s, const char *name, const char *text)
{
    const struct file_attr attr = some_attr();

    return testimage_put(s, name, text, strlen(text), &attr);
}

static bool
same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static void
same_attr(const struct file_attr *a, const struct file_attr *b)
{
    assert_true(a->mode == b->mode && a->uid == b->uid && a->gid == b->gid);
    assert_true(same_time(a->atime, b->atime) && same_time(a->mtime, b->mtime) &&
                same_time(a->ctime, b->ctime));
}

static uint64_t
id_of(struct store *s, const char *name)
{
    struct entry e;

    assert_int_equal(store_find(s, name, &e), 0);
    assert_int_equal(e.kind, ENTRY_FILE);
    return e.id;
}

static int
change_one(struct store *s, struct change c)
{
    return store_commit(s, &c, 1, NULL);
}

static int
rename_file(struct store *s, const char *from, const char *to)
{
    return change_one(s, (struct change){.op = CHANGE_RENAME, .id = id_of(s, from), .name = to});
}

static void
holds(struct store *s, const struct content *c, const char *text)
{
    char buf[20000];

    assert_int_equal(c->length, strlen(text));
    assert_int_equal(store_read(s, c, buf), 0);
    assert_memory_equal(buf, text, strlen(text));
    assert_true(store_is_whole(s, c));
}

/* @name shows @text, and before that @before (NULL: nothing). */
static void
shows(struct store *s, const char *name, const char *text, const char *before)
{
    struct entry e;

    assert_int_equal(store_find(s, name, &e), 0);
    if (text) {
        assert_int_equal(e.kind, ENTRY_FILE);
        holds(s, &e.current, text);
    }
    if (before)
        holds(s, &e.previous, before);
    else
        assert_int_equal(e.previous.generation, 0);
}

static bool
exists(struct store *s, const char *name)
{
    struct entry e;

    return store_find(s, name, &e) == 0;
}

static struct store_info
info_of(struct store *s)
{
    struct store_info info;

    store_get_info(s, &info);
    return info;
}

/* ---- layout and format --------------------------------------------------------------------------
 */

static void
a_layout_keeps_copies_apart_and_decodes(void **state)
{
    static const struct slot_class tpm[] = {{4, 256 << 10}, {8, 64 << 10}, {16, 4 << 10}};
    const struct format_spec spec = {.classes = tpm, .n_classes = 3, .uuid = {1}};
    struct superblock sb, back;
    uint8_t buf[BLOCK_SIZE];
    uint64_t need;

    (void)state;
    assert_int_equal(store_layout(&sb, &spec, &need), 0);
    assert_int_equal(need, sb.image_size);
    assert_true(need <= 4 << 20);
    assert_true(sb.dir_off[1] - sb.dir_off[0] >= NEIGHBOUR_GAP);
    for (int i = 0; i < 3; i++)
        assert_true(sb.segments[i].bank_off[1] - sb.segments[i].bank_off[0] >= NEIGHBOUR_GAP);
    superblock_encode(&sb, buf);
    format_set_crc(buf, sizeof buf);
    assert_int_equal(superblock_decode(&back, buf), 0);
    assert_int_equal(superblock_slot_count(&sb), 28);
}

static void
a_layout_rounds_capacities_up(void **state)
{
    static const struct slot_class odd[] = {{1, 1}, {1, 4097}};
    const struct format_spec spec = {.classes = odd, .n_classes = 2};
    struct superblock sb;

    (void)state;
    assert_int_equal(store_layout(&sb, &spec, NULL), 0);
    assert_int_equal(sb.segments[0].capacity, 4096);
    assert_int_equal(sb.segments[1].capacity, 8192);
}

static void
an_impossible_layout_is_refused(void **state)
{
    static const struct slot_class many[MAX_SEGMENTS + 1] = {{1, 4096}};
    static const struct slot_class none[] = {{0, 4096}}, empty[] = {{1, 0}},
                                   over[] = {{1, UINT32_C(0x40000001)}},
                                   too_many[] = {{65536, 4096}, {1, 4096}};
    static const struct {
        const struct slot_class *classes;
        size_t n;
    } bad[] = {{many, 0},    {many, MAX_SEGMENTS + 1}, {none, 1}, {empty, 1}, {over, 1},
               {too_many, 2}};
    struct superblock sb;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct format_spec spec = {.classes = bad[i].classes, .n_classes = bad[i].n};

        assert_int_equal(store_layout(&sb, &spec, NULL), -EINVAL);
    }
}

static void
an_image_too_small_tells_what_it_takes(void **state)
{
    struct format_spec spec = plain_spec();
    struct superblock sb;
    uint64_t need, again;

    (void)state;
    assert_int_equal(store_layout(&sb, &spec, &need), 0);
    spec.image_size = need - BLOCK_SIZE;
    assert_int_equal(store_layout(&sb, &spec, &again), -ERANGE);
    assert_int_equal(again, need);
    spec.image_size = need + BLOCK_SIZE;
    assert_int_equal(store_layout(&sb, &spec, NULL), 0);
    assert_int_equal(sb.image_size, need + BLOCK_SIZE);
}

static void
a_new_image_is_empty_clean_and_has_its_root(void **state)
{
    const struct format_spec spec = plain_spec();
    AUTO(store_closep) struct store *s = must_open(new_image());
    const struct store_info info = info_of(s);
    AUTO_FREE struct entry *entries = NULL;
    struct file_attr root;
    size_t n = 99;

    (void)state;
    assert_memory_equal(info.uuid, spec.uuid, UUID_SIZE);
    assert_true(info.clean && !info.recovered && info.recoveries == 0 && info.read_only == 0);
    assert_null(info.read_only_why);
    assert_int_equal(info.superblock_sequence, 1);
    assert_int_equal(info.slots_total, 6);
    assert_int_equal(info.slots_used + info.files + info.tombstones, 0);
    assert_int_equal(info.bytes_total, 4 * 4096 + 2 * 16384);
    assert_int_equal(info.bytes_used, 0);
    store_get_root(s, &root);
    same_attr(&root, &spec.root);
    assert_int_equal(store_list(s, &entries, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(store_largest_capacity(s), 16384);
    assert_int_equal(store_slot_capacity(s, 3), 4096);
    assert_int_equal(store_slot_capacity(s, 4), 16384);
}

static void
opening_a_settled_image_writes_nothing(void **state)
{
    struct dev *d = new_image(), *fork = faultdev_fork(d);
    AUTO(store_closep) struct store *s = must_open(fork);

    (void)state;
    assert_non_null(s);
    assert_int_equal(faultdev_count(fork, FAULT_WRITE), 0);
    assert_int_equal(faultdev_count(fork, FAULT_SYNC), 1);
    dev_close(d);
}

static void
formatting_leaves_nothing_of_an_older_image(void **state)
{
    const struct format_spec spec = plain_spec();
    struct dev *d = new_image(), *left;
    struct store *s = must_open(d);
    struct superblock sb = *store_superblock(s);
    uint8_t block[BLOCK_SIZE];

    (void)state;
    assert_int_equal(put(s, "secret", "old"), 0);
    left = left_by(d);
    store_close(s);
    assert_int_equal(store_format(left, &spec, testseal_plain()), 0);
    assert_int_equal(faultdev_pending(left), 0);
    for (uint32_t slot = 0; slot < 6; slot++) {
        for (unsigned bank = 0; bank < 2; bank++) {
            faultdev_peek(left, block, sizeof block, superblock_bank_offset(&sb, slot, bank));
            assert_true(bytes_are_zero(block, sizeof block));
        }
    }
    s = must_open(left);
    assert_false(exists(s, "secret"));
    store_close(s);
}

static void
formatting_a_device_too_small_writes_nothing(void **state)
{
    const struct format_spec spec = plain_spec();
    AUTO(dev_closep) struct dev *d = faultdev_new(128 * 1024);

    (void)state;
    assert_int_equal(store_format(d, &spec, testseal_plain()), -ERANGE);
    assert_int_equal(faultdev_count(d, FAULT_WRITE), 0);
}

static void
a_format_cut_short_is_never_taken_for_an_image(void **state)
{
    const struct format_spec spec = plain_spec();
    struct superblock sb;

    (void)state;
    assert_int_equal(store_layout(&sb, &spec, NULL), 0);
    for (unsigned long nth = 0;; nth++) {
        struct dev *d = faultdev_new(sb.image_size);
        struct store *s = NULL;
        int r;

        faultdev_fail(d, FAULT_WRITE, nth, -EIO, NULL);
        r = store_format(d, &spec, testseal_plain());
        if (r == 0) {
            dev_close(d);
            assert_true(nth >= 4);
            break;
        }
        assert_int_equal(r, -EIO);
        r = open_with(d, false, NULL, &s);
        assert_true(r == 0 || r == -ENODATA || r == -EUCLEAN);
        if (r == 0)
            store_close(s);
        else
            dev_close(d);
    }
}

static void
a_failing_flush_fails_the_format(void **state)
{
    const struct format_spec spec = plain_spec();
    struct superblock sb;

    (void)state;
    assert_int_equal(store_layout(&sb, &spec, NULL), 0);
    for (unsigned long nth = 0; nth < 2; nth++) {
        AUTO(dev_closep) struct dev *d = faultdev_new(sb.image_size);

        faultdev_fail(d, FAULT_SYNC, nth, -EIO, NULL);
        assert_int_equal(store_format(d, &spec, testseal_plain()), -EIO);
    }
}

static void
promises_are_made_at_format_time(void **state)
{
    static const struct reservation want[] = {{"small", 4096}, {"large", 10000}};
    struct format_spec spec = plain_spec();
    struct store *s;
    struct entry e;

    (void)state;
    spec.reservations = want;
    spec.n_reservations = 2;
    s = must_open(format_image(&spec));
    assert_int_equal(store_find(s, "small", &e), 0);
    assert_int_equal(e.kind, ENTRY_RESERVED);
    assert_int_equal(store_slot_capacity(s, e.reserve_slot), 4096);
    assert_int_equal(store_find(s, "large", &e), 0);
    assert_int_equal(e.reserved, 10000);
    assert_int_equal(store_slot_capacity(s, e.reserve_slot), 16384);
    assert_int_equal(info_of(s).slots_used, 2);
    assert_int_equal(info_of(s).files, 0);
    store_close(s);
}

static void
promises_that_cannot_be_made_fail_the_format(void **state)
{
    static const struct reservation bad[][3] = {
        {{"", 1}},
        {{"a/b", 1}},
        {{".", 1}},
        {{"..", 1}},
        {{"zero", 0}},
        {{"a", 1}, {"a", 1}},
        {{"a", 16384}, {"b", 16384}, {"c", 16384}},
        {{"a", 16385}},
    };
    static const int want[] = {-EINVAL, -EINVAL, -EINVAL, -EINVAL,
                               -EINVAL, -EINVAL, -ENOSPC, -ENOSPC};
    struct format_spec spec = plain_spec();
    struct superblock sb;

    (void)state;
    assert_int_equal(store_layout(&sb, &spec, NULL), 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        AUTO(dev_closep) struct dev *d = faultdev_new(sb.image_size);

        spec.reservations = bad[i];
        spec.n_reservations = i == 5 ? 2 : i == 6 ? 3 : 1;
        assert_int_equal(store_format(d, &spec, testseal_plain()), want[i]);
        assert_int_equal(faultdev_count(d, FAULT_WRITE), 0);
    }
}

/* ---- what lies on a device ----------------------------------------------------------------------
 */

/* What store_open() finds; that it wrote nothing; and that the device is still the caller's. */
static int
finding(struct dev *d, bool read_only, const uint64_t *key)
{
    unsigned long writes = faultdev_count(d, FAULT_WRITE);
    struct store *s = NULL;
    int r = open_with(d, read_only, key, &s);

    if (r == 0) {
        store_close(s);
        return 0;
    }
    assert_int_equal(faultdev_count(d, FAULT_WRITE), writes);
    assert_null(s);
    dev_close(d);
    return r;
}

static void
a_blank_device_is_blank(void **state)
{
    AUTO(dev_closep) struct dev *d = faultdev_new(1 << 20);

    (void)state;
    assert_int_equal(store_probe(d), -ENODATA);
    assert_int_equal(finding(faultdev_new(1 << 20), false, NULL), -ENODATA);
}

static void
one_foreign_byte_anywhere_is_foreign(void **state)
{
    static const uint64_t at[] = {0, 4095, 65536, 500000, (1 << 20) - 1};

    (void)state;
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        struct dev *d = faultdev_new(1 << 20);

        faultdev_spoil(d, at[i]);
        assert_int_equal(store_probe(d), -EMEDIUMTYPE);
        assert_int_equal(finding(d, false, NULL), -EMEDIUMTYPE);
    }
}

static void
zeroed_superblocks_above_our_structures_are_damage(void **state)
{
    static const uint8_t zeros[BLOCK_SIZE];
    struct dev *d = new_image();

    (void)state;
    faultdev_poke(d, zeros, sizeof zeros, SUPERBLOCK_A);
    faultdev_poke(d, zeros, sizeof zeros, SUPERBLOCK_B);
    assert_int_equal(store_probe(d), -EUCLEAN);
    assert_int_equal(finding(d, false, NULL), -EUCLEAN);
}

static void
one_superblock_is_enough(void **state)
{
    (void)state;
    for (int copy = 0; copy < 2; copy++) {
        struct dev *d = new_image();

        faultdev_poke(d, "damage", 6, (copy ? SUPERBLOCK_B : SUPERBLOCK_A) + 100);
        assert_int_equal(store_probe(d), 0);
        assert_int_equal(finding(d, false, NULL), 0);
    }
}

static void
two_damaged_superblocks_are_damage(void **state)
{
    struct dev *d = new_image();

    (void)state;
    faultdev_poke(d, "damage", 6, SUPERBLOCK_A + 100);
    faultdev_poke(d, "damage", 6, SUPERBLOCK_B + 100);
    assert_int_equal(finding(d, false, NULL), -EUCLEAN);
}

static void
a_device_shorter_than_its_image_is_truncated(void **state)
{
    AUTO(dev_closep) struct dev *whole = new_image();
    static uint8_t block[BLOCK_SIZE];

    (void)state;
    for (uint64_t size = BLOCK_SIZE; size < whole->size; size += 5 * BLOCK_SIZE) {
        struct dev *d = faultdev_new(size);

        for (uint64_t off = 0; off < size; off += BLOCK_SIZE) {
            faultdev_peek(whole, block, sizeof block, off);
            faultdev_poke(d, block, sizeof block, off);
        }
        assert_int_equal(finding(d, false, NULL), -ERANGE);
    }
}

/* Changes a field of both superblocks, with tags and checksums made good by who has the key. */
static void
rewrite_superblocks(struct dev *d, struct sealer *sealer, size_t off, uint8_t value)
{
    uint8_t buf[BLOCK_SIZE];

    for (int copy = 0; copy < 2; copy++) {
        uint64_t at = copy ? SUPERBLOCK_B : SUPERBLOCK_A;

        faultdev_peek(d, buf, sizeof buf, at);
        buf[off] = value;
        memset(buf + SUPERBLOCK_TAG, 0, SEAL_TAG_SIZE);
        memset(buf + CRC_OFFSET, 0, 4);
        assert_int_equal(format_seal(sealer, SEAL_SUPERBLOCK, buf, sizeof buf), 0);
        faultdev_poke(d, buf, sizeof buf, at);
    }
}

static void
feature_words_decide_who_may_open(void **state)
{
    enum { COMPAT = 40, RO_COMPAT = 48, INCOMPAT = 56, VERSION = 12 };
    static const struct {
        size_t off;
        int writing, reading;
    } words[] = {
        {COMPAT, 0, 0},
        {RO_COMPAT, -EPROTONOSUPPORT, 0},
        {INCOMPAT, -EPROTONOSUPPORT, -EPROTONOSUPPORT},
        {VERSION, -EPROTONOSUPPORT, -EPROTONOSUPPORT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        AUTO(dev_closep) struct dev *d = new_image();

        rewrite_superblocks(d, testseal_plain(), words[i].off, 4);
        assert_int_equal(finding(faultdev_fork(d), false, NULL), words[i].writing);
        assert_int_equal(finding(faultdev_fork(d), true, NULL), words[i].reading);
    }
}

static void
keys_are_asked_for_as_the_image_needs(void **state)
{
    (void)state;
    assert_int_equal(finding(new_image(), false, &user_key), -EKEYREVOKED);
    assert_int_equal(finding(new_sealed_image(), false, NULL), -ENOKEY);
    assert_int_equal(finding(new_sealed_image(), false, &wrong_key), -EKEYREJECTED);
    assert_int_equal(finding(new_sealed_image(), false, &user_key), 0);
}

static void
an_io_error_is_not_a_finding(void **state)
{
    (void)state;
    for (unsigned long nth = 0;; nth++) {
        struct dev *d = new_image();
        struct store *s = must_open(faultdev_fork(d));
        int r;

        store_close(s);
        faultdev_fail(d, FAULT_READ, nth, -ENODATA, NULL);
        r = finding(d, false, NULL);
        if (r == 0 && nth < 2)
            continue; /* there is another superblock */
        if (r == 0) {
            assert_true(nth >= 4);
            break;
        }
        assert_true(nth >= 2);
        assert_int_equal(r, -EIO);
    }
}

static void
a_flush_that_fails_at_the_mount_fails_it(void **state)
{
    struct dev *d = new_image();

    (void)state;
    faultdev_fail(d, FAULT_SYNC, 0, -EIO, NULL);
    assert_int_equal(finding(d, false, NULL), -EIO);
}

/* ---- recovery's conditions, on images made by hand
 * ----------------------------------------------- */

typedef void edit_fn(struct directory *dir);

/* Reads directory @index, lets @edit change it and writes it with tag and checksum made good. */
static void
edit_directory(struct dev *d, unsigned index, edit_fn *edit)
{
    testimage_edit_directory(d, index, volume_key, edit);
}

/* An image on which "a" was overwritten last ("one", then "two"), not settled; "b" is older. */
static struct dev *
written_image(const uint64_t *key)
{
    struct dev *d = key ? new_sealed_image() : new_image(), *left;
    struct store *s = NULL;

    assert_int_equal(open_with(d, false, key, &s), 0);
    assert_int_equal(put(s, "b", "bee"), 0);
    assert_int_equal(put(s, "a", "one"), 0);
    assert_int_equal(put(s, "a", "two"), 0);
    left = left_by(d);
    store_close(s);
    return left;
}

/* Where the bank of @name's current content lies. */
static uint64_t
bank_of(struct dev *d, const char *name, const uint64_t *key)
{
    AUTO(store_closep) struct store *s = NULL;
    struct entry e;

    assert_int_equal(open_with(faultdev_fork(d), true, key, &s), 0);
    assert_int_equal(store_find(s, name, &e), 0);
    return superblock_bank_offset(store_superblock(s), e.current.slot, e.current.bank);
}

static void
mark_clean(struct directory *dir)
{
    dir->clean = true;
}

static void
make_newer(struct directory *dir)
{
    dir->generation += 100;
}

static void
break_bank(struct dev *d, uint64_t at)
{
    faultdev_poke(d, "torn", 4, at + BLOCK_SIZE);
}

static void
a_torn_last_commit_is_undone_reported_and_counted(void **state)
{
    struct dev *d = written_image(NULL), *again;
    struct store *s;

    (void)state;
    break_bank(d, bank_of(d, "a", NULL));
    s = must_open(d);
    shows(s, "a", "one", NULL);
    shows(s, "b", "bee", NULL);
    assert_true(info_of(s).recovered && info_of(s).clean);
    assert_int_equal(info_of(s).recoveries, 1);
    again = left_by(d);
    store_close(s);
    s = must_open(again);
    shows(s, "a", "one", NULL);
    assert_false(info_of(s).recovered);
    assert_int_equal(info_of(s).recoveries, 1);
    store_close(s);
}

static void
a_recovery_that_fails_can_be_done_again(void **state)
{
    AUTO(dev_closep) struct dev *torn = written_image(NULL);

    (void)state;
    break_bank(torn, bank_of(torn, "a", NULL));
    for (int how = 0; how < 2; how++) {
        struct dev *d = faultdev_fork(torn);
        struct store *s = NULL;

        faultdev_fail(d, how ? FAULT_SYNC : FAULT_WRITE, how ? 1 : 0, -EIO, NULL);
        assert_int_equal(open_with(d, false, NULL, &s), -EIO);
        assert_int_equal(open_with(d, false, NULL, &s), 0);
        shows(s, "a", "one", NULL);
        assert_int_equal(info_of(s).recoveries, 1);
        assert_int_equal(put(s, "a", "three"), 0);
        store_close(s);
    }
}

static void
a_reader_shows_the_commit_before_a_torn_one_and_writes_nothing(void **state)
{
    struct dev *d = written_image(NULL);
    struct store *s = NULL;

    (void)state;
    break_bank(d, bank_of(d, "a", NULL));
    assert_int_equal(open_with(d, true, NULL, &s), 0);
    shows(s, "a", "one", NULL);
    assert_int_equal(info_of(s).read_only, -EROFS);
    assert_int_equal(put(s, "a", "three"), -EROFS);
    assert_int_equal(store_settle(s), -EROFS);
    assert_int_equal(faultdev_count(d, FAULT_WRITE), 0);
    assert_int_equal(faultdev_count(d, FAULT_SYNC), 0);
    store_close(s);
}

static void
a_clean_directory_is_never_fallen_back_from(void **state)
{
    struct dev *d = written_image(NULL);
    uint64_t at = bank_of(d, "a", NULL);

    (void)state;
    edit_directory(d, newest_directory(d), mark_clean);
    break_bank(d, at);
    assert_int_equal(finding(d, false, NULL), -EUCLEAN);
}

static void
damage_to_an_older_content_is_not_a_torn_commit(void **state)
{
    struct dev *d = written_image(NULL);

    (void)state;
    break_bank(d, bank_of(d, "b", NULL));
    assert_int_equal(finding(faultdev_fork(d), true, NULL), -EUCLEAN);
    assert_int_equal(finding(d, false, NULL), -EUCLEAN);
}

static void
drop_first(struct directory *dir)
{
    dir->entries[0] = dir->entries[--dir->n_entries];
}

static void
damage_to_an_older_content_is_none_even_if_the_older_directory_lacks_it(void **state)
{
    struct dev *d = written_image(NULL);

    (void)state;
    break_bank(d, bank_of(d, "b", NULL));
    edit_directory(d, 1 - newest_directory(d), drop_first); /* "b", the first to be written */
    assert_int_equal(finding(d, false, NULL), -EUCLEAN);
}

static void
damage_besides_the_torn_content_is_damage(void **state)
{
    struct dev *d = written_image(NULL);
    uint64_t a = bank_of(d, "a", NULL), b = bank_of(d, "b", NULL);

    (void)state;
    break_bank(d, a);
    break_bank(d, b);
    assert_int_equal(finding(d, false, NULL), -EUCLEAN);
}

static void
a_torn_commit_without_a_whole_one_before_is_damage(void **state)
{
    struct dev *d = written_image(NULL), *other;
    const struct superblock sb = superblock_of(d);
    AUTO(store_closep) struct store *s = must_open(faultdev_fork(d));
    struct entry e;

    (void)state;
    break_bank(d, bank_of(d, "a", NULL));
    other = faultdev_fork(d);
    faultdev_spoil(d, sb.dir_off[1 - newest_directory(d)] + 200); /* the older directory */
    assert_int_equal(finding(d, false, NULL), -EUCLEAN);
    assert_int_equal(store_find(s, "a", &e), 0);
    break_bank(other, superblock_bank_offset(&sb, e.previous.slot, e.previous.bank));
    assert_int_equal(finding(other, false, NULL), -EUCLEAN);
}

static void
step_forward(struct directory *dir)
{
    dir->generation++;
}

static void
two_directories_of_one_generation_are_damage(void **state)
{
    struct dev *d = written_image(NULL);

    (void)state;
    edit_directory(d, 1 - newest_directory(d), step_forward);
    assert_int_equal(finding(d, false, NULL), -EUCLEAN);
}

static void
a_directory_in_the_other_ones_place_is_not_taken(void **state)
{
    struct dev *d = written_image(NULL);
    const struct superblock sb = superblock_of(d);
    unsigned newest = newest_directory(d);
    uint8_t buf[BLOCK_SIZE];
    struct store *s;

    (void)state;
    /* Moved, and made the newest by far. */
    edit_directory(d, newest, make_newer);
    faultdev_peek(d, buf, sizeof buf, sb.dir_off[newest]);
    edit_directory(d, newest, mark_clean);
    faultdev_poke(d, buf, sizeof buf, sb.dir_off[1 - newest]);
    s = must_open(d);
    assert_true(info_of(s).recovered);
    shows(s, "a", "two", "one");
    store_close(s);
}

static void
new_generations_are_above_any_ever_seen(void **state)
{
    struct dev *d = written_image(NULL);
    const struct superblock sb = superblock_of(d);
    unsigned newest = newest_directory(d);
    struct store *s = must_open(faultdev_fork(d));
    uint64_t generation = info_of(s).generation, next = 0;
    uint8_t buf[BLOCK_SIZE];

    (void)state;
    store_close(s);
    /* The other place holds a directory of the future: its checksum is right, its digest is not. */
    edit_directory(d, 1 - newest, make_newer);
    faultdev_peek(d, buf, sizeof buf, sb.dir_off[1 - newest]);
    buf[DIRECTORY_TAG] ^= 1;
    format_set_crc(buf, sizeof buf);
    faultdev_poke(d, buf, sizeof buf, sb.dir_off[1 - newest]);
    s = must_open(d);
    shows(s, "a", "two", "one");
    assert_int_equal(store_commit(s, NULL, 0, &next), 0);
    assert_true(next > generation + 90);
    store_close(s);
}

static void
demand_newer(struct directory *dir)
{
    dir->superblock_sequence = 2;
}

static void
a_superblock_older_than_the_directory_demands_is_a_rollback(void **state)
{
    struct dev *d = written_image(NULL);

    (void)state;
    edit_directory(d, newest_directory(d), demand_newer);
    assert_int_equal(finding(d, false, NULL), -ESTALE);
}

static void
degraded_reading_serves_what_is_intact(void **state)
{
    const struct store_options opt = {
        .read_only = true, .degraded = true, .unlock = testseal_unlock};
    struct dev *d = written_image(NULL);
    struct store *s = NULL;
    struct entry e;
    char buf[8];

    (void)state;
    break_bank(d, bank_of(d, "b", NULL));
    assert_int_equal(store_open(&s, d, &opt), 0);
    shows(s, "a", "two", "one");
    assert_int_equal(store_find(s, "b", &e), 0);
    assert_int_equal(store_read(s, &e.current, buf), -EUCLEAN);
    assert_false(store_is_whole(s, &e.current));
    assert_int_equal(put(s, "a", "three"), -EROFS);
    store_close(s);
}

/* Which one tells a newer state is not known then: refused, but for degraded reading. */
static void
a_directory_under_a_bad_sector_is_passed_over_by_degraded_reading_only(void **state)
{
    const struct store_options opt = {
        .read_only = true, .degraded = true, .unlock = testseal_unlock};

    (void)state;
    for (unsigned n = 0; n < 2; n++) {
        struct dev *d = new_image(), *refused;
        struct store *s = must_open(d);
        struct entry e;
        unsigned long nth;

        assert_int_equal(put(s, "a", "one"), 0);
        for (unsigned i = 0; i <= n; i++)
            assert_int_equal(put(s, i ? "c" : "b", "two"), 0);
        d = left_by(d);
        store_close(s);
        nth = newest_directory(d) == 0 ? 2 : 4; /* after both superblocks, and two for the first */
        refused = faultdev_fork(d);
        faultdev_fail(refused, FAULT_READ, nth, -EIO, NULL);
        assert_int_equal(finding(refused, true, NULL), -EIO);
        faultdev_fail(d, FAULT_READ, nth, -EIO, NULL);
        assert_int_equal(store_open(&s, d, &opt), 0);
        shows(s, "a", "one", NULL);
        assert_int_equal(store_find(s, n ? "c" : "b", &e), -ENOENT);
        assert_false(info_of(s).recovered);
        store_close(s);
    }
}

/* ---- hostile images
 * ------------------------------------------------------------------------------- */

static uint64_t dice;

static uint32_t
roll(uint32_t sides)
{
    dice = dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(dice >> 33) % sides;
}

/* Changes some bytes of a structure of @len bytes at @at, in its first @span, and makes tag and
 * checksum good: what anybody can do to an image that is not sealed. */
static void
tamper(struct dev *d, uint64_t at, size_t len, size_t span, enum seal_purpose purpose, size_t tag)
{
    static const uint8_t nasty[] = {0, 1, 2, 3, 0x10, 0x7f, 0x80, 0xc8, 0xfe, 0xff};
    static uint8_t buf[2 * BLOCK_SIZE];

    faultdev_peek(d, buf, len, at);
    for (uint32_t n = 1 + roll(4); n > 0; n--)
        buf[12 + roll((uint32_t)span - 12)] = nasty[roll(sizeof nasty)];
    memset(buf + CRC_OFFSET, 0, 4);
    memset(buf + tag, 0, SEAL_TAG_SIZE);
    assert_int_equal(format_seal(testseal_plain(), purpose, buf, len), 0);
    faultdev_poke(d, buf, len, at);
}

/* Everything that a mount does; nothing may crash, and what the store says is done must be there.
 */
static void
use_store(struct store *s)
{
    AUTO_FREE struct entry *entries = NULL;
    struct snapshot *sn = NULL;
    size_t n = 0;

    assert_int_equal(store_list(s, &entries, &n), 0);
    for (size_t i = 0; i < n; i++) {
        const struct content *both[2] = {&entries[i].current, &entries[i].previous};

        for (int k = 0; k < 2; k++) {
            AUTO_FREE char *buf = malloc(both[k]->length + 1);

            assert_non_null(buf);
            store_read(s, both[k], buf);
        }
    }
    if (store_snapshot(s, &sn) == 0)
        snapshot_put(sn);
    if (put(s, "z", "new") == 0) {
        struct entry e;

        assert_int_equal(store_find(s, "z", &e), 0);
        holds(s, &e.current, "new");
        rename_file(s, "z", "a");
        testimage_unlink(s, "a");
    }
    store_settle(s);
}

static void
hostile_images_do_no_harm(void **state)
{
    AUTO(dev_closep) struct dev *image = written_image(NULL);
    const struct superblock sb = superblock_of(image);
    const uint64_t bank = bank_of(image, "a", NULL);
    unsigned opened = 0, refusals = 0;

    (void)state;
    dice = 4711;
    for (int i = getenv("VNVRAM_QUICK") ? 5400 : 0; i < 6000; i++) {
        struct dev *d = faultdev_fork(image);
        struct store *s = NULL;
        uint64_t saved = dice;

        if (i % 3 == 0) {
            tamper(d, SUPERBLOCK_A, BLOCK_SIZE, 330, SEAL_SUPERBLOCK, SUPERBLOCK_TAG);
            dice = saved;
            tamper(d, SUPERBLOCK_B, BLOCK_SIZE, 330, SEAL_SUPERBLOCK, SUPERBLOCK_TAG);
        } else if (i % 3 == 1) {
            tamper(d, sb.dir_off[newest_directory(d)], BLOCK_SIZE, 660, SEAL_DIRECTORY,
                   DIRECTORY_TAG);
        } else {
            tamper(d, bank, 2 * BLOCK_SIZE, 140, SEAL_BANK, BANK_TAG);
        }
        if (open_with(d, false, NULL, &s) < 0) {
            refusals++;
            dev_close(d);
            continue;
        }
        opened++;
        use_store(s);
        store_close(s);
    }
    assert_true(opened > 0 && refusals > 0);
}

/* ---- sealed: forged is not damaged
 * ---------------------------------------------------------------- */

static void
flip_with_checksum(struct dev *d, uint64_t at, size_t len, size_t byte)
{
    static uint8_t buf[4 * BLOCK_SIZE];

    assert_true(len <= sizeof buf);
    faultdev_peek(d, buf, len, at);
    buf[byte] ^= 1;
    format_set_crc(buf, len);
    faultdev_poke(d, buf, len, at);
}

static void
what_was_changed_without_the_key_is_forged(void **state)
{
    AUTO(dev_closep) struct dev *d = written_image(&user_key);
    const struct superblock sb = superblock_of(d);
    const uint64_t places[] = {sb.dir_off[0], sb.dir_off[1]};
    struct dev *forged;

    (void)state;
    for (int i = 0; i < 2; i++) {
        forged = faultdev_fork(d);
        flip_with_checksum(forged, places[i], BLOCK_SIZE, 130);
        assert_int_equal(finding(forged, false, &user_key), -EBADMSG);
        forged = faultdev_fork(d);
        faultdev_spoil(forged, places[i] + 130); /* without the checksum: damaged or torn */
        assert_int_equal(finding(forged, false, &user_key), 0);
    }
    for (int i = 0; i < 2; i++) {
        forged = faultdev_fork(d);
        flip_with_checksum(forged, i ? SUPERBLOCK_B : SUPERBLOCK_A, BLOCK_SIZE, 104);
        assert_int_equal(finding(forged, false, &user_key), -EBADMSG);
    }
    forged = faultdev_fork(d);
    flip_with_checksum(forged, bank_of(d, "a", &user_key), 2 * BLOCK_SIZE, BLOCK_SIZE);
    assert_int_equal(finding(forged, false, &user_key), -EBADMSG);
}

static void
a_bank_moved_to_another_place_is_forged(void **state)
{
    struct dev *d = written_image(&user_key);
    uint64_t a = bank_of(d, "a", &user_key), b = bank_of(d, "b", &user_key);
    uint8_t buf[2 * BLOCK_SIZE];

    (void)state;
    faultdev_peek(d, buf, sizeof buf, b);
    faultdev_poke(d, buf, sizeof buf, a);
    assert_int_equal(finding(d, false, &user_key), -EBADMSG);
}

static void
no_content_stands_in_the_clear_in_a_sealed_image(void **state)
{
    AUTO(dev_closep) struct dev *d = written_image(&user_key);
    uint8_t buf[BLOCK_SIZE];

    (void)state;
    faultdev_peek(d, buf, sizeof buf, bank_of(d, "a", &user_key) + BLOCK_SIZE);
    assert_memory_not_equal(buf, "two", 3);
}

/* ---- commits ------------------------------------------------------------------------------------
 */

static void
a_commit_is_one_flush(void **state)
{
    struct dev *d = new_image();
    AUTO(store_closep) struct store *s = must_open(d);
    unsigned long before = faultdev_count(d, FAULT_SYNC);
    uint64_t flushes = info_of(s).flushes;

    (void)state;
    assert_int_equal(put(s, "a", "one"), 0);
    assert_int_equal(put(s, "a", "two"), 0);
    assert_int_equal(rename_file(s, "a", "b"), 0);
    assert_int_equal(testimage_unlink(s, "b"), 0);
    assert_int_equal(faultdev_count(d, FAULT_SYNC) - before, 4);
    assert_int_equal(info_of(s).flushes - flushes, 4);
    assert_int_equal(faultdev_pending(d), 0);
}

static void
a_file_keeps_what_it_was_given(void **state)
{
    struct dev *d = new_image(), *left;
    struct store *s = must_open(d);
    const struct file_attr attr = some_attr();
    uint64_t id, generation = 0;
    struct entry e;

    (void)state;
    assert_int_equal(put(s, "a", "hello"), 0);
    assert_int_equal(store_commit(s, NULL, 0, &generation), 0);
    assert_int_equal(generation, info_of(s).generation);
    id = id_of(s, "a");
    left = left_by(d);
    store_close(s);
    s = must_open(left);
    shows(s, "a", "hello", NULL);
    assert_int_equal(store_find_id(s, id, &e), 0);
    assert_string_equal(e.name, "a");
    same_attr(&e.attr, &attr);
    assert_true(store_new_id(s) > id);
    assert_int_equal(info_of(s).bytes_used, 5);
    assert_int_equal(store_find_id(s, id + 100, &e), -ENOENT);
    assert_int_equal(store_find(s, "b", &e), -ENOENT);
    store_close(s);
}

static void
an_empty_file_takes_no_bank_and_keeps_what_was_before(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    struct entry e;
    char none;

    (void)state;
    assert_int_equal(put(s, "a", ""), 0);
    shows(s, "a", "", NULL);
    assert_int_equal(put(s, "a", "one"), 0);
    shows(s, "a", "one", NULL);
    assert_int_equal(put(s, "a", ""), 0);
    assert_int_equal(store_find(s, "a", &e), 0);
    assert_int_equal(e.current.generation, 0);
    assert_int_equal(store_read(s, &e.current, &none), 0);
    holds(s, &e.previous, "one");
    assert_int_equal(put(s, "a", "two"), 0);
    shows(s, "a", "two", "one");
}

static void
attributes_change_without_content(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    struct file_attr root = {0700, 1, 2, {-5, 999999999}, {0, 0}, {INT64_MAX, 0}}, got;
    struct change c = {.op = CHANGE_FILE, .attr = {07777, 3, 4, {1, 2}, {3, 4}, {5, 6}}};
    struct entry e;

    (void)state;
    assert_int_equal(put(s, "a", "one"), 0);
    c.id = id_of(s, "a");
    assert_int_equal(store_find(s, "a", &e), 0);
    c.slot = e.slot;
    assert_int_equal(change_one(s, c), 0);
    assert_int_equal(store_find(s, "a", &e), 0);
    same_attr(&e.attr, &c.attr);
    shows(s, "a", "one", NULL);
    assert_int_equal(change_one(s, (struct change){.op = CHANGE_ROOT, .attr = root}), 0);
    store_get_root(s, &got);
    same_attr(&got, &root);
}

static void
what_was_before_is_told_for_every_way_to_replace(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    struct entry e;

    (void)state;
    assert_int_equal(put(s, "a", "one"), 0);
    assert_int_equal(put(s, "a", "two"), 0);
    shows(s, "a", "two", "one");
    assert_int_equal(put(s, "t", "three"), 0);
    assert_int_equal(rename_file(s, "t", "a"), 0);
    shows(s, "a", "three", "two");
    assert_false(exists(s, "t"));
    assert_int_equal(testimage_unlink(s, "a"), 0);
    assert_int_equal(store_find(s, "a", &e), 0);
    assert_int_equal(e.kind, ENTRY_TOMBSTONE);
    holds(s, &e.previous, "three");
    assert_int_equal(info_of(s).files, 0);
    assert_int_equal(info_of(s).tombstones, 1);
    assert_int_equal(info_of(s).slots_used, 0);
    assert_int_equal(put(s, "a", "four"), 0);
    shows(s, "a", "four", "three");
    assert_int_equal(info_of(s).tombstones, 0);
}

static void
an_exchange_swaps_names_and_all_else_follows(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    uint64_t a, b;

    (void)state;
    assert_int_equal(put(s, "a", "a1"), 0);
    assert_int_equal(put(s, "a", "a2"), 0);
    assert_int_equal(put(s, "b", "b1"), 0);
    a = id_of(s, "a");
    b = id_of(s, "b");
    assert_int_equal(change_one(s, (struct change){.op = CHANGE_EXCHANGE, .id = a, .other = b}), 0);
    assert_int_equal(id_of(s, "a"), b);
    assert_int_equal(id_of(s, "b"), a);
    shows(s, "a", "b1", NULL);
    shows(s, "b", "a2", "a1");
    assert_int_equal(change_one(s, (struct change){.op = CHANGE_EXCHANGE, .id = a, .other = a}), 0);
}

static void
forgetting_drops_tombstones_and_contents_before(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());

    (void)state;
    assert_int_equal(put(s, "a", "one"), 0);
    assert_int_equal(put(s, "a", "two"), 0);
    assert_int_equal(change_one(s, (struct change){.op = CHANGE_FORGET, .name = "a"}), 0);
    shows(s, "a", "two", NULL);
    assert_int_equal(testimage_unlink(s, "a"), 0);
    assert_true(exists(s, "a"));
    assert_int_equal(change_one(s, (struct change){.op = CHANGE_FORGET, .name = "a"}), 0);
    assert_false(exists(s, "a"));
}

static void
a_content_before_goes_stale_when_its_bank_is_used(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    struct content old;
    struct entry e;
    char buf[8];

    (void)state;
    assert_int_equal(put(s, "a", "one"), 0);
    assert_int_equal(store_find(s, "a", &e), 0);
    old = e.current;
    assert_int_equal(put(s, "a", "two"), 0);
    holds(s, &old, "one");
    assert_int_equal(put(s, "a", "three"), 0);
    assert_int_equal(store_read(s, &old, buf), -ESTALE);
    assert_false(store_is_whole(s, &old));
}

static void
several_changes_are_one_commit_in_their_order(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    struct change c[3] = {{.op = CHANGE_FILE,
                           .name = "t",
                           .has_content = true,
                           .data = "new",
                           .len = 3,
                           .attr = some_attr()},
                          {.op = CHANGE_RENAME, .name = "a"},
                          {.op = CHANGE_FORGET, .name = "a"}};
    uint64_t generation;

    (void)state;
    assert_int_equal(put(s, "a", "old"), 0);
    generation = info_of(s).generation;
    c[0].id = c[1].id = store_new_id(s);
    assert_int_equal(store_slot_take(s, 3, NULL, &c[0].slot), 0);
    assert_int_equal(store_commit(s, c, 3, NULL), 0);
    store_slot_drop(s, c[0].slot);
    assert_int_equal(info_of(s).generation, generation + 1);
    shows(s, "a", "new", NULL);
    assert_false(exists(s, "t"));
}

static void
a_file_moved_to_a_smaller_slot_in_the_same_commit_must_fit_there(void **state)
{
    static const char large[9000] = "x";
    struct dev *d = new_image();
    AUTO(store_closep) struct store *s = must_open(d);
    struct change c[2] = {{.op = CHANGE_FILE,
                           .name = "a",
                           .has_content = true,
                           .data = large,
                           .len = sizeof large,
                           .attr = some_attr()}};
    unsigned long writes = faultdev_count(d, FAULT_WRITE);

    (void)state;
    c[0].id = store_new_id(s);
    assert_int_equal(store_slot_take(s, sizeof large, NULL, &c[0].slot), 0);
    c[1] = (struct change){.op = CHANGE_FILE, .id = c[0].id, .attr = some_attr()};
    assert_int_equal(store_slot_take(s, 1, NULL, &c[1].slot), 0);
    assert_int_equal(store_commit(s, c, 2, NULL), -EFBIG);
    assert_int_equal(faultdev_count(d, FAULT_WRITE), writes);
    assert_false(exists(s, "a"));
}

static unsigned sealed_until_failure;

static int
encrypt_once(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *out, size_t padded,
             const void *in, size_t len)
{
    (void)s, (void)iv;
    memset(out, 0, padded);
    memcpy(out, in, len);
    return sealed_until_failure-- > 0 ? 0 : -ENOMEM;
}

/* A commit of two new files, @c, that fails for lack of memory once the first one is on its way. */
static void
fail_between_two_files(struct store *s, struct change c[2])
{
    struct sealer *sealer = testseal_plain();
    const struct sealer_ops *own = sealer->ops;
    struct sealer_ops ops = *own;

    for (int i = 0; i < 2; i++) {
        c[i] = (struct change){.op = CHANGE_FILE,
                               .name = i ? "b" : "a",
                               .id = store_new_id(s),
                               .has_content = true,
                               .data = "new",
                               .len = 3,
                               .attr = some_attr()};
        assert_int_equal(store_slot_take(s, 3, NULL, &c[i].slot), 0);
    }
    ops.encrypt = encrypt_once;
    sealed_until_failure = 1;
    sealer->ops = &ops;
    assert_int_equal(store_commit(s, c, 2, NULL), -ENOMEM);
    sealer->ops = own;
}

/* A content that is on its way when the commit fails has ended when that returns: it must not land
 * on what is written there next. */
static void
nothing_is_on_its_way_after_a_commit_that_failed(void **state)
{
    struct dev *d = new_image();
    AUTO(store_closep) struct store *s = must_open(d);
    struct change c[2];

    (void)state;
    fail_between_two_files(s, c);
    dev_close(faultdev_fork(d)); /* which has nothing that was not waited for */
    assert_int_equal(store_commit(s, c, 2, NULL), 0);
    shows(s, "a", "new", NULL);
    shows(s, "b", "new", NULL);
}

/* Nor is it forgotten that it has not landed. */
static void
a_write_that_fails_after_its_commit_has_ends_writing(void **state)
{
    struct dev *d = new_image();
    AUTO(store_closep) struct store *s = must_open(d);
    struct change c[2];

    (void)state;
    faultdev_fail(d, FAULT_WRITE, 0, -EIO, NULL);
    fail_between_two_files(s, c);
    assert_true(store_is_read_only(s));
    assert_int_equal(store_commit(s, c, 2, NULL), -EROFS);
}

static void
a_tpm_once_held_is_remembered(void **state)
{
    struct dev *d = new_image(), *left;
    struct store *s = must_open(d);

    (void)state;
    assert_int_equal(put(s, "tpm2-00.permall", ""), 0);
    assert_false(info_of(s).held_tpm20);
    assert_int_equal(put(s, "tpm2-00.permall", "state"), 0);
    assert_true(info_of(s).held_tpm20 && !info_of(s).held_tpm12);
    assert_int_equal(testimage_unlink(s, "tpm2-00.permall"), 0);
    assert_int_equal(put(s, "tmp", "state"), 0);
    assert_int_equal(rename_file(s, "tmp", "tpm-00.permall"), 0);
    left = left_by(d);
    store_close(s);
    s = must_open(left);
    assert_true(info_of(s).held_tpm20 && info_of(s).held_tpm12);
    store_close(s);
}

/* ---- commits that must not be
 * --------------------------------------------------------------------- */

/* 256 bytes, one too many. */
#define NAME_64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
static const char long_name[] = NAME_64 NAME_64 NAME_64 NAME_64;

enum { EXISTING = 1, NEXT = 2, UNKNOWN = 77 }; /* ids in an image with one file */

static const struct {
    const char *what;
    struct change c;
    int want;
} refused[] = {
    {"no id", {.op = CHANGE_FILE, .name = "x", .slot = 1}, -EINVAL},
    {"an id never handed out", {.op = CHANGE_FILE, .id = UNKNOWN, .name = "x", .slot = 1}, -EINVAL},
    {"a file that is not there", {.op = CHANGE_FILE, .id = NEXT, .slot = 1}, -ENOENT},
    {"a name that is taken", {.op = CHANGE_FILE, .id = NEXT, .name = "a", .slot = 1}, -EEXIST},
    {"a slot past the end", {.op = CHANGE_FILE, .id = NEXT, .name = "x", .slot = 6}, -EINVAL},
    {"no slot", {.op = CHANGE_FILE, .id = NEXT, .name = "x", .slot = SLOT_NONE}, -EINVAL},
    {"more than the slot holds",
     {.op = CHANGE_FILE,
      .id = NEXT,
      .name = "x",
      .slot = 1,
      .has_content = true,
      .data = "",
      .len = 4097},
     -EFBIG},
    {"a move without the content", {.op = CHANGE_FILE, .id = EXISTING, .slot = 1}, -EINVAL},
    {"no name", {.op = CHANGE_FILE, .id = NEXT, .name = "", .slot = 1}, -EINVAL},
    {"a slash", {.op = CHANGE_FILE, .id = NEXT, .name = "x/y", .slot = 1}, -EINVAL},
    {"a dot", {.op = CHANGE_FILE, .id = NEXT, .name = ".", .slot = 1}, -EINVAL},
    {"a long name", {.op = CHANGE_FILE, .id = NEXT, .name = long_name, .slot = 1}, -ENAMETOOLONG},
    {"a file type",
     {.op = CHANGE_FILE, .id = NEXT, .name = "x", .slot = 1, .attr = {.mode = 0100600}},
     -EINVAL},
    {"nanoseconds",
     {.op = CHANGE_FILE, .id = NEXT, .name = "x", .slot = 1, .attr = {.mtime = {0, 1000000000}}},
     -EINVAL},
    {"negative nanoseconds", {.op = CHANGE_ROOT, .attr = {.atime = {0, -1}}}, -EINVAL},
    {"a root's file type", {.op = CHANGE_ROOT, .attr = {.mode = 040700}}, -EINVAL},
    {"renaming nothing", {.op = CHANGE_RENAME, .id = UNKNOWN, .name = "x"}, -ENOENT},
    {"renaming to no name", {.op = CHANGE_RENAME, .id = EXISTING, .name = ""}, -EINVAL},
    {"renaming to dot-dot", {.op = CHANGE_RENAME, .id = EXISTING, .name = ".."}, -EINVAL},
    {"renaming to a long name",
     {.op = CHANGE_RENAME, .id = EXISTING, .name = long_name},
     -ENAMETOOLONG},
    {"exchanging nothing", {.op = CHANGE_EXCHANGE, .id = UNKNOWN, .other = EXISTING}, -ENOENT},
    {"exchanging with nothing", {.op = CHANGE_EXCHANGE, .id = EXISTING, .other = UNKNOWN}, -ENOENT},
    {"unlinking nothing", {.op = CHANGE_UNLINK, .id = UNKNOWN}, -ENOENT},
    {"giving up no promise", {.op = CHANGE_RESERVE, .name = "x", .len = 0}, -ENOENT},
    {"promising too much", {.op = CHANGE_RESERVE, .name = "x", .len = 16385}, -EFBIG},
    {"promising to no name", {.op = CHANGE_RESERVE, .name = "", .len = 1}, -EINVAL},
    {"promising to a slash", {.op = CHANGE_RESERVE, .name = "x/", .len = 1}, -EINVAL},
    {"promising to a long name",
     {.op = CHANGE_RESERVE, .name = long_name, .len = 1},
     -ENAMETOOLONG},
    {"forgetting nothing", {.op = CHANGE_FORGET, .name = "x"}, -ENOENT},
    {"forgetting no name", {.op = CHANGE_FORGET}, -ENOENT},
    {"an unknown change", {.op = (enum change_op)99}, -EINVAL},
};

/* Each refused change behind a good one: nothing of either may be done. */
static void
a_change_that_does_not_fit_fails_all_before_anything_is_written(void **state)
{
    struct dev *d = new_image();
    AUTO(store_closep) struct store *s = must_open(d);
    unsigned long writes;
    uint64_t generation;

    (void)state;
    assert_int_equal(put(s, "a", "one"), 0);
    assert_int_equal(id_of(s, "a"), EXISTING);
    assert_int_equal(store_new_id(s), NEXT);
    writes = faultdev_count(d, FAULT_WRITE);
    generation = info_of(s).generation;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct change both[2] = {
            {.op = CHANGE_FILE, .id = EXISTING, .has_content = true, .data = "two", .len = 3},
            refused[i].c};
        int r;

        if (refused[i].c.op == CHANGE_FILE && refused[i].c.id == EXISTING)
            r = change_one(s, refused[i].c);
        else
            r = store_commit(s, both, 2, NULL);
        if (r != refused[i].want)
            fail_msg("%s: %d, not %d", refused[i].what, r, refused[i].want);
    }
    assert_int_equal(faultdev_count(d, FAULT_WRITE), writes);
    assert_int_equal(info_of(s).generation, generation);
    assert_int_equal(info_of(s).read_only, 0);
    shows(s, "a", "one", NULL);
    assert_int_equal(put(s, "a", "two"), 0);
}

/* ---- slots
 * --------------------------------------------------------------------------------------- */

static void
the_smallest_free_slot_that_fits_is_taken(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    uint32_t slot;

    (void)state;
    assert_int_equal(store_slot_take(s, 4097, NULL, &slot), 0);
    assert_int_equal(slot, 4);
    assert_int_equal(store_slot_take(s, 0, NULL, &slot), 0);
    assert_int_equal(slot, 0);
    for (uint32_t i = 1; i < 4; i++) {
        assert_int_equal(store_slot_take(s, 4096, NULL, &slot), 0);
        assert_int_equal(slot, i);
    }
    assert_int_equal(store_slot_take(s, 1, NULL, &slot), 0); /* no small one is left */
    assert_int_equal(slot, 5);
    assert_int_equal(store_slot_take(s, 0, NULL, &slot), -ENOSPC);
    assert_int_equal(store_slot_take(s, 16385, NULL, &slot), -EFBIG);
    assert_int_equal(info_of(s).slots_used, 6);
    store_slot_hold(s, 2);
    store_slot_drop(s, 2);
    assert_int_equal(store_slot_take(s, 0, NULL, &slot), -ENOSPC);
    store_slot_drop(s, 2);
    assert_int_equal(store_slot_take(s, 0, NULL, &slot), 0);
    assert_int_equal(slot, 2);
}

static void
a_held_slot_outlives_its_file(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    struct entry e;
    uint32_t slot;

    (void)state;
    assert_int_equal(put(s, "a", "one"), 0);
    assert_int_equal(store_find(s, "a", &e), 0);
    store_slot_hold(s, e.slot);
    assert_int_equal(testimage_unlink(s, "a"), 0);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(store_slot_take(s, 0, NULL, &slot), 0);
        assert_int_not_equal(slot, e.slot);
    }
    assert_int_equal(store_slot_take(s, 0, NULL, &slot), -ENOSPC);
    store_slot_drop(s, e.slot);
    assert_int_equal(store_slot_take(s, 0, NULL, &slot), 0);
    assert_int_equal(slot, e.slot);
}

static void
slots_whose_reuse_loses_least_go_first(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    uint32_t slot;

    (void)state;
    assert_int_equal(put(s, "a", "1"), 0); /* slots 0, 1, 2 */
    assert_int_equal(put(s, "b", "2"), 0);
    assert_int_equal(put(s, "c", "3"), 0);
    assert_int_equal(testimage_unlink(s, "b"), 0);
    assert_int_equal(testimage_unlink(s, "a"), 0);
    assert_int_equal(testimage_unlink(s, "c"), 0);
    assert_int_equal(store_slot_take(s, 1, NULL, &slot), 0);
    assert_int_equal(slot, 3); /* nothing before */
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(store_slot_take(s, 1, NULL, &slot), 0);
        assert_int_equal(slot, i); /* the oldest content first */
    }
}

static void
a_tombstone_goes_when_its_bank_is_used(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    char name[2] = "a";

    (void)state;
    for (int i = 0; i < 6; i++, name[0]++)
        assert_int_equal(put(s, name, "content"), 0);
    assert_int_equal(testimage_unlink(s, "a"), 0);
    assert_int_equal(put(s, "new", "one"), 0); /* in the only free slot, but not in that bank */
    shows(s, "a", NULL, "content");
    assert_int_equal(put(s, "new", "two"), 0);
    assert_false(exists(s, "a"));
    shows(s, "new", "two", "one");
}

static void
an_overwrite_never_lacks_room(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    static char full[4097];
    char name[2] = "a";

    (void)state;
    memset(full, 'x', 4096);
    for (int i = 0; i < 6; i++, name[0]++)
        assert_int_equal(put(s, name, "small"), 0);
    assert_int_equal(put(s, "one more", ""), -ENOSPC);
    for (int i = 0; i < 20; i++)
        assert_int_equal(put(s, "a", i % 2 ? full : "x"), 0);
    assert_int_equal(info_of(s).slots_used, 6);
}

static void
a_promised_slot_is_kept_for_its_name(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    const struct change promise = {.op = CHANGE_RESERVE, .name = "vars", .len = 9000};
    struct entry e;
    uint32_t slot, kept;

    (void)state;
    assert_int_equal(change_one(s, promise), 0);
    assert_int_equal(store_find(s, "vars", &e), 0);
    assert_int_equal(e.kind, ENTRY_RESERVED);
    kept = e.reserve_slot;
    assert_int_equal(store_slot_capacity(s, kept), 16384);
    assert_int_equal(store_slot_take(s, 5000, NULL, &slot), 0);
    assert_int_not_equal(slot, kept);
    assert_int_equal(store_slot_take(s, 5000, "other", &slot), -ENOSPC);
    assert_int_equal(change_one(s, (struct change){.op = CHANGE_RESERVE, .name = "y", .len = 9000}),
                     -ENOSPC);
    assert_int_equal(store_slot_take(s, 5000, "vars", &slot), 0);
    assert_int_equal(slot, kept);
    store_slot_drop(s, slot);
    assert_int_equal(put(s, "vars", "content"), 0);
    assert_int_equal(store_find(s, "vars", &e), 0);
    assert_int_equal(e.kind, ENTRY_FILE);
    assert_int_equal(testimage_unlink(s, "vars"), 0);
    assert_int_equal(store_find(s, "vars", &e), 0);
    assert_int_equal(e.kind, ENTRY_RESERVED);
    assert_int_equal(e.reserved, 9000);
    holds(s, &e.previous, "content");
}

static void
a_promise_stays_with_its_name_through_a_rename(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    struct entry e;

    (void)state;
    assert_int_equal(
        change_one(s, (struct change){.op = CHANGE_RESERVE, .name = "vars", .len = 9000}), 0);
    assert_int_equal(put(s, "tmp", "small"), 0);
    assert_int_equal(rename_file(s, "tmp", "vars"), 0);
    assert_int_equal(store_find(s, "vars", &e), 0);
    assert_int_equal(e.kind, ENTRY_FILE);
    assert_int_equal(e.reserved, 9000);
    assert_int_not_equal(e.reserve_slot, SLOT_NONE);
    assert_int_equal(rename_file(s, "vars", "elsewhere"), 0);
    assert_int_equal(store_find(s, "elsewhere", &e), 0);
    assert_int_equal(e.reserved, 0);
    assert_int_equal(store_find(s, "vars", &e), 0);
    assert_int_equal(e.kind, ENTRY_RESERVED);
    assert_int_equal(e.reserved, 9000);
}

static void
a_promise_that_is_given_up_leaves_what_else_there_is_of_the_name(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    const struct change promise = {.op = CHANGE_RESERVE, .name = "vars", .len = 9000};
    const struct change none = {.op = CHANGE_RESERVE, .name = "vars"};
    struct entry e;

    (void)state;
    assert_int_equal(change_one(s, promise), 0);
    assert_int_equal(change_one(s, none), 0);
    assert_int_equal(store_find(s, "vars", &e), -ENOENT);
    assert_int_equal(change_one(s, none), -ENOENT);
    assert_int_equal(info_of(s).slots_used, 0);
    assert_int_equal(put(s, "vars", "content"), 0);
    assert_int_equal(change_one(s, promise), 0);
    assert_int_equal(change_one(s, none), 0);
    assert_int_equal(store_find(s, "vars", &e), 0);
    assert_int_equal(e.kind, ENTRY_FILE);
    assert_int_equal(e.reserved, 0);
    assert_int_equal(change_one(s, promise), 0);
    assert_int_equal(testimage_unlink(s, "vars"), 0);
    assert_int_equal(change_one(s, none), 0);
    assert_int_equal(store_find(s, "vars", &e), 0);
    assert_int_equal(e.kind, ENTRY_TOMBSTONE);
    holds(s, &e.previous, "content");
    assert_int_equal(info_of(s).slots_used, 0);
}

/* ---- settling, failing
 * ----------------------------------------------------------------------------- */

static void
settling_marks_clean_once(void **state)
{
    struct dev *d = new_image();
    AUTO(store_closep) struct store *s = must_open(d);
    unsigned long writes;
    uint64_t generation;

    (void)state;
    assert_int_equal(put(s, "a", "one"), 0);
    assert_false(info_of(s).clean);
    generation = info_of(s).generation;
    assert_int_equal(store_settle(s), 0);
    assert_true(info_of(s).clean);
    assert_int_equal(info_of(s).generation, generation + 1);
    writes = faultdev_count(d, FAULT_WRITE);
    assert_int_equal(store_settle(s), 0);
    assert_int_equal(faultdev_count(d, FAULT_WRITE), writes);
    assert_int_equal(put(s, "a", "two"), 0);
    assert_false(info_of(s).clean);
}

static void
the_first_reason_to_be_read_only_stays(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());

    (void)state;
    store_set_read_only(s, -EUCLEAN, "first");
    store_set_read_only(s, -EIO, "second");
    assert_int_equal(info_of(s).read_only, -EUCLEAN);
    assert_string_equal(info_of(s).read_only_why, "first");
    assert_int_equal(put(s, "a", "one"), -EROFS);
    assert_int_equal(store_settle(s), -EROFS);
}

static void
after_a_failed_flush_reads_come_from_the_medium(void **state)
{
    struct dev *d = new_image();
    AUTO(store_closep) struct store *s = must_open(d);

    (void)state;
    assert_int_equal(put(s, "a", "one"), 0);
    assert_int_equal(put(s, "a", "two"), 0);
    faultdev_fail(d, FAULT_SYNC, 0, -EIO, NULL); /* nothing is written, the cache has it all */
    assert_int_equal(put(s, "a", "three"), -EIO);
    shows(s, "a", "two", "one");
    assert_int_equal(info_of(s).read_only, -EIO);
}

static void
a_touch_that_changes_nothing_is_harmless(void **state)
{
    struct dev *d = new_image();
    AUTO(store_closep) struct store *s = must_open(d);

    (void)state;
    assert_int_equal(put(s, "a", "zero"), 0);
    faultdev_touch(d, DEV_UNKNOWN);
    assert_int_equal(put(s, "a", "one"), 0);
    faultdev_touch(d, DEV_TOUCHED);
    assert_int_equal(put(s, "a", "two"), 0);
    faultdev_touch(d, DEV_TOUCHED);
    assert_int_equal(store_settle(s), 0);
    shows(s, "a", "two", "one");
}

/* Another writer's image in place of ours: its @what. */
static void
replace_part(struct dev *d, int what)
{
    struct dev *other = written_image(NULL);
    const struct superblock sb = superblock_of(d);
    uint8_t buf[BLOCK_SIZE];

    for (int copy = 0; copy < 2; copy++) {
        uint64_t at = what == 0   ? (copy ? SUPERBLOCK_B : SUPERBLOCK_A)
                      : what == 1 ? sb.dir_off[copy]
                                  : sb.segments[0].bank_off[copy];

        if (what == 0)
            memset(buf, 0, sizeof buf);
        else
            faultdev_peek(other, buf, sizeof buf, at);
        faultdev_poke(d, buf, sizeof buf, at);
    }
    dev_close(other);
}

static void
another_writer_makes_the_store_read_only_for_good(void **state)
{
    (void)state;
    /* a single bank is looked at only when somebody is known to have been there */
    for (int i = 0; i < 5; i++) {
        struct dev *d = new_image();
        AUTO(store_closep) struct store *s = must_open(d);
        int what = i % 3;
        unsigned long writes;

        assert_int_equal(put(s, "x", "mine"), 0);
        writes = faultdev_count(d, FAULT_WRITE);
        replace_part(d, what);
        faultdev_touch(d, i < 3 ? DEV_TOUCHED : DEV_UNKNOWN);
        assert_int_equal(put(s, "x", "more"), -EROFS);
        assert_int_equal(info_of(s).read_only, -EUCLEAN);
        assert_non_null(info_of(s).read_only_why);
        assert_int_equal(store_settle(s), -EROFS);
        assert_int_equal(faultdev_count(d, FAULT_WRITE), writes);
    }
}

/* ---- directories of many blocks ---------------------------------------------------------------
 */

enum { MANY = 60, MANY_BLOCKS = 3 };

/* An open image with so many files, f00 and on, of which the last one's entry lies in the last of
 * the directory's blocks. */
static struct store *
with_many_files(struct dev **d)
{
    const struct slot_class class = {MANY, 4096};
    struct format_spec spec = plain_spec();
    struct change changes[MANY];
    char names[MANY][4];
    struct store *s;

    spec.classes = &class;
    spec.n_classes = 1;
    *d = format_image(&spec);
    s = must_open(*d);
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "f%02d", i);
        changes[i] = (struct change){.op = CHANGE_FILE, .name = names[i], .attr = some_attr()};
        changes[i].id = store_new_id(s);
        assert_int_equal(store_slot_take(s, 0, NULL, &changes[i].slot), 0);
    }
    assert_int_equal(store_commit(s, changes, MANY, NULL), 0);
    for (int i = 0; i < MANY; i++)
        store_slot_drop(s, changes[i].slot);
    return s;
}

static void
count_pending(void *arg, const struct dev *d)
{
    *(size_t *)arg = faultdev_pending(d);
}

/* Writes the last file; returns how many blocks of the directory that took.  What a crash leaves
 * after it shows all of it. */
static size_t
put_last(struct dev *d, struct store *s, const char *text)
{
    AUTO(store_closep) struct store *again = NULL;
    struct entry e;
    size_t pending = 0;

    faultdev_watch(d, count_pending, &pending);
    assert_int_equal(put(s, "f59", text), 0);
    faultdev_watch(d, NULL, NULL);
    assert_int_equal(open_with(left_by(d), false, NULL, &again), 0);
    assert_int_equal(info_of(again).generation, info_of(s).generation);
    assert_false(info_of(again).recovered);
    assert_int_equal(store_find(again, "f59", &e), 0);
    holds(again, &e.current, text);
    return pending - 2; /* the bank's */
}

static void
what_lies_in_a_directorys_place_is_not_written_again(void **state)
{
    struct dev *d;
    AUTO(store_closep) struct store *s = with_many_files(&d);

    (void)state;
    assert_int_equal(put_last(d, s, "one"), MANY_BLOCKS); /* its place is not known yet */
    assert_int_equal(put_last(d, s, "two"), 2);
    assert_int_equal(put_last(d, s, "three"), 2);
    d->sole = false;
    assert_int_equal(put_last(d, s, "four"), MANY_BLOCKS);
    d->sole = true;
    assert_int_equal(put_last(d, s, "five"), 2);
}

static void
what_may_lie_there_no_more_is_written_whole(void **state)
{
    static const enum dev_news news[] = {DEV_TOUCHED, DEV_UNKNOWN};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct dev *d;
        AUTO(store_closep) struct store *s = with_many_files(&d);
        struct superblock sb = *store_superblock(s);

        put_last(d, s, "one");
        put_last(d, s, "two");
        faultdev_spoil(d, sb.dir_off[1 - newest_directory(d)] + BLOCK_SIZE + 1);
        faultdev_touch(d, news[i]);
        assert_int_equal(put_last(d, s, "three"), MANY_BLOCKS);
        assert_int_equal(put_last(d, s, "four"), MANY_BLOCKS);
        assert_int_equal(put_last(d, s, "five"), 2);
    }
}

/* A bit of the block that never changes, in the place of the directory that counts or the other. */
static void
rot(struct dev *d, const struct store *s, bool newest)
{
    unsigned at = newest ? newest_directory(d) : 1 - newest_directory(d);

    faultdev_spoil(d, store_superblock(s)->dir_off[at] + BLOCK_SIZE + 1);
}

static void
what_has_rotted_there_is_healed_when_it_settles(void **state)
{
    struct dev *d;
    AUTO(store_closep) struct store *s = with_many_files(&d), *again = NULL;

    (void)state;
    put_last(d, s, "one");
    put_last(d, s, "two");
    rot(d, s, false);
    assert_int_equal(store_settle(s), 0);
    assert_int_equal(open_with(left_by(d), false, NULL, &again), 0);
    assert_int_equal(info_of(again).generation, info_of(s).generation);
    assert_true(info_of(again).clean);
    assert_false(info_of(again).recovered);
    /* And what rots while the image is at rest, in both, by the next two commits. */
    rot(d, s, true);
    rot(d, s, false);
    assert_int_equal(put(s, "f59", "three"), 0);
    assert_int_equal(put_last(d, s, "four"), MANY_BLOCKS);
    assert_int_equal(put_last(d, s, "five"), 2);
}

/* A bank is not looked at by each commit, but before the image is called clean. */
static void
another_writers_bank_is_noticed_when_it_settles(void **state)
{
    struct dev *d = new_image();
    AUTO(store_closep) struct store *s = must_open(d);

    (void)state;
    assert_int_equal(put(s, "x", "mine"), 0);
    replace_part(d, 2);
    faultdev_touch(d, DEV_UNKNOWN);
    assert_int_equal(put(s, "y", "more"), 0);
    assert_int_equal(store_settle(s), -EROFS);
    assert_int_equal(info_of(s).read_only, -EUCLEAN);
}

static void
a_read_error_is_told_and_nothing_else(void **state)
{
    struct dev *d = new_image();
    AUTO(store_closep) struct store *s = must_open(d);
    struct entry e;
    char buf[8];

    (void)state;
    assert_int_equal(put(s, "a", "one"), 0);
    assert_int_equal(store_find(s, "a", &e), 0);
    faultdev_fail(d, FAULT_READ, 0, -EBADMSG, NULL); /* a host file system's, no finding */
    assert_int_equal(store_read(s, &e.current, buf), -EIO);
    assert_int_equal(store_read(s, &e.current, buf), 0);
    assert_int_equal(put(s, "a", "two"), 0);
}

/* ---- snapshots
 * ----------------------------------------------------------------------------------- */

/* The snapshot, as a device of its own. */
static struct dev *
device_of(const struct snapshot *sn)
{
    struct dev *d = faultdev_new(snapshot_size(sn));
    static uint8_t buf[3 * BLOCK_SIZE + 5]; /* no multiple of anything */

    for (uint64_t off = 0; off < d->size; off += sizeof buf) {
        size_t n = d->size - off < sizeof buf ? (size_t)(d->size - off) : sizeof buf;

        assert_int_equal(snapshot_pread(sn, buf, n, off), 0);
        faultdev_poke(d, buf, n, off);
    }
    return d;
}

static void
a_snapshot_is_a_clean_image_of_its_moment(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    struct snapshot *sn, *same;
    struct store *copy;
    struct dev *d;
    uint8_t byte;

    (void)state;
    assert_int_equal(put(s, "a", "one"), 0);
    assert_int_equal(put(s, "a", "two"), 0);
    assert_int_equal(put(s, "gone", "was here"), 0);
    assert_int_equal(testimage_unlink(s, "gone"), 0);
    assert_int_equal(store_snapshot(s, &sn), 0);
    assert_int_equal(store_snapshot(s, &same), 0);
    assert_ptr_equal(sn, same);
    snapshot_put(same);
    assert_int_equal(put(s, "a", "three"), 0);
    assert_int_equal(put(s, "a", "four"), 0);
    assert_int_equal(snapshot_size(sn), info_of(s).image_size);
    assert_int_equal(snapshot_pread(sn, &byte, 1, snapshot_size(sn)), -EINVAL);
    assert_int_equal(snapshot_pread(sn, &byte, 2, snapshot_size(sn) - 1), -EINVAL);
    assert_int_equal(snapshot_pread(sn, &byte, 1, UINT64_MAX), -EINVAL);
    d = device_of(sn);
    snapshot_put(sn);
    copy = must_open(d);
    assert_int_equal(faultdev_count(d, FAULT_WRITE), 0);
    assert_true(info_of(copy).clean && !info_of(copy).recovered);
    shows(copy, "a", "two", "one");
    shows(copy, "gone", NULL, "was here");
    assert_int_equal(put(copy, "a", "five"), 0);
    shows(copy, "a", "five", "two");
    store_close(copy);
    shows(s, "a", "four", "three");
}

static void
a_new_generation_has_a_new_snapshot(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    struct snapshot *before, *after;

    (void)state;
    assert_int_equal(store_snapshot(s, &before), 0);
    assert_int_equal(put(s, "a", "one"), 0);
    assert_int_equal(store_snapshot(s, &after), 0);
    assert_ptr_not_equal(before, after);
    assert_int_equal(snapshot_generation(after), snapshot_generation(before) + 1);
    snapshot_put(before);
    snapshot_put(after);
}

static void
a_sealed_snapshot_opens_with_its_key_only(void **state)
{
    AUTO(store_closep) struct store *s = NULL;
    struct snapshot *sn;
    struct dev *d;

    (void)state;
    assert_int_equal(open_with(written_image(&user_key), false, &user_key, &s), 0);
    assert_int_equal(store_snapshot(s, &sn), 0);
    d = device_of(sn);
    snapshot_put(sn);
    assert_int_equal(finding(faultdev_fork(d), false, NULL), -ENOKEY);
    assert_int_equal(finding(d, false, &user_key), 0);
}

/* ---- keys
 * ---------------------------------------------------------------------------------------- */

static void
an_image_without_seal_has_no_keys_to_change(void **state)
{
    AUTO(store_closep) struct store *s = must_open(new_image());
    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE] = {{0}};

    (void)state;
    assert_int_equal(store_set_keyslots(s, keyslots), -EINVAL);
    assert_int_equal(store_reseal(s, testseal_keyed(1), keyslots, 32), -EINVAL);
}

static void
new_key_slots_shut_out_old_keys_and_old_superblocks(void **state)
{
    struct dev *d = written_image(&user_key), *left;
    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE], old[BLOCK_SIZE];
    struct store *s = NULL;

    (void)state;
    faultdev_peek(d, old, sizeof old, SUPERBLOCK_A);
    assert_int_equal(open_with(d, false, &user_key, &s), 0);
    testseal_keyslots(volume_key, 0x1111, keyslots);
    assert_int_equal(store_set_keyslots(s, keyslots), 0);
    assert_int_equal(info_of(s).superblock_sequence, 2);
    assert_true(info_of(s).clean);
    left = left_by(d);
    store_close(s);
    assert_int_equal(finding(faultdev_fork(left), false, &user_key), -EKEYREJECTED);
    assert_int_equal(finding(faultdev_fork(left), false, &(uint64_t){0x1111}), 0);
    faultdev_poke(left, old, sizeof old, SUPERBLOCK_A);
    faultdev_poke(left, old, sizeof old, SUPERBLOCK_B);
    assert_int_equal(finding(left, false, &user_key), -ESTALE);
}

static void
an_interrupted_update_of_the_superblocks_is_finished(void **state)
{
    struct dev *d = written_image(&user_key), *left;
    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE], a[BLOCK_SIZE], b[BLOCK_SIZE];
    struct store *s = NULL;

    (void)state;
    assert_int_equal(open_with(d, false, &user_key, &s), 0);
    memcpy(keyslots, store_superblock(s)->keyslots, sizeof keyslots);
    keyslots[3][0] = 1;
    faultdev_fail(d, FAULT_SYNC, 1, -EIO, NULL); /* one copy is new */
    assert_int_equal(store_set_keyslots(s, keyslots), -EIO);
    left = left_by(d);
    store_close(s);
    faultdev_peek(left, a, sizeof a, SUPERBLOCK_A);
    faultdev_peek(left, b, sizeof b, SUPERBLOCK_B);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(open_with(left, false, &user_key, &s), 0);
    assert_int_equal(store_superblock(s)->keyslots[3][0], 1);
    faultdev_peek(left, a, sizeof a, SUPERBLOCK_A);
    faultdev_peek(left, b, sizeof b, SUPERBLOCK_B);
    assert_memory_equal(a, b, sizeof a);
    store_close(s);
}

static void
a_reseal_leaves_nothing_that_the_old_key_opens(void **state)
{
    struct dev *d = written_image(&user_key), *left;
    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE], block[BLOCK_SIZE];
    struct store *s = NULL;
    int banks = 0;

    (void)state;
    assert_int_equal(open_with(d, false, &user_key, &s), 0);
    testseal_keyslots(0x2222, 0x3333, keyslots);
    assert_int_equal(store_reseal(s, testseal_keyed(0x2222), keyslots, 16), 0);
    assert_int_equal(info_of(s).key_epoch, 2);
    assert_int_equal(info_of(s).key_size, 16);
    shows(s, "a", "two", NULL);
    shows(s, "b", "bee", NULL);
    assert_int_equal(put(s, "a", "three"), 0);
    left = left_by(d);
    for (uint32_t slot = 0; slot < 6; slot++) {
        for (unsigned bank = 0; bank < 2; bank++) {
            faultdev_peek(left, block, sizeof block,
                          superblock_bank_offset(store_superblock(s), slot, bank));
            banks += !bytes_are_zero(block, sizeof block);
        }
    }
    assert_int_equal(banks, 3);
    store_close(s);
    assert_int_equal(finding(faultdev_fork(left), false, &user_key), -EKEYREJECTED);
    assert_int_equal(open_with(left, false, &(uint64_t){0x3333}, &s), 0);
    shows(s, "a", "three", "two");
    store_close(s);
}

static void
key_changes_fail_as_commits_do(void **state)
{
    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE];

    (void)state;
    testseal_keyslots(0x2222, user_key, keyslots);
    for (unsigned long nth = 0;; nth++) {
        struct dev *d = written_image(&user_key);
        struct store *s = NULL;
        int r;

        assert_int_equal(open_with(d, false, &user_key, &s), 0);
        faultdev_fail(d, nth % 2 ? FAULT_SYNC : FAULT_WRITE, nth / 2, -EIO, NULL);
        r = store_reseal(s, testseal_keyed(0x2222), keyslots, 32);
        if (r == 0) {
            store_close(s);
            assert_true(nth >= 8);
            break;
        }
        assert_int_equal(r, -EIO);
        assert_int_equal(put(s, "a", "x"), -EROFS);
        store_close(s);
    }
}

/* ---- main
 * ------------------------------------------------------------------------------------------ */

static void
swallow(void *arg, enum report_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_layout_keeps_copies_apart_and_decodes),
    cmocka_unit_test(a_layout_rounds_capacities_up),
    cmocka_unit_test(an_impossible_layout_is_refused),
    cmocka_unit_test(an_image_too_small_tells_what_it_takes),
    cmocka_unit_test(a_new_image_is_empty_clean_and_has_its_root),
    cmocka_unit_test(opening_a_settled_image_writes_nothing),
    cmocka_unit_test(formatting_leaves_nothing_of_an_older_image),
    cmocka_unit_test(formatting_a_device_too_small_writes_nothing),
    cmocka_unit_test(a_format_cut_short_is_never_taken_for_an_image),
    cmocka_unit_test(a_failing_flush_fails_the_format),
    cmocka_unit_test(promises_are_made_at_format_time),
    cmocka_unit_test(promises_that_cannot_be_made_fail_the_format),
    cmocka_unit_test(a_blank_device_is_blank),
    cmocka_unit_test(one_foreign_byte_anywhere_is_foreign),
    cmocka_unit_test(zeroed_superblocks_above_our_structures_are_damage),
    cmocka_unit_test(one_superblock_is_enough),
    cmocka_unit_test(two_damaged_superblocks_are_damage),
    cmocka_unit_test(a_device_shorter_than_its_image_is_truncated),
    cmocka_unit_test(feature_words_decide_who_may_open),
    cmocka_unit_test(keys_are_asked_for_as_the_image_needs),
    cmocka_unit_test(an_io_error_is_not_a_finding),
    cmocka_unit_test(a_flush_that_fails_at_the_mount_fails_it),
    cmocka_unit_test(a_torn_last_commit_is_undone_reported_and_counted),
    cmocka_unit_test(a_recovery_that_fails_can_be_done_again),
    cmocka_unit_test(a_reader_shows_the_commit_before_a_torn_one_and_writes_nothing),
    cmocka_unit_test(a_clean_directory_is_never_fallen_back_from),
    cmocka_unit_test(damage_to_an_older_content_is_not_a_torn_commit),
    cmocka_unit_test(damage_to_an_older_content_is_none_even_if_the_older_directory_lacks_it),
    cmocka_unit_test(damage_besides_the_torn_content_is_damage),
    cmocka_unit_test(a_torn_commit_without_a_whole_one_before_is_damage),
    cmocka_unit_test(two_directories_of_one_generation_are_damage),
    cmocka_unit_test(a_directory_in_the_other_ones_place_is_not_taken),
    cmocka_unit_test(new_generations_are_above_any_ever_seen),
    cmocka_unit_test(a_superblock_older_than_the_directory_demands_is_a_rollback),
    cmocka_unit_test(degraded_reading_serves_what_is_intact),
    cmocka_unit_test(a_directory_under_a_bad_sector_is_passed_over_by_degraded_reading_only),
    cmocka_unit_test(hostile_images_do_no_harm),
    cmocka_unit_test(what_was_changed_without_the_key_is_forged),
    cmocka_unit_test(a_bank_moved_to_another_place_is_forged),
    cmocka_unit_test(no_content_stands_in_the_clear_in_a_sealed_image),
    cmocka_unit_test(a_commit_is_one_flush),
    cmocka_unit_test(a_file_keeps_what_it_was_given),
    cmocka_unit_test(an_empty_file_takes_no_bank_and_keeps_what_was_before),
    cmocka_unit_test(attributes_change_without_content),
    cmocka_unit_test(what_was_before_is_told_for_every_way_to_replace),
    cmocka_unit_test(an_exchange_swaps_names_and_all_else_follows),
    cmocka_unit_test(forgetting_drops_tombstones_and_contents_before),
    cmocka_unit_test(a_content_before_goes_stale_when_its_bank_is_used),
    cmocka_unit_test(several_changes_are_one_commit_in_their_order),
    cmocka_unit_test(a_file_moved_to_a_smaller_slot_in_the_same_commit_must_fit_there),
    cmocka_unit_test(nothing_is_on_its_way_after_a_commit_that_failed),
    cmocka_unit_test(a_write_that_fails_after_its_commit_has_ends_writing),
    cmocka_unit_test(a_tpm_once_held_is_remembered),
    cmocka_unit_test(a_change_that_does_not_fit_fails_all_before_anything_is_written),
    cmocka_unit_test(the_smallest_free_slot_that_fits_is_taken),
    cmocka_unit_test(a_held_slot_outlives_its_file),
    cmocka_unit_test(slots_whose_reuse_loses_least_go_first),
    cmocka_unit_test(a_tombstone_goes_when_its_bank_is_used),
    cmocka_unit_test(an_overwrite_never_lacks_room),
    cmocka_unit_test(a_promised_slot_is_kept_for_its_name),
    cmocka_unit_test(a_promise_stays_with_its_name_through_a_rename),
    cmocka_unit_test(a_promise_that_is_given_up_leaves_what_else_there_is_of_the_name),
    cmocka_unit_test(settling_marks_clean_once),
    cmocka_unit_test(the_first_reason_to_be_read_only_stays),
    cmocka_unit_test(after_a_failed_flush_reads_come_from_the_medium),
    cmocka_unit_test(a_touch_that_changes_nothing_is_harmless),
    cmocka_unit_test(another_writer_makes_the_store_read_only_for_good),
    cmocka_unit_test(another_writers_bank_is_noticed_when_it_settles),
    cmocka_unit_test(a_read_error_is_told_and_nothing_else),
    cmocka_unit_test(a_snapshot_is_a_clean_image_of_its_moment),
    cmocka_unit_test(a_new_generation_has_a_new_snapshot),
    cmocka_unit_test(a_sealed_snapshot_opens_with_its_key_only),
    cmocka_unit_test(what_lies_in_a_directorys_place_is_not_written_again),
    cmocka_unit_test(what_may_lie_there_no_more_is_written_whole),
    cmocka_unit_test(what_has_rotted_there_is_healed_when_it_settles),
    cmocka_unit_test(an_image_without_seal_has_no_keys_to_change),
    cmocka_unit_test(new_key_slots_shut_out_old_keys_and_old_superblocks),
    cmocka_unit_test(an_interrupted_update_of_the_superblocks_is_finished),
    cmocka_unit_test(a_reseal_leaves_nothing_that_the_old_key_opens),
    cmocka_unit_test(key_changes_fail_as_commits_do),
};

int
main(void)
{
    report_set_sink(swallow, NULL);
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
