/* SPDX-License-Identifier: BSD-3-Clause */
/* An image in hostile hands: edits of a good one, whose checksums and tags are then made right
 * again.
 *
 * Byte 0: bit 0 sealed, bit 1 checksums stay wrong, bit 2 tags stay wrong, bit 3 the directories
 * keep the old digests, bits 4 and 5 how it is opened.  Then edits of 4 bytes: structure, offset in
 * it (two bytes, little-endian), value. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/check.h"
#include "core/salvage.h"
#include "core/store.h"
#include "tests/fuzz/fuzz.h"
#include "tests/memdev.h"
#include "tests/testseal.h"
#include <errno.h>
#include <string.h>

enum { STRUCTURES = 64, CAPACITY_A = 4096, CAPACITY_B = 16384 };
static const uint64_t volume_key = 0xfeed, user_key = 0xbeef;
static const struct slot_class classes[] = {{4, CAPACITY_A}, {1, CAPACITY_B}};

static struct base {
    uint8_t *bytes, *work;
    uint64_t size;
    struct superblock sb;
    size_t n;
    struct place {
        enum seal_purpose purpose;
        uint64_t off;
        size_t room;
    } places[STRUCTURES];
} bases[2]; /* plain, sealed */

static void
silent(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level, (void)line;
}

/* ---- good images --------------------------------------------------------------------------------
 */

static void
put_file(struct store *s, const char *name, size_t len, uint8_t value)
{
    static uint8_t data[CAPACITY_B];
    struct change c = {
        .op = CHANGE_FILE, .name = name, .has_content = true, .data = data, .len = len};
    struct entry e;

    memset(data, value, len);
    if (store_find(s, name, &e) == 0 && e.kind == ENTRY_FILE) {
        c.id = e.id;
        c.slot = e.slot;
        store_slot_hold(s, c.slot);
    } else {
        c.id = store_new_id(s);
        MUST(store_slot_take(s, len, name, &c.slot) == 0);
    }
    MUST(store_commit(s, &c, 1, NULL) == 0);
    store_slot_drop(s, c.slot);
}

static void
unlink_file(struct store *s, const char *name)
{
    struct change c = {.op = CHANGE_UNLINK};
    struct entry e;

    MUST(store_find(s, name, &e) == 0);
    c.id = e.id;
    MUST(store_commit(s, &c, 1, NULL) == 0);
}

static void
add_place(struct base *b, enum seal_purpose purpose, uint64_t off, size_t room)
{
    MUST(b->n < STRUCTURES);
    b->places[b->n++] = (struct place){purpose, off, room};
}

static void
find_places(struct base *b)
{
    add_place(b, SEAL_SUPERBLOCK, SUPERBLOCK_A, BLOCK_SIZE);
    add_place(b, SEAL_SUPERBLOCK, SUPERBLOCK_B, BLOCK_SIZE);
    add_place(b, SEAL_DIRECTORY, b->sb.dir_off[0], b->sb.dir_capacity);
    add_place(b, SEAL_DIRECTORY, b->sb.dir_off[1], b->sb.dir_capacity);
    for (uint32_t slot = 0; slot < superblock_slot_count(&b->sb); slot++)
        for (unsigned bank = 0; bank < 2; bank++)
            add_place(b, SEAL_BANK, superblock_bank_offset(&b->sb, slot, bank),
                      BANK_HEADER + superblock_slot_capacity(&b->sb, slot));
}

static const uint64_t *
key_of(const struct base *b)
{
    return b == &bases[1] ? &user_key : NULL;
}

static struct sealer *
sealer_of(const struct base *b)
{
    return b == &bases[1] ? testseal_keyed(volume_key) : testseal_plain();
}

static int
open_image(struct base *b, struct dev *d, bool read_only, bool degraded, bool repair,
           struct store **s)
{
    const struct store_options opt = {.read_only = read_only,
                                      .degraded = degraded,
                                      .repair = repair,
                                      .unlock = testseal_unlock,
                                      .unlock_arg = (void *)(uintptr_t)key_of(b)};

    return store_open(s, d, &opt);
}

static void
format(struct base *b, const struct format_spec *spec)
{
    AUTO(sealer_freep) struct sealer *sealer = sealer_of(b);
    AUTO(dev_closep) struct dev *d = memdev_new(b->bytes, b->size);

    MUST(store_format(d, spec, sealer) == 0);
}

static void
make_base(struct base *b)
{
    const struct reservation promise = {"promised", 100};
    struct format_spec spec = {.classes = classes,
                               .n_classes = 2,
                               .reservations = &promise,
                               .n_reservations = 1,
                               .uuid = {1, 2, 3}};
    struct store *s;

    if (key_of(b)) {
        spec.seal_mode = SEAL_AES_CBC_HMAC_SHA256;
        spec.key_size = 32;
        testseal_keyslots(volume_key, user_key, spec.keyslots);
    }
    MUST(store_layout(&b->sb, &spec, NULL) == 0);
    b->size = b->sb.image_size;
    b->bytes = calloc(1, b->size);
    b->work = malloc(b->size);
    MUST(b->bytes && b->work);
    format(b, &spec);
    MUST(open_image(b, memdev_new(b->bytes, b->size), false, false, false, &s) == 0);
    put_file(s, "one", 100, 1);
    put_file(s, "two", 5000, 2);
    put_file(s, "gone", 10, 3);
    put_file(s, "one", CAPACITY_A, 4);
    put_file(s, "promised", 50, 5);
    unlink_file(s, "gone");
    b->sb = *store_superblock(s);
    store_close(s);
    find_places(b);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    report_set_sink(silent, NULL);
    make_base(&bases[0]);
    make_base(&bases[1]);
    return 0;
}

/* ---- damage with right checksums ---------------------------------------------------------------
 */

/* How long the structure says that it is; 0 when that makes no sense. */
static size_t
claimed_length(const struct place *p, const uint8_t *buf)
{
    uint64_t len = 0, generation;

    if (p->purpose == SEAL_SUPERBLOCK)
        return BLOCK_SIZE;
    if (p->purpose == SEAL_DIRECTORY)
        return directory_peek(buf, (uint32_t)p->room, &len, &generation) == 0 ? len : 0;
    if (bank_peek(buf, &len, &generation) < 0 || len > p->room - BANK_HEADER)
        return 0;
    return BANK_HEADER + bank_padded(len);
}

/* Where a directory holds @old as a content's digest, it now holds @new. */
static void
replace_digest(uint8_t *buf, size_t len, const uint8_t *old, const uint8_t *new)
{
    uint8_t *at;

    while (memcmp(old, new, SEAL_TAG_SIZE) != 0 && (at = memmem(buf, len, old, SEAL_TAG_SIZE)))
        memcpy(at, new, SEAL_TAG_SIZE);
}

static void
seal_again(struct base *b, struct sealer *sealer, const struct place *p, uint8_t flags)
{
    uint8_t *buf = b->work + p->off, old[SEAL_TAG_SIZE];
    size_t len = claimed_length(p, buf);

    if (len == 0 || flags & 2)
        return;
    memcpy(old, buf + BANK_TAG, sizeof old); /* of a bank; else unused */
    if (flags & 4)
        format_set_crc(buf, len);
    else
        MUST(format_seal(sealer, p->purpose, buf, len) == 0);
    for (unsigned i = 0; p->purpose == SEAL_BANK && !(flags & 8) && i < 2; i++) {
        uint8_t *dir = b->work + b->sb.dir_off[i];

        replace_digest(dir, claimed_length(&b->places[2 + i], dir), old, buf + BANK_TAG);
    }
}

static void
edit(struct base *b, const uint8_t *data, size_t size, uint8_t flags)
{
    AUTO(sealer_freep) struct sealer *sealer = sealer_of(b);
    bool touched[STRUCTURES] = {false};

    memcpy(b->work, b->bytes, b->size);
    for (; size >= 4; data += 4, size -= 4) {
        size_t i = data[0] % b->n;
        size_t at = load_le16(data + 1) % b->places[i].room;

        b->work[b->places[i].off + at] = data[3];
        touched[i] = true;
    }
    for (size_t i = b->n; i-- > 0;) /* banks before directories, which hold their digests */
        if (touched[i] || b->places[i].purpose == SEAL_DIRECTORY)
            seal_again(b, sealer, &b->places[i], flags);
}

/* ---- what is done with it -----------------------------------------------------------------------
 */

static void
count_sink(void *arg, int r, const char *where, const char *text)
{
    MUST(where && text && r <= 0);
    ++*(unsigned *)arg;
}

static int
salvage_sink_touch(void *arg, const struct salvaged *sv, const uint8_t *data)
{
    volatile uint8_t last;

    MUST(sv->length <= CAPACITY_B);
    if (sv->length)
        last = data[sv->length - 1];
    (void)last;
    ++*(unsigned *)arg;
    return 0;
}

static void
look(struct base *b)
{
    AUTO(dev_closep) struct dev *d = memdev_new(b->work, b->size);
    void *key = (void *)(uintptr_t)key_of(b);
    struct check_result res = {0};
    unsigned said = 0, handed = 0, n = 0, lost = 0;

    check_image(d, testseal_unlock, key, count_sink, &said, &res);
    MUST(res.problems <= said);
    store_salvage(d, testseal_unlock, key, salvage_sink_touch, &handed, &n, &lost);
    MUST(handed == n);
}

/* Reads everything; with @whole, all of it must be there. */
static void
read_all(struct store *s, bool whole)
{
    AUTO_FREE struct entry *list = NULL;
    static uint8_t buf[CAPACITY_B];
    size_t n = 0;

    MUST(store_list(s, &list, &n) == 0);
    for (size_t i = 0; i < n; i++) {
        int r = 0;

        MUST(list[i].current.length <= CAPACITY_B && list[i].previous.length <= CAPACITY_B);
        if (list[i].kind == ENTRY_FILE)
            r = store_read(s, &list[i].current, buf);
        MUST(r == 0 || !whole);
        if (list[i].previous.generation && store_is_whole(s, &list[i].previous))
            store_read(s, &list[i].previous, buf);
    }
}

static void
try_snapshot(struct store *s)
{
    AUTO_FREE uint8_t *block = dev_alloc(BLOCK_SIZE);
    struct snapshot *sn = NULL;

    MUST(block);
    if (store_snapshot(s, &sn) < 0)
        return;
    for (uint64_t off = 0; off + BLOCK_SIZE <= snapshot_size(sn); off += 16 * BLOCK_SIZE)
        MUST(snapshot_pread(sn, block, BLOCK_SIZE, off) == 0);
    snapshot_put(sn);
}

/* What can be written at all goes in whole, and the image then opens again with it in it. */
static void
try_commit(struct base *b, struct store *s)
{
    static uint8_t data[200];
    struct change c = {
        .op = CHANGE_FILE, .name = "new", .has_content = true, .data = data, .len = 200};
    struct entry e;
    int r;

    if (store_find(s, "new", &e) == 0 || store_slot_take(s, sizeof data, NULL, &c.slot) < 0) {
        store_close(s);
        return;
    }
    c.id = store_new_id(s);
    r = store_commit(s, &c, 1, NULL);
    store_slot_drop(s, c.slot);
    store_close(s);
    if (r < 0)
        return;
    MUST(open_image(b, memdev_new(b->work, b->size), true, false, false, &s) == 0);
    MUST(store_find(s, "new", &e) == 0 && e.current.length == sizeof data);
    read_all(s, true);
    store_close(s);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct base *b;
    struct dev *d;
    struct store *s;
    uint8_t how;

    if (size == 0)
        return 0;
    b = &bases[data[0] & 1];
    how = data[0] >> 4 & 3;
    edit(b, data + 1, size - 1, data[0]);
    look(b);
    d = memdev_new(b->work, b->size);
    if (open_image(b, d, how > 1, how == 3, how == 1, &s) < 0) {
        dev_close(d);
        return 0;
    }
    read_all(s, how != 3);
    try_snapshot(s);
    if (how > 1) {
        store_close(s);
        return 0;
    }
    try_commit(b, s);
    return 0;
}
