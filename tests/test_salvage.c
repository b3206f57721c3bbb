/* SPDX-License-Identifier: BSD-3-Clause */
/* Salvage finds every content that is whole, and nothing else; repair mends, and no crash of it
 * costs anything.  On a device double. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/check.h"
#include "core/salvage.h"
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

enum { SLOTS = 4, CAPACITY = 4 * BLOCK_SIZE, MAX_FOUND = 16, MAX_PENDING = 16 };

static const uint64_t user_key = 42, wrong_key = 43;
static const uint64_t *key; /* of the image; NULL: not sealed */

/* ---- images ------------------------------------------------------------------------------------
 */

static struct dev *
new_image(const uint64_t *with_key)
{
    const struct slot_class class = {SLOTS, CAPACITY};
    struct format_spec spec = {.classes = &class, .n_classes = 1, .uuid = {1, 2, 3}};

    key = with_key;
    if (key)
        testimage_seal(&spec, 1000, *key);
    return testimage_new(&spec, 1000, 0);
}

static int
open_with(struct dev *d, const uint64_t *k, bool repair, struct store **s)
{
    const struct store_options opt = {
        .repair = repair, .unlock = testseal_unlock, .unlock_arg = (void *)(uintptr_t)k};

    return store_open(s, d, &opt);
}

static void
put(struct store *s, const char *name, const void *data, size_t len)
{
    assert_int_equal(testimage_put(s, name, data, len, NULL), 0);
}

/* "a" was "one", is "two"; "b" is "three"; "gone" was "four", and is deleted.  Returned closed. */
static struct dev *
image_with_files(const uint64_t *with_key)
{
    struct dev *d = new_image(with_key), *left;
    struct store *s;

    assert_int_equal(open_with(d, key, false, &s), 0);
    put(s, "a", "one", 3);
    put(s, "a", "two", 3);
    put(s, "b", "three", 5);
    put(s, "gone", "four", 4);
    assert_int_equal(testimage_unlink(s, "gone"), 0);
    assert_int_equal(store_settle(s), 0);
    left = faultdev_fork(d);
    store_close(s);
    return left;
}

static struct entry
entry_of(struct dev *d, const char *name)
{
    struct entry e;
    struct store *s;

    assert_int_equal(open_with(faultdev_fork(d), key, false, &s), 0);
    assert_int_equal(store_find(s, name, &e), 0);
    store_close(s);
    return e;
}

static uint64_t
place_of(struct dev *d, const struct content *c)
{
    const struct superblock sb = superblock_of(d);

    return superblock_bank_offset(&sb, c->slot, c->bank);
}

/* ---- salvage -----------------------------------------------------------------------------------
 */

struct found {
    unsigned n, lost;
    struct {
        enum salvage_role role;
        char name[32], data[32];
        uint64_t generation;
    } list[MAX_FOUND];
};

static int
take(void *arg, const struct salvaged *s, const uint8_t *data)
{
    struct found *f = arg;

    assert_true(f->n < MAX_FOUND);
    f->list[f->n].role = s->role;
    f->list[f->n].generation = s->generation;
    snprintf(f->list[f->n].name, sizeof f->list[0].name, "%s", s->name ? s->name : "");
    snprintf(f->list[f->n].data, sizeof f->list[0].data, "%.*s", (int)s->length, data);
    f->n++;
    return 0;
}

/* Takes over @d, and proves that nothing was written. */
static int
salvage(struct dev *d, const uint64_t *k, struct found *f)
{
    unsigned n;
    int r;

    memset(f, 0, sizeof *f);
    r = store_salvage(d, testseal_unlock, (void *)(uintptr_t)k, take, f, &n, &f->lost);
    assert_int_equal(n, f->n);
    assert_int_equal(faultdev_count(d, FAULT_WRITE), 0);
    dev_close(d);
    return r;
}

static bool
has(const struct found *f, enum salvage_role role, const char *name, const char *data)
{
    for (unsigned i = 0; i < f->n; i++) {
        if (f->list[i].role == role && strcmp(f->list[i].name, name) == 0 &&
            strcmp(f->list[i].data, data) == 0)
            return true;
    }
    return false;
}

static void
salvage_finds_current_previous_and_deleted_contents(void **state)
{
    const uint64_t *keys[] = {NULL, &user_key};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct dev *d = image_with_files(keys[i]);
        struct found f;

        assert_int_equal(salvage(d, key, &f), 0);
        assert_int_equal(f.n, 4);
        assert_int_equal(f.lost, 0);
        assert_true(has(&f, SALVAGE_CURRENT, "a", "two"));
        assert_true(has(&f, SALVAGE_PREVIOUS, "a", "one"));
        assert_true(has(&f, SALVAGE_CURRENT, "b", "three"));
        assert_true(has(&f, SALVAGE_PREVIOUS, "gone", "four"));
    }
}

static void
scribble(struct dev *d, uint64_t off)
{
    faultdev_poke(d, "scribble", 8, off + 100);
}

static void
a_damaged_content_is_counted_and_not_written(void **state)
{
    struct dev *d = image_with_files(NULL);
    struct entry a = entry_of(d, "a");
    struct found f;

    (void)state;
    faultdev_spoil(d, place_of(d, &a.current) + BANK_HEADER);
    assert_int_equal(salvage(d, key, &f), 0);
    assert_int_equal(f.n, 3);
    assert_int_equal(f.lost, 1);
    assert_true(has(&f, SALVAGE_PREVIOUS, "a", "one"));
}

/* Its header is gone, or it lies behind the end of what is left of the image. */
static void
a_content_that_is_not_found_is_counted(void **state)
{
    (void)state;
    for (int cut = 0; cut < 2; cut++) {
        struct dev *d = image_with_files(NULL), *rest;
        const struct entry a = entry_of(d, "a"), b = entry_of(d, "b");
        const uint64_t at = place_of(d, &b.current);
        static const uint8_t zeros[BLOCK_SIZE];
        uint8_t block[BLOCK_SIZE];
        struct found f;

        assert_true(place_of(d, &a.current) > at && place_of(d, &a.previous) < at);
        rest = cut ? faultdev_new(at) : faultdev_fork(d);
        for (uint64_t off = 0; cut && off < at; off += sizeof block) {
            faultdev_peek(d, block, sizeof block, off);
            faultdev_poke(rest, block, sizeof block, off);
        }
        if (!cut)
            faultdev_poke(rest, zeros, sizeof zeros, at);
        assert_int_equal(salvage(rest, key, &f), 0);
        assert_int_equal(f.lost, cut ? 2 : 1);
        assert_true(has(&f, SALVAGE_CURRENT, "a", "two") != cut);
        assert_true(has(&f, SALVAGE_PREVIOUS, "a", "one"));
        assert_false(has(&f, SALVAGE_CURRENT, "b", "three"));
        dev_close(d);
    }
}

static void
without_directories_contents_are_loose(void **state)
{
    struct dev *d = image_with_files(NULL);
    const struct superblock sb = superblock_of(d);
    struct found f;

    (void)state;
    scribble(d, sb.dir_off[0]);
    scribble(d, sb.dir_off[1]);
    assert_int_equal(salvage(faultdev_fork(d), key, &f), 0);
    assert_int_equal(f.n, 4);
    assert_true(has(&f, SALVAGE_LOOSE, "", "two"));
    scribble(d, SUPERBLOCK_A);
    scribble(d, SUPERBLOCK_B);
    assert_int_equal(salvage(d, key, &f), 0); /* and without superblocks */
    assert_int_equal(f.n, 4);
    assert_true(has(&f, SALVAGE_LOOSE, "", "four"));
}

static void
a_sealed_image_gives_nothing_without_its_key(void **state)
{
    struct dev *d = image_with_files(&user_key);
    struct found f;

    (void)state;
    assert_int_equal(salvage(faultdev_fork(d), NULL, &f), -ENOKEY);
    assert_int_equal(f.n, 0);
    assert_int_equal(salvage(faultdev_fork(d), &wrong_key, &f), -EKEYREJECTED);
    assert_int_equal(f.n, 0);
    scribble(d, SUPERBLOCK_A); /* nothing tells how to open it */
    scribble(d, SUPERBLOCK_B);
    assert_int_equal(salvage(d, key, &f), 0);
    assert_int_equal(f.n, 0);
    assert_int_equal(f.lost, 4);
}

/* A content that was forged, its checksum right, is not handed out. */
static void
a_forged_content_is_not_handed_out(void **state)
{
    struct dev *d = image_with_files(&user_key);
    struct entry b = entry_of(d, "b");
    uint64_t at = place_of(d, &b.current);
    uint8_t bank[2 * BLOCK_SIZE];
    struct found f;

    (void)state;
    faultdev_peek(d, bank, sizeof bank, at);
    bank[BANK_HEADER] ^= 1;
    format_set_crc(bank, sizeof bank);
    faultdev_poke(d, bank, sizeof bank, at);
    assert_int_equal(salvage(d, key, &f), 0);
    assert_int_equal(f.n, 3);
    assert_int_equal(f.lost, 1);
    assert_false(has(&f, SALVAGE_CURRENT, "b", "three"));
}

/* What a file holds may look like a bank. */
static void
a_bank_inside_of_a_file_is_only_that_files_content(void **state)
{
    struct dev *d = image_with_files(NULL), *left;
    struct entry a = entry_of(d, "a");
    uint8_t bank[2 * BLOCK_SIZE];
    struct store *s;
    struct found f;

    (void)state;
    faultdev_peek(d, bank, sizeof bank, place_of(d, &a.current));
    assert_int_equal(open_with(d, key, false, &s), 0);
    put(s, "nested", bank, sizeof bank);
    left = faultdev_fork(d);
    store_close(s);
    assert_int_equal(salvage(faultdev_fork(left), key, &f), 0);
    assert_int_equal(f.n, 5);
    /* Nor when the file around it is damaged. */
    a = entry_of(left, "nested");
    scribble(left, place_of(left, &a.current));
    assert_int_equal(salvage(left, key, &f), 0);
    assert_int_equal(f.n, 4);
    assert_int_equal(f.lost, 1);
}

/* ---- bytes that are read ---- */
static const struct dev_ops *counted_ops; /* behind the counter */
static uint64_t bytes_read;

static int
count_pread(struct dev *d, void *buf, size_t n, uint64_t off)
{
    bytes_read += n;
    return counted_ops->pread(d, buf, n, off);
}

/* Each block claims to be the beginning of a content that takes all the rest; with the right
 * checksum (@whole), but of no generation, or without. */
static struct dev *
hostile_image(bool whole, bool with_superblock)
{
    static struct dev_ops ops;
    struct dev *d = image_with_files(NULL), *big;
    struct entry b = entry_of(d, "b");
    AUTO_FREE uint8_t *all = dev_alloc(d->size);
    uint8_t header[BLOCK_SIZE];

    faultdev_peek(d, all, d->size, 0);
    faultdev_peek(d, header, sizeof header, place_of(d, &b.current));
    for (uint64_t off = d->size - BLOCK_SIZE; off >= FIRST_DIRECTORY; off -= BLOCK_SIZE) {
        uint64_t len = d->size - off;

        if (with_superblock && off < place_of(d, &b.current))
            break;
        memcpy(all + off, header, sizeof header);
        store_le64(all + off + 48, len - BANK_HEADER ? len - BANK_HEADER : 1); /* the length */
        store_le64(all + off + 32, whole ? 0 : 5);                             /* the generation */
        if (whole)
            format_set_crc(all + off, len);
        else
            all[off + CRC_OFFSET] ^= 1;
    }
    big = faultdev_new(d->size);
    faultdev_poke(big, all, d->size, 0);
    if (!with_superblock)
        faultdev_poke(big, memset(header, 0, sizeof header), sizeof header, SUPERBLOCK_A);
    if (!with_superblock)
        faultdev_poke(big, header, sizeof header, SUPERBLOCK_B);
    dev_close(d);
    counted_ops = big->ops;
    ops = *big->ops;
    ops.pread = count_pread;
    big->ops = &ops;
    bytes_read = 0;
    return big;
}

static void
a_hostile_image_is_read_a_few_times_only(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct dev *d = hostile_image(i % 2, i / 2);
        uint64_t size = d->size;
        struct found f;

        assert_int_equal(salvage(d, NULL, &f), 0);
        if (f.lost == 0)
            fail_msg("image %u: nothing is lost, %u found", i, f.n);
        if (bytes_read > 6 * size)
            fail_msg("image %u: %" PRIu64 " bytes read of %" PRIu64, i, bytes_read, size);
    }
}

static void
bad_sectors_are_passed_over(void **state)
{
    struct dev *d = image_with_files(NULL);

    (void)state;
    for (unsigned long nth = 0; nth < 200; nth++) {
        struct dev *one = faultdev_fork(d);
        struct found f;
        int r;

        faultdev_fail(one, FAULT_READ, nth, -EIO, NULL);
        r = salvage(one, key, &f);
        assert_int_equal(r, 0);
        assert_true(f.n >= 3);
    }
    dev_close(d);
}

static void
a_bad_sector_costs_a_degraded_reader_nothing_but_what_lies_there(void **state)
{
    const struct store_options opt = {
        .read_only = true, .degraded = true, .unlock = testseal_unlock};
    struct dev *d = image_with_files(NULL);

    (void)state;
    for (unsigned long nth = 0; nth < 8; nth++) { /* superblocks, directories, contents */
        struct dev *one = faultdev_fork(d);
        struct store *s;
        struct entry e;

        faultdev_fail(one, FAULT_READ, nth, -EIO, NULL);
        assert_int_equal(store_open(&s, one, &opt), 0);
        assert_int_equal(store_find(s, "a", &e), 0);
        assert_int_equal(store_find(s, "b", &e), 0);
        store_close(s);
    }
    dev_close(d);
}

/* ---- repair ------------------------------------------------------------------------------------
 */

static void
no_note(void *arg, int r, const char *where, const char *text)
{
    (void)r, (void)where, (void)text;
    ++*(unsigned *)arg;
}

/* 0 and without a remark. */
static bool
is_clean(const struct dev *d)
{
    struct dev *one = faultdev_fork(d);
    struct check_result res;
    unsigned notes = 0;
    int r = check_image(one, testseal_unlock, (void *)(uintptr_t)key, no_note, &notes, &res);

    dev_close(one);
    return r == 0 && notes == 0;
}

static void
must_show_all(struct store *s)
{
    static const char *const files[][2] = {{"a", "two"}, {"b", "three"}};
    struct entry e;
    char data[8] = "";

    for (int i = 0; i < 2; i++) {
        assert_int_equal(store_find(s, files[i][0], &e), 0);
        assert_int_equal(e.current.length, strlen(files[i][1]));
        assert_int_equal(store_read(s, &e.current, data), 0);
        assert_memory_equal(data, files[i][1], strlen(files[i][1]));
    }
    assert_int_equal(store_find(s, "gone", &e), 0);
    assert_int_equal(e.kind, ENTRY_TOMBSTONE);
}

/* Repairs @d, which is taken over; returns what it is then. */
static struct dev *
repair(struct dev *d)
{
    struct dev *left;
    struct store *s;

    assert_int_equal(open_with(d, key, true, &s), 0);
    must_show_all(s);
    assert_int_equal(store_settle(s), 0);
    left = faultdev_fork(d);
    store_close(s);
    return left;
}

static unsigned long crashes;

/* A crash has left @d: it opens, shows everything, and another repair finishes the work. */
static void
survive(struct dev *d)
{
    struct dev *left;
    struct store *s;

    crashes++;
    assert_int_equal(open_with(faultdev_fork(d), key, false, &s), 0);
    must_show_all(s);
    store_close(s);
    left = repair(d);
    assert_true(is_clean(left));
    dev_close(left);
}

static void
crash(void *arg, const struct dev *d)
{
    size_t n = faultdev_pending(d);
    uint8_t masks[MAX_PENDING];

    (void)arg;
    assert_true(n <= MAX_PENDING && n < 8);
    for (unsigned subset = 0; subset < 1U << n; subset++) {
        for (size_t i = 0; i < n; i++)
            masks[i] = subset >> i & 1 ? WHOLE : 0;
        survive(faultdev_cut(d, masks));
        survive(faultdev_flush_failed(d, masks));
    }
    for (size_t i = 0; i < n; i++) {
        memset(masks, WHOLE, n);
        for (int sector = 0; sector < SECTORS; sector++) {
            masks[i] = (uint8_t)((1 << sector) - 1);
            survive(faultdev_cut(d, masks));
            masks[i] = (uint8_t)(WHOLE ^ 1 << sector);
            survive(faultdev_cut(d, masks));
        }
    }
    for (size_t i = 0; i <= n; i++)
        survive(faultdev_kill(d, i));
}

static void
repair_mends_each_structure_and_no_crash_of_it_costs_anything(void **state)
{
    const uint64_t *keys[] = {NULL, &user_key};

    (void)state;
    crashes = 0;
    for (int i = 0; i < 2; i++) {
        struct dev *d = image_with_files(keys[i]);
        const struct superblock sb = superblock_of(d);
        const uint64_t places[] = {SUPERBLOCK_A, SUPERBLOCK_B, sb.dir_off[0], sb.dir_off[1]};

        /* each structure, and each pair of one superblock and one directory */
        for (unsigned set = 1; set < 16; set++) {
            struct dev *bad;

            if ((set & 3) == 3 || (set & 12) == 12)
                continue;
            bad = faultdev_fork(d);
            for (int k = 0; k < 4; k++) {
                if (set >> k & 1)
                    scribble(bad, places[k]);
            }
            assert_false(is_clean(bad));
            faultdev_watch(bad, crash, NULL);
            bad = repair(bad);
            assert_true(is_clean(bad));
            dev_close(bad);
        }
        dev_close(d);
    }
    print_message("%lu crashes of repairs\n", crashes);
    assert_true(crashes > 200);
}

static void
a_superblock_on_a_bad_sector_is_written_anew(void **state)
{
    (void)state;
    for (unsigned long copy = 0; copy < 2; copy++) {
        struct dev *d = image_with_files(NULL), *left;
        struct store *s;

        faultdev_fail(d, FAULT_READ, copy, -EIO, NULL);
        assert_int_equal(open_with(d, key, true, &s), 0);
        must_show_all(s);
        assert_int_equal(faultdev_count(d, FAULT_WRITE), 1);
        left = faultdev_fork(d);
        store_close(s);
        assert_true(is_clean(left));
        dev_close(left);
    }
}

static void
repair_leaves_alone_what_has_no_good_copy(void **state)
{
    struct dev *d = image_with_files(NULL);
    const struct superblock sb = superblock_of(d);
    const struct entry a = entry_of(d, "a");
    const uint64_t sets[][2] = {
        {SUPERBLOCK_A, SUPERBLOCK_B},
        {sb.dir_off[0], sb.dir_off[1]},
        {place_of(d, &a.current), place_of(d, &a.current)},
        {place_of(d, &a.current), SUPERBLOCK_B},
    };

    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        struct dev *bad = faultdev_fork(d);
        struct store *s;

        scribble(bad, sets[i][0]);
        scribble(bad, sets[i][1] + 8);
        assert_int_equal(open_with(bad, key, true, &s), -EUCLEAN);
        assert_int_equal(faultdev_count(bad, FAULT_WRITE), 0);
        dev_close(bad);
    }
    dev_close(d);
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
        cmocka_unit_test(salvage_finds_current_previous_and_deleted_contents),
        cmocka_unit_test(a_damaged_content_is_counted_and_not_written),
        cmocka_unit_test(a_content_that_is_not_found_is_counted),
        cmocka_unit_test(without_directories_contents_are_loose),
        cmocka_unit_test(a_sealed_image_gives_nothing_without_its_key),
        cmocka_unit_test(a_forged_content_is_not_handed_out),
        cmocka_unit_test(a_bank_inside_of_a_file_is_only_that_files_content),
        cmocka_unit_test(a_hostile_image_is_read_a_few_times_only),
        cmocka_unit_test(bad_sectors_are_passed_over),
        cmocka_unit_test(a_bad_sector_costs_a_degraded_reader_nothing_but_what_lies_there),
        cmocka_unit_test(repair_mends_each_structure_and_no_crash_of_it_costs_anything),
        cmocka_unit_test(a_superblock_on_a_bad_sector_is_written_anew),
        cmocka_unit_test(repair_leaves_alone_what_has_no_good_copy),
    };

    report_set_sink(swallow, NULL);
    return cmocka_run_group_tests_name("salvage", tests, NULL, NULL);
}
