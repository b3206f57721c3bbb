/* SPDX-License-Identifier: BSD-3-Clause */
/* What a sealed image says when somebody without the key has changed it: every byte flipped, with
 * and without its checksum repaired; every block swapped with another image of the same key, and
 * with an older state of the same image.  A table says what is expected where. */
#include "base/bytes.h"
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/check.h"
#include "core/store.h"
#include "crypt/keys.h"
#include "tests/sealedimage.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- a device in memory ------------------------------------------------------------------------
 */

struct ramdev {
    struct dev dev;
    uint8_t *image;
};

static int
ram_pread(struct dev *d, void *buf, size_t n, uint64_t off)
{
    memcpy(buf, ((struct ramdev *)d)->image + off, n);
    return 0;
}

static int
ram_pwrite(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    memcpy(((struct ramdev *)d)->image + off, buf, n);
    return 0;
}

static int
ram_sync(struct dev *d)
{
    (void)d;
    return 0;
}

static int
ram_medium(struct dev *d, bool on)
{
    (void)d;
    (void)on;
    return 0;
}

static void
ram_close(struct dev *d)
{
    free(d);
}

static const struct dev_ops ram_ops = {
    .pread = ram_pread,
    .pwrite = ram_pwrite,
    .sync = ram_sync,
    .medium = ram_medium,
    .close = ram_close,
};

static char ram_name[] = "image";

/* @image stays the caller's. */
static struct dev *
ram_open(uint8_t *image, size_t size, bool read_only)
{
    struct ramdev *d = calloc(1, sizeof *d);

    assert_non_null(d);
    *d = (struct ramdev){
        .dev = {.ops = &ram_ops, .size = size, .read_only = read_only, .name = ram_name},
        .image = image};
    return &d->dev;
}

/* ---- an image and what is in it ----------------------------------------------------------------
 */

struct image {
    uint8_t *bytes;
    size_t size;
};

static const char key_text[] = "00112233445566778899aabbccddeeff102132435465768798a9bacbdcedfe0f";
static const char new_key_text[] = "ffeeddccbbaa99887766554433221100";

static struct image
image_copy(const struct image *from)
{
    struct image im = {.bytes = malloc(from->size), .size = from->size};

    assert_non_null(im.bytes);
    memcpy(im.bytes, from->bytes, from->size);
    return im;
}

static void
image_fini(struct image *im)
{
    free(im->bytes);
}

/* 0 and the state, or the finding. */
static int
look(const struct image *im, struct key_options *key, struct state *st)
{
    struct dev *d = ram_open(im->bytes, im->size, true);
    const struct store_options opt = {.read_only = true, .unlock = keys_unlock, .unlock_arg = key};
    AUTO(store_closep) struct store *s = NULL;
    int r = store_open(&s, d, &opt);

    *st = (struct state){0};
    if (r < 0) {
        dev_close(d);
        return r;
    }
    return state_read(s, st);
}

static void
ignore(void *arg, int r, const char *where, const char *text)
{
    (void)arg;
    (void)r;
    (void)where;
    (void)text;
}

static int
check(const struct image *im, struct key_options *key)
{
    AUTO(dev_closep) struct dev *d = ram_open(im->bytes, im->size, true);
    struct check_result res;

    return check_image(d, key ? keys_unlock : NULL, key, ignore, NULL, &res);
}

static struct store *
open_store(struct image *im, struct key_options *key)
{
    return open_sealed(ram_open(im->bytes, im->size, false), key);
}

/* ---- making images -----------------------------------------------------------------------------
 */

/* Sealed with @key, or plain for NULL. */
static struct image
format(struct key_options *key, uint8_t uuid_byte)
{
    static const struct slot_class classes[] = {{1, 8192}, {6, 4096}};
    struct format_spec spec = {.classes = classes, .n_classes = 2, .root = {.mode = 0700}};
    AUTO(dev_closep) struct dev *d = NULL;
    struct superblock sb;
    struct image im;

    memset(spec.uuid, uuid_byte, sizeof spec.uuid);
    assert_int_equal(store_layout(&sb, &spec, NULL), 0);
    im.size = sb.image_size;
    im.bytes = calloc(1, im.size);
    assert_non_null(im.bytes);
    d = ram_open(im.bytes, im.size, false);
    if (key)
        format_sealed(d, &spec, key);
    else
        assert_int_equal(store_format(d, &spec, sealer_plain()), 0);
    return im;
}

static void
close_clean(struct store *s)
{
    assert_int_equal(store_settle(s), 0);
    store_close(s);
}

/* Previous contents, a tombstone, and a bank that nobody names any more: all kinds of places. */
static struct image
make_image(struct key_options *key, uint8_t uuid_byte)
{
    const struct change forget = {.op = CHANGE_FORGET, .name = "forgotten"};
    struct image im = format(key, uuid_byte);
    struct store *s = open_store(&im, key);

    put_file(s, "alpha", 3000, 2);
    put_file(s, "alpha", 3500, 3);
    put_file(s, "beta", 100, 4);
    put_file(s, "gone", 900, 5);
    unlink_file(s, "gone");
    put_file(s, "empty", 0, 6);
    put_file(s, "forgotten", 10, 7);
    unlink_file(s, "forgotten");
    assert_int_equal(store_commit(s, &forget, 1, NULL), 0);
    close_clean(s);
    return im;
}

/* The same image later: other contents, and another key besides. */
static struct image
make_older(struct image *im, struct key_options *key)
{
    AUTO(key_options_fini) struct key_options added = key_of(key_text);
    struct image older = image_copy(im);
    uint8_t slots[KEYSLOT_COUNT][KEYSLOT_SIZE];
    struct store *s = open_store(im, key);

    put_file(s, "alpha", 3600, 12);
    put_file(s, "beta", 120, 13);
    memcpy(slots, store_superblock(s)->keyslots, sizeof slots);
    assert_int_equal(keys_wrap(key, &added, 32, slots[4]), 0);
    assert_int_equal(store_set_keyslots(s, slots), 0);
    close_clean(s);
    return older;
}

/* ---- where is what -----------------------------------------------------------------------------
 */

enum kind { UNUSED, OWNER, SUPERBLOCK, DIRECTORY, CURRENT, PREVIOUS, STALE, N_KINDS };

static const char *const kind_names[N_KINDS] = {"unused",      "owner records", "superblocks",
                                                "directories", "current banks", "previous banks",
                                                "other banks"};

struct region {
    enum kind kind;
    size_t off, len; /* what the structure's CRC covers */
};

/* Offsets of fields, as doc/format.md has them. */
enum { MAX_REGIONS = 64, SB_KEY_EPOCH = 92, DIR_LENGTH = 48 };

struct map {
    size_t n;
    struct region region[MAX_REGIONS];
};

static void
map_add(struct map *m, enum kind kind, size_t off, size_t len)
{
    assert_true(m->n < MAX_REGIONS);
    m->region[m->n++] = (struct region){kind, off, len};
}

static const struct region *
map_find(const struct map *m, size_t off)
{
    for (size_t i = 0; i < m->n; i++) {
        if (off >= m->region[i].off && off - m->region[i].off < m->region[i].len)
            return &m->region[i];
    }
    return NULL;
}

/* Which content, if any, of the newest directory lies in a bank. */
static enum kind
bank_kind(const struct entry *list, size_t n, uint32_t slot, unsigned bank, uint64_t *length)
{
    for (size_t i = 0; i < n; i++) {
        const struct content *c[2] = {&list[i].current, &list[i].previous};

        for (int p = 0; p < 2; p++) {
            if (c[p]->generation && c[p]->slot == slot && c[p]->bank == bank) {
                *length = c[p]->length;
                return p == 0 ? CURRENT : PREVIOUS;
            }
        }
    }
    return STALE;
}

static struct map
map_of(struct image *im, struct key_options *key)
{
    AUTO_FREE struct entry *list = NULL;
    struct store *s = open_store(im, key);
    const struct superblock *sb = store_superblock(s);
    struct map m = {0};
    uint64_t length, generation;
    size_t n;

    assert_int_equal(store_list(s, &list, &n), 0);
    for (unsigned i = 0; i < 2; i++)
        map_add(&m, OWNER, BLOCK_SIZE * (1 + i), BLOCK_SIZE);
    map_add(&m, SUPERBLOCK, SUPERBLOCK_A, BLOCK_SIZE);
    map_add(&m, SUPERBLOCK, SUPERBLOCK_B, BLOCK_SIZE);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            directory_peek(im->bytes + sb->dir_off[i], sb->dir_capacity, &length, &generation), 0);
        map_add(&m, DIRECTORY, sb->dir_off[i], length);
    }
    for (uint32_t slot = 0; slot < superblock_slot_count(sb); slot++) {
        for (unsigned bank = 0; bank < 2; bank++) {
            size_t off = superblock_bank_offset(sb, slot, bank);
            enum kind kind = bank_kind(list, n, slot, bank, &length);

            if (kind != STALE || bank_peek(im->bytes + off, &length, &generation) == 0)
                map_add(&m, kind, off, BANK_HEADER + bank_padded(length));
        }
    }
    store_close(s);
    return m;
}

/* ---- what is expected --------------------------------------------------------------------------
 */

/* A mount shows the same as before (0) or has this finding; a check, too, once with the key. */
struct expected {
    int mount, check;
};

/* A flipped byte, its checksum as it was.  Where a second copy takes over, mounting goes on. */
static const struct expected when_flipped[N_KINDS] = {
    [UNUSED] = {0, 0},
    [OWNER] = {0, -EUCLEAN}, /* nobody has asked for one in a file */
    [SUPERBLOCK] = {0, -EUCLEAN},
    [DIRECTORY] = {0, -EUCLEAN}, /* the settled directory and the one before tell the same */
    [CURRENT] = {-EUCLEAN, -EUCLEAN},
    [PREVIOUS] = {0, 0}, /* a courtesy, not a promise */
    [STALE] = {0, 0},
};

/* A flipped byte, its checksum made right: only somebody without the key does that. */
static const struct expected when_forged[N_KINDS] = {
    [UNUSED] = {0, 0},
    [OWNER] = {0, -EUCLEAN},
    [SUPERBLOCK] = {-EBADMSG, -EBADMSG},
    [DIRECTORY] = {-EBADMSG, -EBADMSG},
    [CURRENT] = {-EBADMSG, -EBADMSG},
    [PREVIOUS] = {0, -EBADMSG},
    [STALE] = {0, 0},
};

/* Whether the flip takes the magic of a structure that has a second copy, or a length that decides
 * what the checksum covers: then that copy is not there, or damaged, whatever its checksum. */
static bool
is_framing(const struct region *r, size_t at, const struct image *before, const struct image *after)
{
    uint32_t was, is;

    if (r->kind != SUPERBLOCK && r->kind != DIRECTORY)
        return false;
    if (at < r->off + 8)
        return true;
    if (r->kind != DIRECTORY || at < r->off + DIR_LENGTH || at >= r->off + DIR_LENGTH + 4)
        return false;
    was = load_le32(before->bytes + r->off + DIR_LENGTH);
    is = load_le32(after->bytes + r->off + DIR_LENGTH);
    return (was + BLOCK_SIZE - 1) / BLOCK_SIZE != ((uint64_t)is + BLOCK_SIZE - 1) / BLOCK_SIZE;
}

/* What is expected of a flip at @at whose checksum was made right. */
static struct expected
expected_of_forgery(const struct region *r, size_t at, const struct image *before,
                    const struct image *after)
{
    if (is_framing(r, at, before, after))
        return when_flipped[r->kind];
    /* Another key epoch means other keys, so the tag proves nothing; but no two superblocks of one
     * sequence differ. */
    if (r->off == SUPERBLOCK_B && at >= r->off + SB_KEY_EPOCH && at < r->off + SB_KEY_EPOCH + 4)
        return (struct expected){-EUCLEAN, -EUCLEAN};
    return when_forged[r->kind];
}

/* ---- trying ------------------------------------------------------------------------------------
 */

struct totals {
    unsigned long tried[N_KINDS], found[2][EXIT_FORGED + 1]; /* by a mount, by a check */
};

struct trial {
    struct image *im;
    struct key_options *key;
    struct state right;
    struct totals totals;
};

/* Whether a mount and a check of what is now in t->im find what they should. */
static bool
try(struct trial *t, enum kind kind, const struct expected *e, const char *what, size_t at)
{
    AUTO(state_fini) struct state st = {0};
    int mounted = look(t->im, t->key, &st), checked = check(t->im, t->key);

    t->totals.tried[kind]++;
    t->totals.found[0][finding_exit_code(mounted)]++;
    t->totals.found[1][finding_exit_code(checked)]++;
    if (mounted == e->mount && checked == e->check && (mounted != 0 || state_equal(&st, &t->right)))
        return true;
    print_message("# %s at %zu (%s): mount: %s%s, not %s; check: %s, not %s\n", what, at,
                  kind_names[kind], finding_name(mounted),
                  mounted == 0 && !state_equal(&st, &t->right) ? " WITH OTHER CONTENT" : "",
                  finding_name(e->mount), finding_name(checked), finding_name(e->check));
    return false;
}

static void
print_totals(const char *title, const struct totals *t)
{
    unsigned long sum = 0;

    for (int i = 0; i < N_KINDS; i++)
        sum += t->tried[i];
    print_message("# %s: %lu tried (", title, sum);
    for (int i = 0; i < N_KINDS; i++)
        print_message("%s%s %lu", i ? ", " : "", kind_names[i], t->tried[i]);
    print_message(")\n");
    for (int who = 0; who < 2; who++) {
        print_message("#   %s:", who ? "check" : "mount");
        for (int code = 0; code <= EXIT_FORGED; code++) {
            if (t->found[who][code])
                print_message(" exit %d: %lu", code, t->found[who][code]);
        }
        print_message("\n");
    }
}

/* Every how many bytes: all of them, but under tools that make each a hundred times slower. */
static size_t
stride(void)
{
    const char *preload = getenv("LD_PRELOAD");

    if (preload && strstr(preload, "valgrind"))
        return 61;
    if (getenv("VNVRAM_QUICK"))
        return 7;
#ifdef __SANITIZE_ADDRESS__
    return 7;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
    return 7;
#endif
#endif
    return 1;
}

/* Flips bit @bit of byte @at, once with its checksum as it is and once made right. */
static unsigned
flip(struct trial *t, const struct region *r, const struct image *golden, size_t at, unsigned bit)
{
    enum kind kind = r ? r->kind : UNUSED;
    uint8_t *bytes = t->im->bytes;
    unsigned wrong = 0;

    bytes[at] ^= (uint8_t)(1U << bit);
    wrong += !try(t, kind, &when_flipped[kind], "flip", at);
    /* a flip in the checksum itself is undone by making it right */
    if (r && (at < r->off + CRC_OFFSET || at >= r->off + CRC_OFFSET + 4)) {
        struct expected e = expected_of_forgery(r, at, golden, t->im);

        format_set_crc(bytes + r->off, r->len);
        wrong += !try(t, kind, &e, "flip and right checksum", at);
        memcpy(bytes + r->off + CRC_OFFSET, golden->bytes + r->off + CRC_OFFSET, 4);
    }
    bytes[at] = golden->bytes[at];
    return wrong;
}

static void
a_flipped_byte_is_harmless_or_found_for_what_it_is(void **state)
{
    AUTO(key_options_fini) struct key_options key = key_of(new_key_text);
    AUTO(image_fini) struct image golden = make_image(&key, 0x11);
    struct map map = map_of(&golden, &key);
    AUTO(image_fini) struct image im = image_copy(&golden);
    struct trial t = {.im = &im, .key = &key};
    size_t step = stride(), zeros = 0, others = 0;
    unsigned wrong = 0;

    (void)state;
    assert_int_equal(look(&golden, &key, &t.right), 0);
    assert_int_equal(t.right.n, 3);
    assert_int_equal(check(&golden, &key), 0);
    for (size_t at = 0; at < golden.size && wrong < 20; at++) {
        const struct region *r = map_find(&map, at);
        bool zero = golden.bytes[at] == 0;

        /* zeros: a sample, closer where a checksum covers them */
        if (zero && zeros++ % (step * (r ? 61 : 1009)) != 0)
            continue;
        if (!zero && others++ % step != 0)
            continue;
        wrong += flip(&t, r, &golden, at, at % 8);
    }
    print_totals("flips", &t.totals);
    for (int i = 0; i < N_KINDS; i++)
        assert_true(t.totals.tried[i] > 0);
    state_fini(&t.right);
    assert_int_equal(wrong, 0);
}

/* Changes in both superblocks at once: no honest copy is left to tell. */
static void
both_superblocks_changed_are_forged_or_open_for_no_key(void **state)
{
    AUTO(key_options_fini) struct key_options key = key_of(new_key_text);
    AUTO(image_fini) struct image golden = make_image(&key, 0x11);
    AUTO(image_fini) struct image im = image_copy(&golden);
    unsigned long n = 0, tried = 0, by_code[EXIT_FORGED + 1] = {0};
    size_t step = stride();

    (void)state;
    for (size_t at = 12; at < BLOCK_SIZE; at++) {
        struct state st;
        int r;

        if (golden.bytes[at] == 0 || n++ % step != 0)
            continue;
        tried++;
        for (size_t copy = 0; copy <= SUPERBLOCK_B; copy += SUPERBLOCK_B) {
            im.bytes[copy + at] ^= (uint8_t)(1U << at % 8);
            format_set_crc(im.bytes + copy, BLOCK_SIZE);
        }
        r = look(&im, &key, &st);
        state_fini(&st);
        by_code[finding_exit_code(r)]++;
        /* wrong key: in its slot; unsupported: a version or a mode that may come one day; damaged:
         * what no version can mean */
        if (r != -EBADMSG && r != -EKEYREJECTED && r != -EPROTONOSUPPORT && r != -EUCLEAN)
            fail_msg("byte %zu of both: %s", at, finding_name(r));
        for (size_t copy = 0; copy <= SUPERBLOCK_B; copy += SUPERBLOCK_B)
            memcpy(im.bytes + copy, golden.bytes + copy, BLOCK_SIZE);
    }
    print_message("# both superblocks: %lu tried: exit 5: %lu, 7: %lu, 9: %lu, 13: %lu\n", tried,
                  by_code[5], by_code[7], by_code[9], by_code[13]);
    assert_true((by_code[EXIT_FORGED] > 0 && by_code[EXIT_WRONG_KEY] > 0) || step > 1);
}

/* ---- swaps -------------------------------------------------------------------------------------
 */

/* Puts @len bytes of @from in place, tries, and takes them out again. */
static unsigned
swap_in(struct trial *t, const struct image *golden, const struct image *from,
        const struct region *r, size_t off, size_t len, const struct expected *e, const char *what)
{
    enum kind kind = r ? r->kind : UNUSED;
    unsigned wrong = 0;

    if (memcmp(golden->bytes + off, from->bytes + off, len) == 0)
        return 0;
    memcpy(t->im->bytes + off, from->bytes + off, len);
    wrong += !try(t, kind, e, what, off);
    memcpy(t->im->bytes + off, golden->bytes + off, len);
    return wrong;
}

/* Each block by itself, then each structure whole. */
static unsigned
swap_all(struct trial *t, const struct map *map, const struct image *golden,
         const struct image *from, const struct expected block[N_KINDS],
         const struct expected whole[N_KINDS], const char *what)
{
    unsigned wrong = 0;

    for (size_t off = 0; off < golden->size; off += BLOCK_SIZE) {
        const struct region *r = map_find(map, off);
        bool all = r && r->len == BLOCK_SIZE;

        wrong += swap_in(t, golden, from, r, off, BLOCK_SIZE,
                         &(all ? whole : block)[r ? r->kind : UNUSED], what);
    }
    for (size_t i = 0; i < map->n; i++) {
        const struct region *r = &map->region[i];

        bool there = format_crc_ok(from->bytes + r->off, r->len); /* else there is no such thing */

        if (r->len > BLOCK_SIZE)
            wrong += swap_in(t, golden, from, r, r->off, r->len, &(there ? whole : block)[r->kind],
                             what);
    }
    return wrong;
}

static void
blocks_of_another_image_of_the_same_key_are_found(void **state)
{
    /* A block in the middle of a structure spoils its checksum. */
    static const struct expected whole[N_KINDS] = {
        [SUPERBLOCK] = {-EBADMSG, -EBADMSG},
        [DIRECTORY] = {-EBADMSG, -EBADMSG},
        [CURRENT] = {-EBADMSG, -EBADMSG},
        [PREVIOUS] = {0, -EBADMSG},
    };
    AUTO(key_options_fini) struct key_options key = key_of(new_key_text);
    AUTO(key_options_fini) struct key_options key_2 = key_of(new_key_text);
    AUTO(image_fini) struct image golden = make_image(&key, 0x11);
    AUTO(image_fini) struct image other = make_image(&key_2, 0x22);
    struct map map = map_of(&golden, &key);
    AUTO(image_fini) struct image im = image_copy(&golden);
    struct trial t = {.im = &im, .key = &key};
    unsigned wrong;

    (void)state;
    assert_int_equal(look(&golden, &key, &t.right), 0);
    wrong = swap_all(&t, &map, &golden, &other, when_flipped, whole, "block of another image");
    print_totals("swaps with another image of the same key", &t.totals);
    assert_true(t.totals.tried[SUPERBLOCK] && t.totals.tried[DIRECTORY] && t.totals.tried[CURRENT]);
    state_fini(&t.right);
    assert_int_equal(wrong, 0);
}

static void
blocks_of_an_older_state_do_not_bring_it_back(void **state)
{
    static const struct expected whole[N_KINDS] = {
        [SUPERBLOCK] = {0, 0}, /* the newer copy counts */
        [DIRECTORY] = {0, 0}, /* the newer directory counts, and the one before it tells the same */
        [CURRENT] = {-EBADMSG, -EBADMSG},
        [PREVIOUS] = {0, 0},
    };
    AUTO(key_options_fini) struct key_options key = key_of(new_key_text);
    AUTO(image_fini) struct image golden = make_image(&key, 0x11);
    AUTO(image_fini) struct image older = make_older(&golden, &key);
    struct map map = map_of(&golden, &key);
    AUTO(image_fini) struct image im = image_copy(&golden);
    struct trial t = {.im = &im, .key = &key};
    unsigned wrong;

    (void)state;
    assert_int_equal(look(&golden, &key, &t.right), 0);
    wrong = swap_all(&t, &map, &golden, &older, when_flipped, whole, "block of an older state");
    print_totals("swaps with an older state", &t.totals);
    assert_true(t.totals.tried[SUPERBLOCK] && t.totals.tried[DIRECTORY] && t.totals.tried[CURRENT]);
    state_fini(&t.right);
    assert_int_equal(wrong, 0);
}

static void
old_superblocks_put_back_are_refused(void **state)
{
    AUTO(key_options_fini) struct key_options key = key_of(new_key_text);
    AUTO(image_fini) struct image im = make_image(&key, 0x11);
    AUTO(image_fini) struct image older = make_older(&im, &key);
    struct map map = map_of(&im, &key);
    struct state st;

    (void)state;
    memcpy(im.bytes + SUPERBLOCK_A, older.bytes + SUPERBLOCK_A, BLOCK_SIZE);
    memcpy(im.bytes + SUPERBLOCK_B, older.bytes + SUPERBLOCK_B, BLOCK_SIZE);
    assert_int_equal(look(&im, &key, &st), -ESTALE);
    assert_int_equal(check(&im, &key), -ESTALE);
    /* nor does it help to spoil a directory that knows better */
    for (size_t i = 0; i < map.n; i++) {
        if (map.region[i].kind != DIRECTORY)
            continue;
        im.bytes[map.region[i].off + 100] ^= 1;
        assert_int_equal(look(&im, &key, &st), -ESTALE);
        im.bytes[map.region[i].off + 100] ^= 1;
    }
}

/* ---- downgrades --------------------------------------------------------------------------------
 */

static void
a_sealed_image_does_not_turn_into_a_plain_one(void **state)
{
    AUTO(key_options_fini) struct key_options key = key_of(new_key_text);
    AUTO(key_options_fini) struct key_options none = KEY_OPTIONS_INIT;
    AUTO(image_fini) struct image golden = make_image(&key, 0x11);
    AUTO(image_fini) struct image im = image_copy(&golden);
    struct map map = map_of(&golden, &key);
    struct superblock sb;
    struct state st;

    (void)state;
    assert_int_equal(superblock_decode(&sb, golden.bytes), 0);
    sb.seal_mode = SEAL_NONE;
    sb.key_size = 0;
    sb.key_epoch = 0;
    sb.sequence++;
    memset(sb.keyslots, 0, sizeof sb.keyslots);
    for (int copies = 1; copies <= 2; copies++) {
        uint8_t *at = im.bytes + (copies == 1 ? SUPERBLOCK_A : SUPERBLOCK_B);

        superblock_encode(&sb, at);
        assert_int_equal(format_seal(sealer_plain(), SEAL_SUPERBLOCK, at, BLOCK_SIZE), 0);
        /* one honest copy proves the forgery; without one, nobody who has a key is served */
        assert_int_equal(look(&im, &key, &st), copies == 1 ? -EBADMSG : -EKEYREVOKED);
        assert_int_equal(check(&im, &key), copies == 1 ? -EBADMSG : -EKEYREVOKED);
        assert_int_equal(look(&im, &none, &st), -EUCLEAN);
        assert_int_equal(check(&im, NULL), -EUCLEAN);
    }
    /* and the sealed directories and banks under it are none of a plain image's */
    for (size_t i = 0; i < map.n; i++) {
        if (map.region[i].kind == DIRECTORY)
            format_seal(sealer_plain(), SEAL_DIRECTORY, im.bytes + map.region[i].off,
                        map.region[i].len);
    }
    assert_int_equal(look(&im, &none, &st), -EUCLEAN);
    /* plain banks and directories under a sealed superblock */
    memcpy(im.bytes + SUPERBLOCK_A, golden.bytes + SUPERBLOCK_A, BLOCK_SIZE);
    memcpy(im.bytes + SUPERBLOCK_B, golden.bytes + SUPERBLOCK_B, BLOCK_SIZE);
    assert_int_equal(look(&im, &key, &st), -EBADMSG);
}

/* All of it plain, but for one honest superblock that somebody forgot. */
static void
a_plain_image_with_a_sealed_superblock_is_not_served(void **state)
{
    AUTO(key_options_fini) struct key_options key = key_of(new_key_text);
    AUTO(key_options_fini) struct key_options none = KEY_OPTIONS_INIT;
    AUTO(image_fini) struct image sealed = make_image(&key, 0x11);
    AUTO(image_fini) struct image plain = format(NULL, 0x11);
    struct superblock sb;
    struct state st;

    (void)state;
    assert_int_equal(look(&plain, &none, &st), 0);
    assert_int_equal(superblock_decode(&sb, plain.bytes), 0);
    sb.sequence++;
    superblock_encode(&sb, plain.bytes);
    format_seal(sealer_plain(), SEAL_SUPERBLOCK, plain.bytes, BLOCK_SIZE);
    assert_int_equal(look(&plain, &none, &st), 0);
    memcpy(plain.bytes + SUPERBLOCK_B, sealed.bytes + SUPERBLOCK_B, BLOCK_SIZE);
    assert_int_equal(look(&plain, &none, &st), -EUCLEAN);
    assert_int_equal(look(&plain, &key, &st), -EBADMSG);
}

static void
each_finding_about_keys_reaches_the_user(void **state)
{
    AUTO(key_options_fini) struct key_options key = key_of(new_key_text);
    AUTO(key_options_fini) struct key_options wrong = key_of("ffeeddccbbaa99887766554433221101");
    AUTO(key_options_fini) struct key_options longer = key_of(key_text);
    AUTO(key_options_fini) struct key_options none = KEY_OPTIONS_INIT;
    AUTO(image_fini) struct image im = make_image(&key, 0x11);
    struct state st;

    (void)state;
    assert_int_equal(look(&im, &none, &st), -ENOKEY);
    assert_int_equal(look(&im, &wrong, &st), -EKEYREJECTED);
    assert_int_equal(look(&im, &longer, &st), -EKEYREJECTED);
    assert_int_equal(check(&im, NULL), 0);
    assert_int_equal(check(&im, &wrong), -EKEYREJECTED);
}

/* ---- reseal ------------------------------------------------------------------------------------
 */

static void
after_a_reseal_only_the_new_key_opens_and_no_old_ciphertext_is_left(void **state)
{
    AUTO(key_options_fini) struct key_options key = key_of(new_key_text);
    AUTO(key_options_fini) struct key_options old = key_of(new_key_text);
    AUTO(key_options_fini) struct key_options key_2 = key_of(key_text);
    AUTO(image_fini) struct image im = make_image(&key, 0x11);
    AUTO(image_fini) struct image before = image_copy(&im);
    struct map map = map_of(&before, &key);
    uint8_t slots[KEYSLOT_COUNT][KEYSLOT_SIZE], key_size;
    struct state right, now;
    struct sealer *sealer = NULL;
    struct store *s;

    (void)state;
    assert_int_equal(look(&im, &key, &right), 0);
    s = open_store(&im, &key);
    assert_int_equal(
        keys_renew_volume(&key_2, store_superblock(s)->uuid, 2, slots, &key_size, &sealer), 0);
    assert_int_equal(store_reseal(s, sealer, slots, key_size), 0);
    put_file(s, "alpha", 3500, 3); /* goes on under the new key; same content and time as before */
    close_clean(s);
    assert_int_equal(look(&im, &old, &now), -EKEYREJECTED);
    assert_int_equal(look(&im, &key_2, &now), 0);
    assert_true(state_equal(&now, &right));
    state_fini(&now);
    state_fini(&right);
    assert_int_equal(check(&im, &key_2), 0);
    for (size_t i = 0; i < map.n; i++) {
        const struct region *r = &map.region[i];

        if (r->kind < CURRENT)
            continue;
        for (size_t b = BANK_HEADER; b < r->len; b += 64)
            assert_null(memmem(im.bytes, im.size, before.bytes + r->off + b, 64));
    }
}

/* ------------------------------------------------------------------------------------------------
 */

static void
be_silent(void *arg, enum report_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flipped_byte_is_harmless_or_found_for_what_it_is),
        cmocka_unit_test(both_superblocks_changed_are_forged_or_open_for_no_key),
        cmocka_unit_test(blocks_of_another_image_of_the_same_key_are_found),
        cmocka_unit_test(blocks_of_an_older_state_do_not_bring_it_back),
        cmocka_unit_test(old_superblocks_put_back_are_refused),
        cmocka_unit_test(a_sealed_image_does_not_turn_into_a_plain_one),
        cmocka_unit_test(a_plain_image_with_a_sealed_superblock_is_not_served),
        cmocka_unit_test(each_finding_about_keys_reaches_the_user),
        cmocka_unit_test(after_a_reseal_only_the_new_key_opens_and_no_old_ciphertext_is_left),
    };

    if (crypt_init() < 0)
        return 1;
    report_set_sink(be_silent, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
