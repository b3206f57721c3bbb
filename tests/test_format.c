/* SPDX-License-Identifier: BSD-3-Clause */
/* The codecs of core/format.c against the bytes in doc/format.md, and against everything else. */
#include "base/bytes.h"
#include "base/scope.h"
#include "core/format.h"
#include "crypt/keys.h"
#include <errno.h>
#include <gcrypt.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- the worked example ------------------------------------------------------------------------
 */

enum { ROW = 16, BANK_BYTES = BANK_HEADER + BLOCK_SIZE };

static uint8_t sb_bytes[BLOCK_SIZE], dir_bytes[BLOCK_SIZE], bank_bytes[BANK_BYTES];
static const uint64_t sb_at = 0, dir_at = 0x20000, bank_at = 0x50000;

/* Reads one row of a dump into @row; returns its number of bytes, 0 for the closing offset. */
static size_t
parse_row(const char *line, uint64_t *off, uint8_t row[ROW])
{
    int used;
    size_t n = 0;

    assert_int_equal(sscanf(line, "%" SCNx64 "%n", off, &used), 1);
    for (line += used; n < ROW && sscanf(line, " %2hhx%n", &row[n], &used) == 1; n++)
        line += used;
    return n;
}

/* Reads the dump called @name from the document: @len bytes that begin at @base in the image. */
static void
read_dump(const char *name, uint8_t *out, size_t len, uint64_t base)
{
    const char *srcdir = getenv("srcdir");
    char path[4096], line[256], fence[64];
    uint8_t row[ROW] = {0};
    uint64_t at = base, off;
    bool inside = false;
    FILE *f;

    snprintf(path, sizeof path, "%s/doc/format.md", srcdir ? srcdir : ".");
    snprintf(fence, sizeof fence, "```hexdump %s\n", name);
    f = fopen(path, "r");
    if (!f)
        fail_msg("cannot open %s", path);
    while (fgets(line, sizeof line, f) && !(inside && line[0] == '`')) {
        uint8_t next[ROW];
        size_t n;

        if (!inside || line[0] == '*') {
            inside = inside || strcmp(line, fence) == 0;
            continue;
        }
        n = parse_row(line, &off, next);
        for (; at < off; at += ROW) /* what a star stood for */
            memcpy(out + (at - base), row, ROW);
        assert_true(at == off && at - base + n <= len);
        memcpy(row, next, n);
    }
    fclose(f);
    assert_true(at == base + len);
}

static const struct superblock sb_example = {
    .uuid = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
             0xee, 0xff},
    .sequence = 1,
    .image_size = 344064,
    .dir_off = {131072, 196608},
    .dir_capacity = 65536,
    .n_segments = 1,
    .created = 1700000000,
    .segments = {{.capacity = 4096, .count = 2, .bank_off = {262144, 327680}}},
};

static const char example_content[] = "hello, world\n";

/* The example's entries; @bank_digests are the tags of slot 0's banks 1 and 0 and of slot 1's bank
 * 0. */
static void
fill_example(struct entry e[3])
{
    e[0] = (struct entry){
        .name = "tpm2-00.permall",
        .kind = ENTRY_FILE,
        .id = 1,
        .slot = 0,
        .reserve_slot = SLOT_NONE,
        .attr = {0640, 107, 108, {1700000003, 1}, {1700000003, 2}, {1700000003, 3}},
        .current = {.generation = 3, .length = 13, .slot = 0, .bank = 1},
        .previous = {.generation = 2, .length = 6, .slot = 0, .bank = 0},
    };
    e[1] = (struct entry){.name = "efivars",
                          .kind = ENTRY_RESERVED,
                          .slot = SLOT_NONE,
                          .reserved = 4096,
                          .reserve_slot = 1};
    e[2] = (struct entry){
        .name = "gone",
        .kind = ENTRY_TOMBSTONE,
        .id = 2,
        .slot = SLOT_NONE,
        .reserve_slot = SLOT_NONE,
        .attr = {0600, 0, 0, {1700000002, 0}, {1700000002, 0}, {1700000002, 0}},
        .previous = {.generation = 2, .length = 4, .slot = 1, .bank = 0},
    };
}

/* The tag of a bank with @content, as it stands in a directory. */
static void
make_bank(uint8_t buf[BANK_BYTES], uint32_t slot, uint8_t bank, uint64_t generation,
          const char *content)
{
    struct bank_header h = {
        .generation = generation, .length = strlen(content), .slot = slot, .bank = bank};

    memcpy(h.uuid, sb_example.uuid, UUID_SIZE);
    memset(buf, 0xee, BANK_HEADER);
    memset(buf + BANK_HEADER, 0, BLOCK_SIZE);
    memcpy(buf + BANK_HEADER, content, h.length);
    bank_encode(&h, buf);
    assert_int_equal(format_seal(sealer_plain(), SEAL_BANK, buf, BANK_BYTES), 0);
}

static void
make_directory(uint8_t buf[BLOCK_SIZE])
{
    struct entry entries[3];
    struct directory dir = {
        .generation = 4,
        .superblock_sequence = 1,
        .clean = true,
        .held_tpm20 = true,
        .next_id = 3,
        .committed = 1700000004,
        .root = {0700, 107, 108, {1700000000, 0}, {1700000003, 2}, {1700000003, 2}},
        .n_entries = 3,
        .entries = entries,
    };
    uint8_t bank[BANK_BYTES];

    fill_example(entries);
    make_bank(bank, 0, 1, 3, example_content);
    memcpy(entries[0].current.digest, bank + BANK_TAG, SEAL_TAG_SIZE);
    make_bank(bank, 0, 0, 2, "hello\n");
    memcpy(entries[0].previous.digest, bank + BANK_TAG, SEAL_TAG_SIZE);
    make_bank(bank, 1, 0, 2, "bye\n");
    memcpy(entries[2].previous.digest, bank + BANK_TAG, SEAL_TAG_SIZE);
    assert_int_equal(directory_size(&dir), BLOCK_SIZE);
    memset(buf, 0, BLOCK_SIZE);
    directory_encode(&dir, sb_example.uuid, buf);
    assert_int_equal(format_seal(sealer_plain(), SEAL_DIRECTORY, buf, BLOCK_SIZE), 0);
}

static int
read_example(void **state)
{
    (void)state;
    if (!gcry_check_version(NULL))
        return -1;
    read_dump("superblock", sb_bytes, sizeof sb_bytes, sb_at);
    read_dump("directory", dir_bytes, sizeof dir_bytes, dir_at);
    read_dump("bank", bank_bytes, sizeof bank_bytes, bank_at);
    return 0;
}

static void
a_superblock_is_encoded_as_the_document_shows(void **state)
{
    uint8_t buf[BLOCK_SIZE];

    (void)state;
    memset(buf, 0xee, sizeof buf);
    superblock_encode(&sb_example, buf);
    assert_int_equal(format_seal(sealer_plain(), SEAL_SUPERBLOCK, buf, sizeof buf), 0);
    assert_memory_equal(buf, sb_bytes, sizeof buf);
}

static void
a_directory_is_encoded_as_the_document_shows(void **state)
{
    uint8_t buf[BLOCK_SIZE];

    (void)state;
    make_directory(buf);
    assert_memory_equal(buf, dir_bytes, sizeof buf);
}

static void
a_bank_is_encoded_as_the_document_shows(void **state)
{
    uint8_t buf[BANK_BYTES];

    (void)state;
    make_bank(buf, 0, 1, 3, example_content);
    assert_memory_equal(buf, bank_bytes, sizeof buf);
    assert_int_equal(superblock_bank_offset(&sb_example, 0, 1), bank_at);
}

static void
the_example_superblock_decodes(void **state)
{
    struct superblock sb;

    (void)state;
    assert_int_equal(superblock_decode(&sb, sb_bytes), 0);
    assert_int_equal(format_verify(sealer_plain(), SEAL_SUPERBLOCK, sb_bytes, BLOCK_SIZE), 0);
    assert_memory_equal(sb.uuid, sb_example.uuid, UUID_SIZE);
    assert_int_equal(sb.sequence, 1);
    assert_int_equal(sb.compat | sb.ro_compat | sb.incompat, 0);
    assert_int_equal(sb.image_size, 344064);
    assert_int_equal(sb.dir_off[0], 131072);
    assert_int_equal(sb.dir_off[1], 196608);
    assert_int_equal(sb.dir_capacity, 65536);
    assert_int_equal(sb.seal_mode, SEAL_NONE);
    assert_int_equal(sb.n_segments, 1);
    assert_int_equal(sb.created, 1700000000);
    assert_int_equal(sb.segments[0].capacity, 4096);
    assert_int_equal(sb.segments[0].count, 2);
    assert_int_equal(sb.segments[0].bank_off[0], 262144);
    assert_int_equal(sb.segments[0].bank_off[1], 327680);
}

static void
same_content(const struct content *a, const struct content *b)
{
    assert_int_equal(a->generation, b->generation);
    assert_int_equal(a->length, b->length);
    assert_int_equal(a->slot, b->slot);
    assert_int_equal(a->bank, b->bank);
}

static void
same_attr(const struct file_attr *a, const struct file_attr *b)
{
    assert_int_equal(a->mode, b->mode);
    assert_int_equal(a->uid, b->uid);
    assert_int_equal(a->gid, b->gid);
    assert_memory_equal(&a->atime, &b->atime, sizeof a->atime);
    assert_memory_equal(&a->mtime, &b->mtime, sizeof a->mtime);
    assert_memory_equal(&a->ctime, &b->ctime, sizeof a->ctime);
}

static void
the_example_directory_decodes(void **state)
{
    AUTO(directory_fini) struct directory dir = {0};
    const struct file_attr root = {0700,           107, 108, {1700000000, 0}, {1700000003, 2},
                                   {1700000003, 2}};
    struct entry want[3];

    (void)state;
    fill_example(want);
    assert_int_equal(directory_decode(&dir, dir_bytes, BLOCK_SIZE, &sb_example), 0);
    assert_int_equal(dir.generation, 4);
    assert_int_equal(dir.superblock_sequence, 1);
    assert_int_equal(dir.index, 0);
    assert_true(dir.clean && dir.held_tpm20 && !dir.held_tpm12 && !dir.resealing);
    assert_int_equal(dir.next_id, 3);
    assert_int_equal(dir.committed, 1700000004);
    assert_int_equal(dir.recoveries, 0);
    same_attr(&dir.root, &root);
    assert_int_equal(dir.n_entries, 3);
    for (int i = 0; i < 3; i++) {
        const struct entry *e = &dir.entries[i];

        assert_string_equal(e->name, want[i].name);
        assert_int_equal(e->kind, want[i].kind);
        assert_int_equal(e->id, want[i].id);
        assert_int_equal(e->slot, want[i].slot);
        assert_int_equal(e->reserved, want[i].reserved);
        assert_int_equal(e->reserve_slot, want[i].reserve_slot);
        same_attr(&e->attr, &want[i].attr);
        same_content(&e->current, &want[i].current);
        same_content(&e->previous, &want[i].previous);
    }
    assert_memory_equal(dir.entries[0].current.digest, bank_bytes + BANK_TAG, SEAL_TAG_SIZE);
}

static void
the_example_bank_decodes(void **state)
{
    struct bank_header h;

    (void)state;
    assert_int_equal(bank_decode(&h, bank_bytes, BLOCK_SIZE), 0);
    assert_int_equal(h.generation, 3);
    assert_int_equal(h.length, 13);
    assert_int_equal(h.slot, 0);
    assert_int_equal(h.bank, 1);
    assert_int_equal(h.seal_mode, SEAL_NONE);
    assert_int_equal(h.key_epoch, 0);
    assert_memory_equal(h.uuid, sb_example.uuid, UUID_SIZE);
    assert_int_equal(format_verify(sealer_plain(), SEAL_BANK, bank_bytes, BANK_BYTES), 0);
}

/* ---- every field survives the round trip -------------------------------------------------------
 */

static void
a_full_superblock_survives_the_round_trip(void **state)
{
    struct superblock sb = sb_example, back;
    uint8_t buf[BLOCK_SIZE], again[BLOCK_SIZE];
    uint64_t at = 256 * 1024;

    (void)state;
    sb.sequence = UINT64_MAX;
    sb.compat = UINT64_C(0x0123456789abcdef);
    sb.ro_compat = UINT64_C(0xfedcba9876543210);
    sb.key_epoch = UINT32_C(0x89abcdef);
    sb.seal_mode = SEAL_AES_CBC_HMAC_SHA256;
    sb.key_size = 24;
    sb.created = -1;
    sb.n_segments = MAX_SEGMENTS;
    for (int i = 0; i < MAX_SEGMENTS; i++, at += 6 * BLOCK_SIZE)
        sb.segments[i] = (struct segment){8192, 1, {at, at + 3 * BLOCK_SIZE}};
    sb.image_size = at;
    for (size_t i = 0; i < sizeof sb.keyslots; i++)
        sb.keyslots[i / KEYSLOT_SIZE][i % KEYSLOT_SIZE] = (uint8_t)(i * 7 + 1);
    superblock_encode(&sb, buf);
    format_set_crc(buf, sizeof buf);
    assert_int_equal(superblock_decode(&back, buf), 0);
    superblock_encode(&back, again);
    format_set_crc(again, sizeof again);
    assert_memory_equal(buf, again, sizeof buf);
    assert_memory_equal(back.keyslots, sb.keyslots, sizeof sb.keyslots);
    assert_true(back.sequence == UINT64_MAX && back.created == -1 && back.key_size == 24);
    assert_true(back.compat == sb.compat && back.ro_compat == sb.ro_compat);
}

static struct superblock
many_slots(uint32_t n)
{
    struct superblock sb = sb_example;

    sb.segments[0].count = n;
    sb.segments[0].bank_off[1] = sb.segments[0].bank_off[0] + n * (uint64_t)(2 * BLOCK_SIZE);
    sb.image_size = sb.segments[0].bank_off[1] + n * (uint64_t)(2 * BLOCK_SIZE);
    return sb;
}

/* A directory of @n files with names of 1 to 255 bytes, at least two blocks long. */
static uint8_t *
big_directory(const struct superblock *sb, uint32_t n, size_t *len)
{
    AUTO_FREE struct entry *entries = calloc(n, sizeof *entries);
    struct directory dir = {
        .generation = 9, .superblock_sequence = 1, .next_id = 1000, .n_entries = n};
    uint8_t *buf;

    assert_non_null(entries);
    dir.entries = entries;
    for (uint32_t i = 0; i < n; i++) {
        struct entry *e = &entries[i];
        size_t name_len = i == 0 ? 255 : 1 + i * 5 % 250;

        memset(e->name, 'a' + (int)(i % 26), name_len);
        e->name[0] = (char)(0x80 + i); /* any byte but NUL and slash */
        e->kind = ENTRY_FILE;
        e->id = 100 + i;
        e->slot = n - 1 - i;
        e->reserve_slot = SLOT_NONE;
        e->attr.mode = 07777;
        e->attr.uid = UINT32_MAX;
        e->attr.mtime = (struct timespec){INT64_MIN, 999999999};
        e->current = (struct content){
            .generation = 9, .length = 4096, .slot = e->slot, .bank = (uint8_t)(i % 2)};
    }
    *len = directory_size(&dir);
    buf = calloc(1, *len);
    assert_non_null(buf);
    directory_encode(&dir, sb->uuid, buf);
    format_set_crc(buf, *len);
    return buf;
}

static void
a_long_directory_survives_the_round_trip(void **state)
{
    const struct superblock sb = many_slots(60);
    AUTO(directory_fini) struct directory dir = {0}, copy = {0};
    AUTO_FREE uint8_t *again = NULL;
    size_t len;
    AUTO_FREE uint8_t *buf = big_directory(&sb, 60, &len);
    uint64_t peeked, generation;

    (void)state;
    assert_true(len > 2 * BLOCK_SIZE && len % BLOCK_SIZE == 0);
    assert_int_equal(directory_peek(buf, sb.dir_capacity, &peeked, &generation), 0);
    assert_true(peeked == len && generation == 9);
    assert_int_equal(directory_decode(&dir, buf, len, &sb), 0);
    assert_int_equal(directory_copy(&copy, &dir), 0);
    assert_ptr_not_equal(copy.entries, dir.entries);
    again = calloc(1, len);
    assert_non_null(again);
    directory_encode(&copy, sb.uuid, again);
    format_set_crc(again, len);
    assert_memory_equal(buf, again, len);
}

/* What a look at the differences says of @dir beside @was; where it says anything but "decode it",
 * decoding says the same. */
static int
recheck(struct directory *dir, const uint8_t *was, const struct superblock *sb)
{
    size_t len = directory_size(dir);
    AUTO_FREE uint8_t *buf = calloc(1, len);
    AUTO(directory_fini) struct directory back = {0};
    int r;

    assert_non_null(buf);
    directory_encode(dir, sb->uuid, buf);
    format_set_crc(buf, len);
    r = directory_recheck(dir, buf, len, was, sb);
    if (r != -EAGAIN)
        assert_int_equal(directory_decode(&back, buf, len, sb), r);
    return r;
}

static void
what_differs_from_a_directory_that_decodes_is_checked(void **state)
{
    const struct superblock sb = many_slots(60);
    AUTO(directory_fini) struct directory dir = {0};
    size_t len;
    AUTO_FREE uint8_t *was = big_directory(&sb, 60, &len);
    struct entry *e, good;

    (void)state;
    assert_int_equal(directory_decode(&dir, was, len, &sb), 0);
    e = &dir.entries[30];
    good = *e;
    assert_int_equal(recheck(&dir, was, &sb), 0);
    dir.generation++;
    e->attr.mode ^= 1;
    assert_int_equal(recheck(&dir, was, &sb), 0);
    e->attr.mode = 010000;
    assert_int_equal(recheck(&dir, was, &sb), -EUCLEAN);
    *e = good;
    e->slot = 60;
    assert_int_equal(recheck(&dir, was, &sb), -EUCLEAN);
    e->slot = dir.entries[31].slot;
    e->current = (struct content){0};
    assert_int_equal(recheck(&dir, was, &sb), -EUCLEAN);
    *e = good;
    e->current = (struct content){.generation = dir.generation + 1, .length = 1, .slot = e->slot};
    assert_int_equal(recheck(&dir, was, &sb), -EUCLEAN);
    *e = good;
    dir.next_id--;
    assert_int_equal(recheck(&dir, was, &sb), -EAGAIN);
    dir.next_id++;
    dir.generation -= 2;
    assert_int_equal(recheck(&dir, was, &sb), -EAGAIN);
    dir.generation += 2;
    e->name[0] ^= 1;
    assert_int_equal(recheck(&dir, was, &sb), -EAGAIN);
    *e = good;
    e->id = dir.entries[31].id;
    assert_int_equal(recheck(&dir, was, &sb), -EAGAIN);
    *e = good;
    e->kind = ENTRY_RESERVED;
    assert_int_equal(recheck(&dir, was, &sb), -EAGAIN);
    *e = good;
    dir.root.mode = 010000;
    assert_int_equal(recheck(&dir, was, &sb), -EUCLEAN);
    dir.root.mode = 0;
    dir.n_entries--;
    assert_int_equal(recheck(&dir, was, &sb), -EAGAIN);
}

static void
with_owner_mark(struct owner_mark mark, int r)
{
    const struct directory dir = {
        .generation = 7, .superblock_sequence = 1, .next_id = 1, .owner = mark};
    AUTO(directory_fini) struct directory back = {0};
    uint8_t buf[BLOCK_SIZE] = {0};

    directory_encode(&dir, sb_example.uuid, buf);
    format_set_crc(buf, sizeof buf);
    assert_int_equal(directory_decode(&back, buf, sizeof buf, &sb_example), r);
}

static void
an_owner_s_mark_is_whole_or_not_there(void **state)
{
    (void)state;
    with_owner_mark((struct owner_mark){0}, 0);
    with_owner_mark((struct owner_mark){1, 7, {1}, false}, 0);
    with_owner_mark((struct owner_mark){1, 8, {1}, false}, -EUCLEAN);
    with_owner_mark((struct owner_mark){1, 0, {1}, false}, -EUCLEAN);
    with_owner_mark((struct owner_mark){1, 7, {0}, false}, -EUCLEAN);
    with_owner_mark((struct owner_mark){0, 7, {0}, false}, -EUCLEAN);
    with_owner_mark((struct owner_mark){0, 0, {1}, false}, -EUCLEAN);
    with_owner_mark((struct owner_mark){0, 0, {0}, true}, -EUCLEAN);
}

static void
an_empty_directory_survives_the_round_trip(void **state)
{
    struct directory dir = {.generation = 1,
                            .superblock_sequence = 2,
                            .key_epoch = 3,
                            .index = 1,
                            .resealing = true,
                            .held_tpm12 = true,
                            .next_id = 1,
                            .recoveries = 5,
                            .owner = {6, 1, {8}, true}};
    AUTO(directory_fini) struct directory back = {0};
    AUTO(directory_fini) struct directory copy = {0};
    uint8_t buf[BLOCK_SIZE] = {0};

    (void)state;
    assert_int_equal(directory_size(&dir), BLOCK_SIZE);
    directory_encode(&dir, sb_example.uuid, buf);
    format_set_crc(buf, sizeof buf);
    assert_int_equal(directory_decode(&back, buf, sizeof buf, &sb_example), 0);
    assert_true(back.generation == 1 && back.superblock_sequence == 2 && back.key_epoch == 3);
    assert_true(back.index == 1 && back.resealing && back.held_tpm12 && !back.clean &&
                !back.held_tpm20);
    assert_true(back.recoveries == 5 && back.owner.epoch == 6 && back.owner.first == 1);
    assert_true(back.owner.nonce[0] == 8 && back.owner.guarded && back.n_entries == 0);
    assert_int_equal(directory_copy(&copy, &back), 0);
    assert_int_equal(copy.n_entries, 0);
}

/* ---- geometry ----------------------------------------------------------------------------------
 */

static void
slots_are_numbered_through_the_segments(void **state)
{
    struct superblock sb = {
        .n_segments = 2,
        .segments = {{4096, 3, {1 << 20, 2 << 20}}, {16384, 2, {3 << 20, 4 << 20}}}};

    (void)state;
    assert_int_equal(superblock_slot_count(&sb), 5);
    assert_int_equal(superblock_slot_capacity(&sb, 2), 4096);
    assert_int_equal(superblock_slot_capacity(&sb, 3), 16384);
    assert_int_equal(superblock_bank_offset(&sb, 0, 0), 1 << 20);
    assert_int_equal(superblock_bank_offset(&sb, 2, 1), (2 << 20) + 2 * 8192);
    assert_int_equal(superblock_bank_offset(&sb, 3, 1), 4 << 20);
    assert_int_equal(superblock_bank_offset(&sb, 4, 0), (3 << 20) + 20480);
}

static void
content_is_padded_to_whole_blocks(void **state)
{
    (void)state;
    assert_int_equal(bank_padded(0), 0);
    assert_int_equal(bank_padded(1), 4096);
    assert_int_equal(bank_padded(4096), 4096);
    assert_int_equal(bank_padded(4097), 8192);
}

/* ---- single fields, with a right checksum -------------------------------------------------------
 */

struct poke {
    const char *what;
    size_t off;
    unsigned width; /* bytes */
    uint64_t value;
    int want;
};

static void
apply_poke(uint8_t *buf, const struct poke *p)
{
    for (unsigned i = 0; i < p->width; i++)
        buf[p->off + i] = (uint8_t)(p->value >> 8 * i);
}

static void
expect(int got, const struct poke *p)
{
    if (got != p->want)
        fail_msg("%s: %d, not %d", p->what, got, p->want);
}

#define MAX32 UINT32_C(0xffffffff)
#define MAX64 UINT64_MAX

static const struct poke sb_pokes[] = {
    {"nothing", 0, 0, 0, 0},
    {"magic", 0, 1, 'X', -ENODATA},
    {"directory's magic", 6, 2, 'D' | 'R' << 8, -ENODATA},
    {"newer version", 12, 2, 2, -EPROTONOSUPPORT},
    {"newest version", 12, 2, 0xffff, -EPROTONOSUPPORT},
    {"version 0", 12, 2, 0, -EUCLEAN},
    {"reserved 14", 14, 2, 1, -EUCLEAN},
    {"sequence 0", 32, 8, 0, -EUCLEAN},
    {"unknown compat", 40, 8, MAX64, 0},
    {"unknown ro-compat", 48, 8, MAX64, 0},
    {"unknown incompat, lowest", 56, 8, 1, -EPROTONOSUPPORT},
    {"unknown incompat, highest", 63, 1, 0x80, -EPROTONOSUPPORT},
    {"size ends before the last bank", 64, 8, 0x54000 - 4096, -EUCLEAN},
    {"size with room behind the last bank", 64, 8, 0x55000, 0},
    {"size 0", 64, 8, 0, -EUCLEAN},
    {"directory 0 on the superblock", 72, 8, 0, -EUCLEAN},
    {"directory 0 before its place", 72, 8, 0x1f000, -EUCLEAN},
    {"directory 0 unaligned", 72, 8, 0x20200, -EUCLEAN},
    {"directory 0 on directory 1", 72, 8, 0x30000, -EUCLEAN},
    {"directory 0 half on directory 1", 72, 8, 0x21000, -EUCLEAN},
    {"directory 1 on bank 0", 80, 8, 0x40000, -EUCLEAN},
    {"directory 1 half on bank 0", 80, 8, 0x31000, -EUCLEAN},
    {"directory 1 at the end", 80, 8, 0x54000, -EUCLEAN},
    {"directory 1 past the end", 80, 8, MAX64 - 4095, -EUCLEAN},
    {"directory capacity 0", 88, 4, 0, -EUCLEAN},
    {"directory capacity unaligned", 88, 4, 4097, -EUCLEAN},
    {"a smaller directory capacity", 88, 4, 0xf000, 0},
    {"directory capacity over the next", 88, 4, 0x11000, -EUCLEAN},
    {"directory capacity endless", 88, 4, 0xfffff000, -EUCLEAN},
    {"key epoch, not sealed", 92, 4, 1, -EUCLEAN},
    {"sealed, no key epoch", 96, 1, 1, -EUCLEAN},
    {"key size, not sealed", 97, 1, 32, -EUCLEAN},
    {"no segment", 98, 2, 0, -EUCLEAN},
    {"an empty segment", 98, 2, 2, -EUCLEAN},
    {"33 segments", 98, 2, 33, -EUCLEAN},
    {"65535 segments", 98, 2, 0xffff, -EUCLEAN},
    {"reserved 100", 100, 4, 1, -EUCLEAN},
    {"reserved 112", 112, 1, 1, -EUCLEAN},
    {"reserved 255", 255, 1, 1, -EUCLEAN},
    {"capacity 0", 256, 4, 0, -EUCLEAN},
    {"capacity unaligned", 256, 4, 4095, -EUCLEAN},
    {"capacity too large for the place", 256, 4, 0x8000, -EUCLEAN},
    {"capacity over 1 GiB", 256, 4, 0x40001000, -EUCLEAN},
    {"capacity endless", 256, 4, 0xfffff000, -EUCLEAN},
    {"count 0", 260, 4, 0, -EUCLEAN},
    {"count 3, bank 1 past the end", 260, 4, 3, -EUCLEAN},
    {"count 9", 260, 4, 9, -EUCLEAN},
    {"count endless", 260, 4, MAX32, -EUCLEAN},
    {"bank 0 on the directories", 264, 8, 0x20000, -EUCLEAN},
    {"bank 0 on bank 1", 264, 8, 0x50000, -EUCLEAN},
    {"bank 0 unaligned", 264, 8, 0x40001, -EUCLEAN},
    {"bank 1 past the end", 272, 8, 0x51000, -EUCLEAN},
    {"bank 1 wraps", 272, 8, MAX64 - 0xfff, -EUCLEAN},
    {"segment's reserved", 280, 1, 1, -EUCLEAN},
    {"unused segment", 288, 1, 1, -EUCLEAN},
    {"last unused segment", 1279, 1, 1, -EUCLEAN},
    {"key slot, not sealed", 1280, 1, 1, -EUCLEAN},
    {"reserved 2304", 2304, 1, 1, -EUCLEAN},
    {"reserved 4063", 4063, 1, 1, -EUCLEAN},
};

static void
each_field_of_a_superblock_is_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sb_pokes / sizeof sb_pokes[0]; i++) {
        struct superblock sb, untouched;
        uint8_t buf[BLOCK_SIZE];

        memset(&untouched, 0xa5, sizeof untouched);
        sb = untouched;
        memcpy(buf, sb_bytes, sizeof buf);
        apply_poke(buf, &sb_pokes[i]);
        format_set_crc(buf, sizeof buf);
        expect(superblock_decode(&sb, buf), &sb_pokes[i]);
        if (sb_pokes[i].want < 0)
            assert_memory_equal(&sb, &untouched, sizeof sb);
    }
}

static void
incompatible_features_count_before_fields_they_may_change(void **state)
{
    struct superblock sb;
    uint8_t buf[BLOCK_SIZE];

    (void)state;
    memcpy(buf, sb_bytes, sizeof buf);
    memset(buf + 56, 0xff, BLOCK_SIZE - 56);
    format_set_crc(buf, sizeof buf);
    assert_int_equal(superblock_decode(&sb, buf), -EPROTONOSUPPORT);
}

/* Offsets in the example: entries, and their contents. */
enum { E0 = 256, E1 = 456, E2 = 648, CURRENT = 64, PREVIOUS = 120 };

static const struct poke dir_pokes[] = {
    {"nothing", 0, 0, 0, 0},
    {"magic", 0, 1, 0, -ENODATA},
    {"newer version", 12, 2, 2, -EPROTONOSUPPORT},
    {"version 0", 12, 2, 0, -EUCLEAN},
    {"unknown flag", 14, 2, 0x10, -EUCLEAN},
    {"highest flag", 14, 2, 0x8000, -EUCLEAN},
    {"all known flags", 14, 2, 15, 0},
    {"another image's", 16, 1, 1, -EUCLEAN},
    {"generation 0", 32, 8, 0, -EUCLEAN},
    {"generation below a content's", 32, 8, 2, -EUCLEAN},
    {"generation of the newest content", 32, 8, 3, 0},
    {"superblock sequence 0", 40, 8, 0, -EUCLEAN},
    {"length 0", 48, 4, 0, -EUCLEAN},
    {"length of the header", 48, 4, 256, -EUCLEAN},
    {"length one less", 48, 4, 839, -EUCLEAN},
    {"length one more", 48, 4, 841, -EUCLEAN},
    {"length without the last entry", 48, 4, E2, -EUCLEAN},
    {"length past the block", 48, 4, 4097, -EUCLEAN},
    {"length endless", 48, 4, MAX32, -EUCLEAN},
    {"count 2", 52, 4, 2, -EUCLEAN},
    {"count 4", 52, 4, 4, -EUCLEAN},
    {"count endless", 52, 4, MAX32, -EUCLEAN},
    {"next id 0", 56, 8, 0, -EUCLEAN},
    {"next id in use", 56, 8, 2, -EUCLEAN},
    {"index 2", 76, 1, 2, -EUCLEAN},
    {"reserved 77", 77, 1, 1, -EUCLEAN},
    {"root's file type", 128, 4, 040700, -EUCLEAN},
    {"reserved 140", 140, 4, 1, -EUCLEAN},
    {"root's nanoseconds", 168, 4, 1000000000, -EUCLEAN},
    {"root's largest nanoseconds", 176, 4, 999999999, 0},
    {"reserved 180", 180, 4, 1, -EUCLEAN},
    {"reserved 192", 192, 1, 1, -EUCLEAN},
    {"reserved 223", 223, 1, 1, -EUCLEAN},
    {"record 0", E0, 2, 0, -EUCLEAN},
    {"record too short", E0, 2, 192, -EUCLEAN},
    {"record too long", E0, 2, 208, -EUCLEAN},
    {"record endless", E0, 2, 0xffff, -EUCLEAN},
    {"name length 0", E0 + 2, 1, 0, -EUCLEAN},
    {"name length 14, its last byte in the padding", E0 + 2, 1, 14, -EUCLEAN},
    {"name length 16, with a NUL", E0 + 2, 1, 16, -EUCLEAN},
    {"name length 255", E0 + 2, 1, 255, -EUCLEAN},
    {"last entry's name past the end", E2 + 2, 1, 200, -EUCLEAN},
    {"kind 0", E0 + 3, 1, 0, -EUCLEAN},
    {"kind 4", E0 + 3, 1, 4, -EUCLEAN},
    {"a file as a tombstone", E0 + 3, 1, 2, -EUCLEAN},
    {"a file as reserved", E0 + 3, 1, 3, -EUCLEAN},
    {"a tombstone as a file", E2 + 3, 1, 1, -EUCLEAN},
    {"a reserved name as a file", E1 + 3, 1, 1, -EUCLEAN},
    {"file type", E0 + 4, 4, 0100640, -EUCLEAN},
    {"all permission bits", E0 + 4, 4, 07777, 0},
    {"id 0", E0 + 16, 8, 0, -EUCLEAN},
    {"id not yet given", E0 + 16, 8, 3, -EUCLEAN},
    {"seconds before 1970", E0 + 24, 8, MAX64, 0},
    {"atime nanoseconds", E0 + 48, 4, 1000000000, -EUCLEAN},
    {"mtime nanoseconds", E0 + 52, 4, MAX32, -EUCLEAN},
    {"ctime nanoseconds", E0 + 56, 4, 1000000000, -EUCLEAN},
    {"slot kept for another", E0 + 60, 4, 1, -EUCLEAN},
    {"slot past the end", E0 + 60, 4, 2, -EUCLEAN},
    {"no slot", E0 + 60, 4, MAX32, -EUCLEAN},
    {"slot of a reserved name", E1 + 60, 4, 0, -EUCLEAN},
    {"other slot of a reserved name", E1 + 60, 4, 1, -EUCLEAN},
    {"tombstone with a slot", E2 + 60, 4, 1, -EUCLEAN},
    {"current content in another slot", E0 + CURRENT, 4, 1, -EUCLEAN},
    {"current content past the slots", E0 + CURRENT, 4, 2, -EUCLEAN},
    {"current content in the previous' bank", E0 + CURRENT + 4, 1, 0, -EUCLEAN},
    {"bank 2", E0 + CURRENT + 4, 1, 2, -EUCLEAN},
    {"content's reserved", E0 + CURRENT + 5, 1, 1, -EUCLEAN},
    {"content's last reserved", E0 + CURRENT + 7, 1, 1, -EUCLEAN},
    {"content of length 0", E0 + CURRENT + 8, 8, 0, -EUCLEAN},
    {"content that fills the slot", E0 + CURRENT + 8, 8, 4096, 0},
    {"content over the slot", E0 + CURRENT + 8, 8, 4097, -EUCLEAN},
    {"content endless", E0 + CURRENT + 8, 8, MAX64, -EUCLEAN},
    {"content without generation", E0 + CURRENT + 16, 8, 0, -EUCLEAN},
    {"content from the future", E0 + CURRENT + 16, 8, 5, -EUCLEAN},
    {"previous in a tombstone's bank", E0 + PREVIOUS, 4, 1, -EUCLEAN},
    {"previous in a free bank", E0 + PREVIOUS, 5, 1 | UINT64_C(1) << 32, 0},
    {"previous past the slots", E0 + PREVIOUS, 4, 2, -EUCLEAN},
    {"previous in bank 255", E0 + PREVIOUS + 4, 1, 255, -EUCLEAN},
    {"previous' reserved", E0 + PREVIOUS + 6, 1, 1, -EUCLEAN},
    {"previous over the slot", E0 + PREVIOUS + 8, 8, 4097, -EUCLEAN},
    {"previous from the future", E0 + PREVIOUS + 16, 8, 5, -EUCLEAN},
    {"tombstone without content", E2 + PREVIOUS + 16, 8, 0, -EUCLEAN},
    {"tombstone with reserved bytes", E2 + 176, 4, 1, -EUCLEAN},
    {"tombstone with a promise", E2 + 176, 8, 1 | UINT64_C(1) << 32, -EUCLEAN},
    {"reserved entry without bytes", E1 + 176, 4, 0, -EUCLEAN},
    {"nothing reserved", E1 + 176, 8, 0, -EUCLEAN},
    {"fewer reserved than the slot has", E1 + 176, 4, 1, 0},
    {"more reserved than the slot has", E1 + 176, 4, 4097, -EUCLEAN},
    {"endless reserve", E1 + 176, 4, MAX32, -EUCLEAN},
    {"reserve in another's slot", E1 + 180, 4, 0, -EUCLEAN},
    {"reserve slot past the end", E1 + 180, 4, 2, -EUCLEAN},
    {"reserve without a slot", E1 + 180, 4, MAX32, -EUCLEAN},
    {"promise kept by the file's slot", E0 + 176, 8, 4096 | UINT64_C(0xffffffff) << 32, 0},
    {"promise too large for the file's slot", E0 + 176, 8, 4097 | UINT64_C(0xffffffff) << 32,
     -EUCLEAN},
    {"reserve slot without a promise", E0 + 180, 4, MAX32, -EUCLEAN},
    {"slash in a name", E0 + 184, 1, '/', -EUCLEAN},
    {"NUL in a name", E0 + 184, 1, 0, -EUCLEAN},
    {"bytes behind a name", E0 + 199, 1, 'x', -EUCLEAN},
    {"bytes behind the last entry", 840, 1, 1, -EUCLEAN},
    {"last byte", 4095, 1, 1, -EUCLEAN},
};

static void
each_field_of_a_directory_is_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof dir_pokes / sizeof dir_pokes[0]; i++) {
        AUTO(directory_fini) struct directory dir = {0};
        uint8_t buf[BLOCK_SIZE];

        memcpy(buf, dir_bytes, sizeof buf);
        apply_poke(buf, &dir_pokes[i]);
        format_set_crc(buf, sizeof buf);
        expect(directory_decode(&dir, buf, sizeof buf, &sb_example), &dir_pokes[i]);
        if (dir_pokes[i].want < 0)
            assert_null(dir.entries);
    }
}

/* Encodes @n files and tells what the decoder says. */
static int
decode_made(struct entry *entries, uint32_t n)
{
    struct directory dir = {.generation = 9,
                            .superblock_sequence = 1,
                            .next_id = 100,
                            .n_entries = n,
                            .entries = entries};
    AUTO(directory_fini) struct directory back = {0};
    uint8_t buf[BLOCK_SIZE] = {0};

    directory_encode(&dir, sb_example.uuid, buf);
    format_set_crc(buf, sizeof buf);
    return directory_decode(&back, buf, sizeof buf, &sb_example);
}

static void
nothing_in_a_directory_stands_twice(void **state)
{
    const struct content c = {.generation = 5, .length = 1, .slot = 0, .bank = 1};
    const struct entry a = {.name = "a",
                            .kind = ENTRY_FILE,
                            .id = 1,
                            .slot = 0,
                            .reserve_slot = SLOT_NONE,
                            .current = c};
    const struct entry b = {
        .name = "b", .kind = ENTRY_FILE, .id = 2, .slot = 1, .reserve_slot = SLOT_NONE};
    struct entry e[2] = {a, b};

    (void)state;
    assert_int_equal(decode_made(e, 2), 0);
    strcpy(e[1].name, "a");
    assert_int_equal(decode_made(e, 2), -EUCLEAN);
    e[1] = b;
    e[1].id = 1;
    assert_int_equal(decode_made(e, 2), -EUCLEAN);
    e[1] = b;
    e[1].slot = 0;
    assert_int_equal(decode_made(e, 2), -EUCLEAN);
    e[1] = b;
    e[1].previous = c;
    assert_int_equal(decode_made(e, 2), -EUCLEAN);
    e[1].previous.bank = 0;
    assert_int_equal(decode_made(e, 2), 0);
    e[1] = b;
    e[0].previous = c;
    assert_int_equal(decode_made(e, 2), -EUCLEAN);
    e[0] = a;
    e[0].reserved = 4096; /* kept by its own slot */
    assert_int_equal(decode_made(e, 2), 0);
    e[0].reserve_slot = 1; /* which is b's */
    assert_int_equal(decode_made(e, 2), -EUCLEAN);
}

/* With what is left of a third name, which keeps the id, between them. */
static void
two_files_of_one_id_are_found_wherever_they_stand(void **state)
{
    static const char *const names[] = {"a", "b", "c"};

    (void)state;
    for (unsigned left = 0; left < 3; left++) {
        struct entry e[3];

        for (uint32_t i = 0, slot = 0; i < 3; i++) {
            e[i] = (struct entry){.kind = ENTRY_FILE, .id = 1, .reserve_slot = SLOT_NONE};
            strcpy(e[i].name, names[i]);
            if (i != left) {
                e[i].slot = slot++;
                continue;
            }
            e[i].kind = ENTRY_TOMBSTONE;
            e[i].slot = SLOT_NONE;
            e[i].previous = (struct content){.generation = 5, .length = 1, .bank = 1};
        }
        assert_int_equal(decode_made(e, 3), -EUCLEAN);
        e[(left + 1) % 3].id = 2;
        assert_int_equal(decode_made(e, 3), 0);
    }
}

static void
dot_and_dot_dot_are_no_names(void **state)
{
    static const char *const names[] = {".", "..", "...", ".a"};

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct entry e = {.kind = ENTRY_FILE, .id = 1, .slot = 0, .reserve_slot = SLOT_NONE};

        strcpy(e.name, names[i]);
        assert_int_equal(decode_made(&e, 1), i < 2 ? -EUCLEAN : 0);
    }
}

static const struct poke bank_pokes[] = {
    {"nothing", 0, 0, 0, 0},
    {"magic", 7, 1, 'X', -ENODATA},
    {"newer version", 12, 2, 2, -EPROTONOSUPPORT},
    {"version 0", 12, 2, 0, -EUCLEAN},
    {"generation 0", 32, 8, 0, -EUCLEAN},
    {"length 0", 48, 8, 0, -EUCLEAN},
    {"length of a whole block", 48, 8, 4096, 0},
    {"length of two blocks", 48, 8, 4097, -EUCLEAN},
    {"length that wraps", 48, 8, MAX64, -EUCLEAN},
    {"length that wraps into the block", 48, 8, MAX64 - 4095, -EUCLEAN},
    {"reserved 56", 56, 8, 1, -EUCLEAN},
    {"reserved 80", 80, 1, 1, -EUCLEAN},
    {"reserved 95", 95, 1, 1, -EUCLEAN},
    {"reserved 128", 128, 1, 1, -EUCLEAN},
    {"reserved 4095", 4095, 1, 1, -EUCLEAN},
};

static void
each_field_of_a_bank_is_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bank_pokes / sizeof bank_pokes[0]; i++) {
        struct bank_header h;
        uint8_t buf[BANK_BYTES];

        memcpy(buf, bank_bytes, sizeof buf);
        apply_poke(buf, &bank_pokes[i]);
        format_set_crc(buf, sizeof buf);
        expect(bank_decode(&h, buf, BLOCK_SIZE), &bank_pokes[i]);
    }
}

static void
a_bank_without_content_is_none(void **state)
{
    struct bank_header h = {.generation = 1, .length = 0};
    uint8_t buf[BANK_HEADER];

    (void)state;
    for (int i = 0; i < 3; i++) {
        static const uint64_t lengths[] = {0, MAX64, MAX64 - 4094};

        h.length = lengths[i];
        bank_encode(&h, buf);
        format_set_crc(buf, sizeof buf);
        assert_int_equal(bank_decode(&h, buf, 0), -EUCLEAN);
    }
}

/* ---- damage anywhere ----------------------------------------------------------------------------
 */

struct codec {
    const char *name;
    const uint8_t *bytes;
    size_t len;
    size_t fixed; /* flips with a new checksum up to here */
    enum seal_purpose purpose;
};

static int
decode_any(const struct codec *c, const uint8_t *buf, size_t len)
{
    AUTO(directory_fini) struct directory dir = {0};
    struct superblock sb;
    struct bank_header h;

    switch (c->purpose) {
    case SEAL_SUPERBLOCK:
        return superblock_decode(&sb, buf);
    case SEAL_DIRECTORY:
        return directory_decode(&dir, buf, len, &sb_example);
    case SEAL_BANK:
        return bank_decode(&h, buf, len - BANK_HEADER);
    }
    return -EINVAL;
}

static const struct codec codecs[] = {
    {"superblock", sb_bytes, sizeof sb_bytes, BLOCK_SIZE, SEAL_SUPERBLOCK},
    {"directory", dir_bytes, sizeof dir_bytes, 1024, SEAL_DIRECTORY},
    {"bank", bank_bytes, sizeof bank_bytes, BANK_HEADER + 64, SEAL_BANK},
};

/* One flipped bit: found by the checksum; and with the checksum put right, by a field's check or
 * else by the tag. */
static void
flip_bit(const struct codec *c, uint8_t *buf, size_t bit)
{
    int r;

    memcpy(buf, c->bytes, c->len);
    buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
    r = decode_any(c, buf, c->len);
    if (r != (bit < 64 ? -ENODATA : -EUCLEAN))
        fail_msg("%s: bit %zu flipped: %d", c->name, bit, r);
    if (bit / 8 >= c->fixed || (bit >= 64 && bit < 96))
        return;
    format_set_crc(buf, c->len);
    r = decode_any(c, buf, c->len);
    if (r == 0)
        r = format_verify(sealer_plain(), c->purpose, buf, c->len);
    if (r >= 0)
        fail_msg("%s: bit %zu flipped and the checksum made good: taken", c->name, bit);
}

static void
every_flipped_bit_is_found(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof codecs / sizeof codecs[0]; k++) {
        AUTO_FREE uint8_t *buf = malloc(codecs[k].len);

        assert_non_null(buf);
        for (size_t bit = 0; bit < codecs[k].len * 8; bit++)
            flip_bit(&codecs[k], buf, bit);
    }
}

/* The first @keep bytes are left, zeros follow: an image file cut short and grown again. */
static void
every_truncation_is_found(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof codecs / sizeof codecs[0]; k++) {
        const struct codec *c = &codecs[k];
        AUTO_FREE uint8_t *buf = calloc(1, c->len);

        assert_non_null(buf);
        for (size_t keep = 0; keep < c->len; keep++) {
            int r = decode_any(c, buf, c->len);

            if (memcmp(buf, c->bytes, c->len) != 0 && r != (keep < 8 ? -ENODATA : -EUCLEAN))
                fail_msg("%s: cut at %zu: %d", c->name, keep, r);
            buf[keep] = c->bytes[keep];
        }
        assert_int_equal(decode_any(c, buf, c->len), 0);
    }
}

static void
a_directory_cut_at_a_block_is_found(void **state)
{
    const struct superblock sb = many_slots(60);
    size_t len;
    AUTO_FREE uint8_t *whole = big_directory(&sb, 60, &len);

    (void)state;
    for (size_t cut = BLOCK_SIZE; cut < len; cut += BLOCK_SIZE) {
        AUTO(directory_fini) struct directory dir = {0};
        AUTO_FREE uint8_t *buf = malloc(cut); /* exactly: a sanitizer sees a byte too far */

        assert_non_null(buf);
        memcpy(buf, whole, cut);
        assert_int_equal(directory_decode(&dir, buf, cut, &sb), -EUCLEAN);
        format_set_crc(buf, cut);
        assert_int_equal(directory_decode(&dir, buf, cut, &sb), -EUCLEAN);
    }
}

static void
a_directory_for_a_smaller_geometry_is_refused(void **state)
{
    const struct superblock made_for = many_slots(60), sb = many_slots(59);
    AUTO(directory_fini) struct directory dir = {0};
    size_t len;
    AUTO_FREE uint8_t *buf = big_directory(&made_for, 60, &len);

    (void)state;
    assert_int_equal(directory_decode(&dir, buf, len, &sb), -EUCLEAN);
}

static void
a_peek_believes_no_length(void **state)
{
    static const struct {
        uint32_t length, capacity;
        int want;
        uint64_t len;
    } cases[] = {
        {256, 8192, 0, 4096},
        {4096, 8192, 0, 4096},
        {4097, 8192, 0, 8192},
        {8192, 8192, 0, 8192},
        {8193, 8192, -EUCLEAN, 0},
        {255, 8192, -EUCLEAN, 0},
        {0, 8192, -EUCLEAN, 0},
        {UINT32_MAX, 8192, -EUCLEAN, 0},
        {UINT32_MAX, 0xfffff000, -EUCLEAN, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t len = 0, generation = 0;
        uint8_t buf[BLOCK_SIZE];

        memcpy(buf, dir_bytes, sizeof buf);
        store_le32(buf + 48, cases[i].length);
        assert_int_equal(directory_peek(buf, cases[i].capacity, &len, &generation), cases[i].want);
        assert_int_equal(len, cases[i].len);
        assert_int_equal(generation, cases[i].want < 0 ? 0 : 4);
    }
}

static void
random_damage_with_a_right_checksum_never_crashes(void **state)
{
    uint64_t seed = 0x9e3779b97f4a7c15;

    (void)state;
    for (int i = 0; i < 60000; i++) {
        const struct codec *c = &codecs[i % 3];
        uint8_t buf[BANK_BYTES];

        memcpy(buf, c->bytes, c->len);
        for (int k = i % 7; k >= 0; k--) {
            static const uint8_t nasty[] = {0, 1, 0x7f, 0x80, 0xff, 0xc8, 0x10, 3};
            size_t at;

            seed = seed * 6364136223846793005u + 1442695040888963407u;
            at = 12 + (seed >> 33) % (c->purpose == SEAL_SUPERBLOCK ? 300 : 900);
            buf[at] = nasty[seed >> 20 & 7];
        }
        format_set_crc(buf, c->len);
        decode_any(c, buf, c->len);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_superblock_is_encoded_as_the_document_shows),
        cmocka_unit_test(a_directory_is_encoded_as_the_document_shows),
        cmocka_unit_test(a_bank_is_encoded_as_the_document_shows),
        cmocka_unit_test(the_example_superblock_decodes),
        cmocka_unit_test(the_example_directory_decodes),
        cmocka_unit_test(the_example_bank_decodes),
        cmocka_unit_test(a_full_superblock_survives_the_round_trip),
        cmocka_unit_test(a_long_directory_survives_the_round_trip),
        cmocka_unit_test(what_differs_from_a_directory_that_decodes_is_checked),
        cmocka_unit_test(an_owner_s_mark_is_whole_or_not_there),
        cmocka_unit_test(an_empty_directory_survives_the_round_trip),
        cmocka_unit_test(slots_are_numbered_through_the_segments),
        cmocka_unit_test(content_is_padded_to_whole_blocks),
        cmocka_unit_test(each_field_of_a_superblock_is_checked),
        cmocka_unit_test(incompatible_features_count_before_fields_they_may_change),
        cmocka_unit_test(each_field_of_a_directory_is_checked),
        cmocka_unit_test(nothing_in_a_directory_stands_twice),
        cmocka_unit_test(two_files_of_one_id_are_found_wherever_they_stand),
        cmocka_unit_test(dot_and_dot_dot_are_no_names),
        cmocka_unit_test(each_field_of_a_bank_is_checked),
        cmocka_unit_test(a_bank_without_content_is_none),
        cmocka_unit_test(every_flipped_bit_is_found),
        cmocka_unit_test(every_truncation_is_found),
        cmocka_unit_test(a_directory_cut_at_a_block_is_found),
        cmocka_unit_test(a_directory_for_a_smaller_geometry_is_refused),
        cmocka_unit_test(a_peek_believes_no_length),
        cmocka_unit_test(random_damage_with_a_right_checksum_never_crashes),
    };

    return cmocka_run_group_tests_name("format", tests, read_example, NULL);
}
