/* SPDX-License-Identifier: BSD-3-Clause */
/* check_image() on a corpus of damaged images: what it finds, where, and that it agrees with a
 * mount. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/check.h"
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

static struct dev *
format_image(bool sealed)
{
    static const struct slot_class classes[] = {{4, 8192}};
    struct format_spec spec = {.classes = classes, .n_classes = 1, .uuid = {0xaa, 0xbb}};

    if (sealed)
        testimage_seal(&spec, volume_key, user_key);
    return testimage_new(&spec, volume_key, 0);
}

static int
open_image(struct dev *d, const uint64_t *key, struct store **s)
{
    const struct store_options opt = {.unlock = testseal_unlock,
                                      .unlock_arg = (void *)(uintptr_t)key};

    return store_open(s, d, &opt);
}

static void
put(struct store *s, const char *name, const char *text)
{
    assert_int_equal(testimage_put(s, name, text, strlen(text), NULL), 0);
}

/* "b" is written, then "a" twice; settled or not. */
static struct dev *
written_image(bool sealed, bool settled)
{
    struct dev *d = format_image(sealed), *left;
    struct store *s = NULL;

    assert_int_equal(open_image(d, sealed ? &user_key : NULL, &s), 0);
    put(s, "b", "bee");
    put(s, "a", "one");
    put(s, "a", "two");
    if (settled)
        assert_int_equal(store_settle(s), 0);
    left = faultdev_cut(d, NULL);
    store_close(s);
    return left;
}

/* Decodes directory @index, lets @edit change it and writes it, made good. */
static void
edit_directory(struct dev *d, unsigned index, void (*edit)(struct directory *))
{
    testimage_edit_directory(d, index, volume_key, edit);
}

/* The place of a content of @name that the newest directory names. */
static uint64_t
place_of(struct dev *d, const char *name, bool previous)
{
    const struct superblock sb = superblock_of(d);
    AUTO(directory_fini) struct directory dir = {0};
    uint8_t buf[BLOCK_SIZE];

    faultdev_peek(d, buf, sizeof buf, sb.dir_off[newest_directory(d)]);
    assert_int_equal(directory_decode(&dir, buf, sizeof buf, &sb), 0);
    for (uint32_t i = 0; i < dir.n_entries; i++) {
        const struct entry *e = &dir.entries[i];
        const struct content *c = previous ? &e->previous : &e->current;

        if (strcmp(e->name, name) == 0)
            return superblock_bank_offset(&sb, c->slot, c->bank);
    }
    fail_msg("no %s", name);
    return 0;
}

/* ---- the findings
 * -------------------------------------------------------------------------------- */

struct findings {
    char text[4096]; /* a line each: "errno where: text" */
    unsigned problems, remarks;
};

static void
collect(void *arg, int r, const char *where, const char *text)
{
    struct findings *f = arg;
    size_t was = strlen(f->text);

    snprintf(f->text + was, sizeof f->text - was, "%d %s: %s\n", r, where, text);
    f->problems += r < 0;
    f->remarks += r == 0;
}

/* Checks; nothing may be written. */
static int
check(struct dev *d, const uint64_t *key, struct findings *f, struct check_result *res)
{
    unsigned long writes = faultdev_count(d, FAULT_WRITE), syncs = faultdev_count(d, FAULT_SYNC);
    int r;

    *f = (struct findings){.problems = 0};
    r = check_image(d, testseal_unlock, (void *)(uintptr_t)key, collect, f, res);
    assert_int_equal(faultdev_count(d, FAULT_WRITE), writes);
    assert_int_equal(faultdev_count(d, FAULT_SYNC), syncs);
    if (r == res->worst)
        assert_int_equal(f->problems, res->problems);
    return r;
}

static void
a_whole_image_has_nothing_to_say(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        bool sealed = k & 1;
        AUTO(dev_closep) struct dev *d = k < 2 ? format_image(sealed) : written_image(sealed, true);
        struct check_result res;
        struct findings f;

        assert_int_equal(check(d, sealed ? &user_key : NULL, &f, &res), 0);
        assert_string_equal(f.text, "");
        assert_int_equal(res.authenticated, sealed);
        assert_int_equal(res.structures, k < 2 ? 4 : 7); /* a, b and what a held before */
    }
}

/* ---- the corpus
 * ---------------------------------------------------------------------------------- */

static void
zero_block(struct dev *d, uint64_t off)
{
    static const uint8_t zeros[BLOCK_SIZE];

    faultdev_poke(d, zeros, sizeof zeros, off);
}

/* With the checksum made good, as somebody without the key would. */
static void
flip_and_forge(struct dev *d, uint64_t at, size_t len, size_t byte)
{
    static uint8_t buf[2 * BLOCK_SIZE];

    faultdev_peek(d, buf, len, at);
    buf[byte] ^= 0x40;
    format_set_crc(buf, len);
    faultdev_poke(d, buf, len, at);
}

static void
superblock_a_flipped(struct dev *d)
{
    faultdev_spoil(d, SUPERBLOCK_A + 64);
}

static void
superblock_b_gone(struct dev *d)
{
    zero_block(d, SUPERBLOCK_B);
}

static void
both_superblocks_flipped(struct dev *d)
{
    faultdev_spoil(d, SUPERBLOCK_A + 64);
    faultdev_spoil(d, SUPERBLOCK_B + 4000);
}

static void
both_superblocks_gone(struct dev *d)
{
    zero_block(d, SUPERBLOCK_A);
    zero_block(d, SUPERBLOCK_B);
}

static void
superblocks_contradict(struct dev *d)
{
    struct superblock sb = superblock_of(d);
    AUTO(sealer_freep)
    struct sealer *sealer = sb.seal_mode ? testseal_keyed(volume_key) : testseal_plain();
    uint8_t buf[BLOCK_SIZE];

    sb.created++;
    superblock_encode(&sb, buf);
    assert_int_equal(format_seal(sealer, SEAL_SUPERBLOCK, buf, sizeof buf), 0);
    faultdev_poke(d, buf, sizeof buf, SUPERBLOCK_B);
}

static void
superblocks_of_a_newer_version(struct dev *d)
{
    uint8_t buf[BLOCK_SIZE];

    faultdev_peek(d, buf, sizeof buf, SUPERBLOCK_A);
    store_le16(buf + 12, FORMAT_VERSION + 1);
    format_set_crc(buf, sizeof buf);
    faultdev_poke(d, buf, sizeof buf, SUPERBLOCK_A);
    faultdev_poke(d, buf, sizeof buf, SUPERBLOCK_B);
}

static void
older_directory_flipped(struct dev *d)
{
    faultdev_spoil(d, superblock_of(d).dir_off[1 - newest_directory(d)] + 70);
}

static void
newest_directory_flipped(struct dev *d)
{
    faultdev_spoil(d, superblock_of(d).dir_off[newest_directory(d)] + 70);
}

static void
older_directory_gone(struct dev *d)
{
    zero_block(d, superblock_of(d).dir_off[1 - newest_directory(d)]);
}

static void
both_directories_flipped(struct dev *d)
{
    faultdev_spoil(d, superblock_of(d).dir_off[0] + 70);
    faultdev_spoil(d, superblock_of(d).dir_off[1] + 300);
}

static void
content_of_a_flipped(struct dev *d)
{
    faultdev_spoil(d, place_of(d, "a", false) + BLOCK_SIZE);
}

static void
mark_clean(struct directory *dir)
{
    dir->clean = true;
}

static void
content_of_a_clean_directory_flipped(struct dev *d)
{
    edit_directory(d, newest_directory(d), mark_clean);
    content_of_a_flipped(d);
}

static void
content_of_b_flipped(struct dev *d)
{
    faultdev_spoil(d, place_of(d, "b", false) + BLOCK_SIZE + 4095);
}

static void
header_of_b_gone(struct dev *d)
{
    zero_block(d, place_of(d, "b", false));
}

static void
content_before_a_flipped(struct dev *d)
{
    faultdev_spoil(d, place_of(d, "a", true) + 40);
}

static void
content_before_a_put_back(struct dev *d)
{
    uint8_t buf[2 * BLOCK_SIZE];

    faultdev_peek(d, buf, sizeof buf, place_of(d, "a", true));
    faultdev_poke(d, buf, sizeof buf, place_of(d, "a", false));
}

static void
step_back(struct directory *dir)
{
    dir->generation++;
}

static void
directories_of_one_generation(struct dev *d)
{
    edit_directory(d, 1 - newest_directory(d), step_back);
}

static void
demand_newer(struct directory *dir)
{
    dir->superblock_sequence = 9;
}

static void
superblock_rolled_back(struct dev *d)
{
    edit_directory(d, newest_directory(d), demand_newer);
}

static void
superblock_forged(struct dev *d)
{
    flip_and_forge(d, SUPERBLOCK_B, BLOCK_SIZE, 104);
}

static void
directory_forged(struct dev *d)
{
    flip_and_forge(d, superblock_of(d).dir_off[1], BLOCK_SIZE, 184);
}

static void
content_forged(struct dev *d)
{
    flip_and_forge(d, place_of(d, "b", false), 2 * BLOCK_SIZE, BLOCK_SIZE);
}

static void
contents_swapped(struct dev *d)
{
    uint8_t a[2 * BLOCK_SIZE], b[2 * BLOCK_SIZE];

    faultdev_peek(d, a, sizeof a, place_of(d, "a", false));
    faultdev_peek(d, b, sizeof b, place_of(d, "b", false));
    faultdev_poke(d, b, sizeof b, place_of(d, "a", false));
    faultdev_poke(d, a, sizeof a, place_of(d, "b", false));
}

enum { PLAIN, SEALED, KEYLESS }; /* KEYLESS: a sealed image checked without its key */

static const struct sample {
    void (*damage)(struct dev *d);
    int kind;
    bool settled;
    int want;         /* of check_image() */
    int opens;        /* what store_open() with the key says */
    const char *says; /* in the findings */
} corpus[] = {
    {superblock_a_flipped, PLAIN, true, -EUCLEAN, 0, "superblock A: damaged"},
    {superblock_b_gone, PLAIN, true, -EUCLEAN, 0, "superblock B: missing"},
    {both_superblocks_flipped, PLAIN, true, -EUCLEAN, -EUCLEAN, "no superblock"},
    {both_superblocks_gone, PLAIN, true, -EUCLEAN, -EUCLEAN, "no superblock"},
    {superblocks_contradict, PLAIN, true, -EUCLEAN, -EUCLEAN, "contradicts"},
    {superblocks_of_a_newer_version, PLAIN, true, -EPROTONOSUPPORT, -EPROTONOSUPPORT, "newer"},
    {older_directory_flipped, PLAIN, true, -EUCLEAN, 0, "damaged, or a commit that was cut short"},
    {newest_directory_flipped, PLAIN, true, -EUCLEAN, 0, "a mount shows generation"},
    {older_directory_gone, PLAIN, true, -EUCLEAN, 0, "directory"},
    {both_directories_flipped, PLAIN, true, -EUCLEAN, -EUCLEAN, "directory 1: damaged"},
    {content_of_a_flipped, PLAIN, true, -EUCLEAN, -EUCLEAN, "'a'"},
    {content_of_a_flipped, PLAIN, false, 0, 0, "the last commit was cut short"},
    {content_of_a_clean_directory_flipped, PLAIN, false, -EUCLEAN, -EUCLEAN, "'a'"},
    {content_of_b_flipped, PLAIN, true, -EUCLEAN, -EUCLEAN, "'b'"},
    {content_of_b_flipped, PLAIN, false, -EUCLEAN, -EUCLEAN, "'b'"},
    {header_of_b_gone, PLAIN, true, -EUCLEAN, -EUCLEAN, "'b'"},
    {content_before_a_flipped, PLAIN, true, 0, 0, "the content before of 'a'"},
    {content_before_a_put_back, PLAIN, true, -EUCLEAN, -EUCLEAN, "'a'"},
    {directories_of_one_generation, PLAIN, true, -EUCLEAN, -EUCLEAN, "one generation"},
    {superblock_rolled_back, PLAIN, true, -ESTALE, -ESTALE, "rolled back"},
    {content_forged, PLAIN, true, -EUCLEAN, -EUCLEAN, "'b'"},
    {contents_swapped, PLAIN, true, -EUCLEAN, -EUCLEAN, "'a'"},

    {superblock_forged, SEALED, true, -EBADMSG, -EBADMSG, "superblock B: forged"},
    {superblocks_contradict, SEALED, true, -EUCLEAN, -EUCLEAN, "contradicts"},
    {directory_forged, SEALED, true, -EBADMSG, -EBADMSG, "directory 1: forged"},
    {directories_of_one_generation, SEALED, true, -EUCLEAN, -EUCLEAN, "one generation"},
    {superblock_rolled_back, SEALED, true, -ESTALE, -ESTALE, "rolled back"},
    {content_forged, SEALED, true, -EBADMSG, -EBADMSG, "'b'"},
    {contents_swapped, SEALED, true, -EBADMSG, -EBADMSG, "'a'"},
    {content_before_a_put_back, SEALED, true, -EBADMSG, -EBADMSG, "'a'"},
    {content_of_a_flipped, SEALED, true, -EUCLEAN, -EUCLEAN, "'a'"},
    {content_of_a_flipped, SEALED, false, 0, 0, "the last commit was cut short"},

    {superblock_a_flipped, KEYLESS, true, -EUCLEAN, 0, "superblock A: damaged"},
    {content_of_b_flipped, KEYLESS, true, -EUCLEAN, -EUCLEAN, "'b'"},
    {newest_directory_flipped, KEYLESS, true, -EUCLEAN, 0, "directory"},
    {contents_swapped, KEYLESS, true, -EUCLEAN, -EBADMSG, "'a'"},
    {superblock_rolled_back, KEYLESS, true, -ESTALE, -ESTALE, "rolled back"},
};

static void
try_sample(const struct sample *c, size_t i)
{
    struct dev *d = written_image(c->kind != PLAIN, c->settled);
    struct check_result res;
    struct findings f;
    struct store *s = NULL;
    int r;

    c->damage(d);
    r = check(d, c->kind == SEALED ? &user_key : NULL, &f, &res);
    if (r != c->want || r != res.worst)
        fail_msg("sample %zu: %d, not %d:\n%s", i, r, c->want, f.text);
    if (!strstr(f.text, c->says))
        fail_msg("sample %zu: \"%s\" is not in\n%s", i, c->says, f.text);
    assert_true(res.authenticated == (c->kind == SEALED && r != -EPROTONOSUPPORT));
    assert_true((f.problems > 0) == (r < 0));
    r = open_image(d, c->kind == PLAIN ? NULL : &user_key, &s);
    if (r != c->opens)
        fail_msg("sample %zu: opens with %d, not %d; check said\n%s", i, r, c->opens, f.text);
    if (r == 0)
        store_close(s);
    else
        dev_close(d);
}

static void
each_sample_is_found_for_what_it_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof corpus / sizeof corpus[0]; i++)
        try_sample(&corpus[i], i);
}

static void
what_is_no_image_is_told_as_such(void **state)
{
    AUTO(dev_closep) struct dev *blank = faultdev_new(1 << 20);
    AUTO(dev_closep) struct dev *foreign = faultdev_new(1 << 20);
    AUTO(dev_closep) struct dev *small = faultdev_new(8 * BLOCK_SIZE);
    struct check_result res;
    struct findings f;

    (void)state;
    assert_int_equal(check(blank, NULL, &f, &res), -ENODATA);
    faultdev_poke(foreign, "GIF89a", 6, 12345);
    assert_int_equal(check(foreign, NULL, &f, &res), -EMEDIUMTYPE);
    assert_int_equal(check(small, NULL, &f, &res), -ERANGE);
}

static void
a_truncated_image_is_told_as_such(void **state)
{
    AUTO(dev_closep) struct dev *whole = written_image(false, true);
    AUTO(dev_closep) struct dev *cut = faultdev_new(whole->size - BLOCK_SIZE);
    uint8_t block[BLOCK_SIZE];
    struct check_result res;
    struct findings f;

    (void)state;
    for (uint64_t off = 0; off < cut->size; off += BLOCK_SIZE) {
        faultdev_peek(whole, block, sizeof block, off);
        faultdev_poke(cut, block, sizeof block, off);
    }
    assert_int_equal(check(cut, NULL, &f, &res), -ERANGE);
    assert_non_null(strstr(f.text, "truncated"));
}

static void
a_wrong_key_is_no_finding_about_the_image(void **state)
{
    AUTO(dev_closep) struct dev *sealed = written_image(true, true);
    AUTO(dev_closep) struct dev *plain = written_image(false, true);
    struct check_result res;
    struct findings f;

    (void)state;
    assert_int_equal(check(sealed, &wrong_key, &f, &res), -EKEYREJECTED);
    assert_int_equal(check(plain, &user_key, &f, &res), -EKEYREVOKED);
    assert_int_equal(check_image(sealed, NULL, NULL, collect, &f, &res), 0);
    assert_false(res.authenticated);
}

static void
a_read_error_is_told_and_does_not_end_the_check(void **state)
{
    AUTO(dev_closep) struct dev *d = written_image(false, true);
    struct check_result whole, res;
    struct findings f;
    unsigned long nth = 0;

    (void)state;
    assert_int_equal(check(d, NULL, &f, &whole), 0);
    for (;; nth++) {
        int r;

        faultdev_fail(d, FAULT_READ, nth, -EIO, NULL);
        r = check(d, NULL, &f, &res);
        if (r == 0)
            break;
        assert_int_equal(r, nth < 2 ? -EUCLEAN : -EIO); /* there are two superblocks */
        assert_true(res.problems >= 1);
        assert_non_null(strstr(f.text, "cannot be read"));
        /* what the newer directory alone knows of is not looked at without it */
        assert_true(res.structures + 2 >= whole.structures);
    }
    assert_true(nth >= 7);
}

/* Each directory in turn, as both of a settled image know the content that is damaged besides. */
static void
beside_a_directory_that_cannot_be_read_the_rest_is_checked(void **state)
{
    for (unsigned bad = 0; bad < 2; bad++) {
        AUTO(dev_closep) struct dev *d = written_image(false, true);
        struct check_result res;
        struct findings f;

        content_of_a_flipped(d);
        /* after two superblocks and two owner records, and for the second the two reads of the
         * first */
        faultdev_fail(d, FAULT_READ, bad == 0 ? 4 : 6, -EIO, NULL);
        assert_int_equal(check(d, NULL, &f, &res), -EIO);
        assert_non_null(strstr(f.text, bad == 0 ? "directory 0" : "directory 1"));
        assert_non_null(strstr(f.text, "'a'"));
        assert_true(res.problems >= 2);
    }
    (void)state;
}

/* ---- agreement with a mount
 * ---------------------------------------------------------------------- */

/* Whatever a mount refuses, check finds, under the same name; what check finds whole, a mount
 * opens. */
static void
compare_with_mount(const struct dev *image, const uint64_t *key, uint64_t off, unsigned how)
{
    struct dev *d = faultdev_fork(image);
    struct check_result res;
    struct findings f;
    struct store *s = NULL;
    int checked, opened;

    if (how < 8)
        faultdev_spoil(d, off + how * SECTOR_SIZE + how * 31);
    else
        zero_block(d, off);
    checked = check(d, key, &f, &res);
    opened = open_image(d, key, &s);
    if (opened < 0 ? checked != opened : checked < 0 && checked != -EUCLEAN)
        fail_msg("block %" PRIu64 " (%u): check says %d, a mount %d:\n%s", off / BLOCK_SIZE, how,
                 checked, opened, f.text);
    if (opened == 0)
        store_close(s);
    else
        dev_close(d);
}

static void
check_and_mount_agree_on_every_damaged_block(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        bool sealed = k & 1;
        AUTO(dev_closep) struct dev *image = written_image(sealed, k & 2);
        uint8_t block[BLOCK_SIZE];

        for (uint64_t off = 0; off < image->size; off += BLOCK_SIZE) {
            faultdev_peek(image, block, sizeof block, off);
            if (bytes_are_zero(block, sizeof block))
                continue;
            for (unsigned how = 0; how <= 8; how++)
                compare_with_mount(image, sealed ? &user_key : NULL, off, how);
        }
    }
}

/* ---- main
 * ---------------------------------------------------------------------------------------- */

static void
swallow(void *arg, enum report_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_image_has_nothing_to_say),
        cmocka_unit_test(each_sample_is_found_for_what_it_is),
        cmocka_unit_test(what_is_no_image_is_told_as_such),
        cmocka_unit_test(a_truncated_image_is_told_as_such),
        cmocka_unit_test(a_wrong_key_is_no_finding_about_the_image),
        cmocka_unit_test(a_read_error_is_told_and_does_not_end_the_check),
        cmocka_unit_test(beside_a_directory_that_cannot_be_read_the_rest_is_checked),
        cmocka_unit_test(check_and_mount_agree_on_every_damaged_block),
    };

    report_set_sink(swallow, NULL);
    return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
