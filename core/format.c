/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/format.h"
#include "base/bytes.h"
#include "base/crc32.h"
#include "base/scope.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

static const uint8_t superblock_magic[8] = {'V', 'N', 'V', 'R', 'A', 'M', 'S', 'B'};
static const uint8_t directory_magic[8] = {'V', 'N', 'V', 'R', 'A', 'M', 'D', 'R'};
static const uint8_t bank_magic[8] = {'V', 'N', 'V', 'R', 'A', 'M', 'B', 'K'};
static const uint8_t owner_magic[8] = {'V', 'N', 'V', 'R', 'A', 'M', 'O', 'W'};

/* Common to all four. */
enum { OFF_MAGIC = 0, OFF_CRC = CRC_OFFSET, OFF_VERSION = 12, OFF_FLAGS = 14, OFF_UUID = 16 };

/* ---- checksums and tags ------------------------------------------------------------------------
 */

void
format_set_crc(uint8_t *buf, size_t len)
{
    store_le32(buf + OFF_CRC, crc32_with_hole(buf, len, OFF_CRC));
}

bool
format_crc_ok(const uint8_t *buf, size_t len)
{
    return load_le32(buf + OFF_CRC) == crc32_with_hole(buf, len, OFF_CRC);
}

static size_t
tag_offset(enum seal_purpose purpose)
{
    static const size_t at[] = {
        [SEAL_SUPERBLOCK] = SUPERBLOCK_TAG,
        [SEAL_DIRECTORY] = DIRECTORY_TAG,
        [SEAL_BANK] = BANK_TAG,
    };

    return at[purpose];
}

/* The pieces of a structure that its tag covers: CRC and tag themselves count as zero. */
enum { TAG_PIECES = 5 };

static void
tag_pieces(struct iovec iov[TAG_PIECES], enum seal_purpose purpose, const uint8_t *buf, size_t len)
{
    static uint8_t zero[SEAL_TAG_SIZE];
    size_t tag = tag_offset(purpose);
    uint8_t *p = (uint8_t *)(uintptr_t)buf; /* struct iovec has no const */

    iov[0] = (struct iovec){p, OFF_CRC};
    iov[1] = (struct iovec){zero, 4};
    iov[2] = (struct iovec){p + OFF_CRC + 4, tag - OFF_CRC - 4};
    iov[3] = (struct iovec){zero, SEAL_TAG_SIZE};
    iov[4] = (struct iovec){p + tag + SEAL_TAG_SIZE, len - tag - SEAL_TAG_SIZE};
}

int
format_seal(struct sealer *s, enum seal_purpose purpose, uint8_t *buf, size_t len)
{
    struct iovec iov[TAG_PIECES];
    uint8_t tag[SEAL_TAG_SIZE];
    int r;

    tag_pieces(iov, purpose, buf, len);
    r = s->ops->tag(s, purpose, iov, TAG_PIECES, tag);
    if (r < 0)
        return r;
    memcpy(buf + tag_offset(purpose), tag, SEAL_TAG_SIZE);
    format_set_crc(buf, len);
    return 0;
}

int
format_verify(struct sealer *s, enum seal_purpose purpose, const uint8_t *buf, size_t len)
{
    struct iovec iov[TAG_PIECES];

    if (!s)
        return 0; /* no key: checksums only */
    tag_pieces(iov, purpose, buf, len);
    return sealer_verify(s, purpose, iov, TAG_PIECES, buf + tag_offset(purpose));
}

/* Magic, checksum, version: in this order, so that damage is never taken for a newer format. */
static int
check_frame(const uint8_t *buf, size_t len, const uint8_t magic[8])
{
    if (memcmp(buf + OFF_MAGIC, magic, 8) != 0)
        return -ENODATA;
    if (!format_crc_ok(buf, len))
        return -EUCLEAN;
    if (load_le16(buf + OFF_VERSION) != FORMAT_VERSION)
        return load_le16(buf + OFF_VERSION) > FORMAT_VERSION ? -EPROTONOSUPPORT : -EUCLEAN;
    return 0;
}

/* ---- superblock --------------------------------------------------------------------------------
 */

enum {
    SB_SEQUENCE = 32,
    SB_COMPAT = 40,
    SB_RO_COMPAT = 48,
    SB_INCOMPAT = 56,
    SB_IMAGE_SIZE = 64,
    SB_DIR_OFF = 72,
    SB_DIR_CAPACITY = 88,
    SB_KEY_EPOCH = 92,
    SB_SEAL_MODE = 96,
    SB_KEY_SIZE = 97,
    SB_N_SEGMENTS = 98,
    SB_CREATED = 104,
    SB_HEADER_END = 112,
    SB_SEGMENTS = 256,
    SEGMENT_SIZE = 32,
    SB_KEYSLOTS = SB_SEGMENTS + MAX_SEGMENTS * SEGMENT_SIZE,
    SB_KEYSLOTS_END = SB_KEYSLOTS + KEYSLOT_COUNT * KEYSLOT_SIZE,
};
static_assert(SB_KEYSLOTS == 1280, "superblock layout drifted");
static_assert(SB_KEYSLOTS_END == 2304, "superblock layout drifted");
static_assert(SUPERBLOCK_TAG + SEAL_TAG_SIZE == BLOCK_SIZE, "the tag ends the superblock");

void
superblock_encode(const struct superblock *sb, uint8_t *buf)
{
    memset(buf, 0, BLOCK_SIZE);
    memcpy(buf + OFF_MAGIC, superblock_magic, 8);
    store_le16(buf + OFF_VERSION, FORMAT_VERSION);
    memcpy(buf + OFF_UUID, sb->uuid, UUID_SIZE);
    store_le64(buf + SB_SEQUENCE, sb->sequence);
    store_le64(buf + SB_COMPAT, sb->compat);
    store_le64(buf + SB_RO_COMPAT, sb->ro_compat);
    store_le64(buf + SB_INCOMPAT, sb->incompat);
    store_le64(buf + SB_IMAGE_SIZE, sb->image_size);
    store_le64(buf + SB_DIR_OFF, sb->dir_off[0]);
    store_le64(buf + SB_DIR_OFF + 8, sb->dir_off[1]);
    store_le32(buf + SB_DIR_CAPACITY, sb->dir_capacity);
    store_le32(buf + SB_KEY_EPOCH, sb->key_epoch);
    buf[SB_SEAL_MODE] = sb->seal_mode;
    buf[SB_KEY_SIZE] = sb->key_size;
    store_le16(buf + SB_N_SEGMENTS, sb->n_segments);
    store_le64(buf + SB_CREATED, (uint64_t)sb->created);
    for (unsigned i = 0; i < sb->n_segments; i++) {
        const struct segment *g = &sb->segments[i];
        uint8_t *p = buf + SB_SEGMENTS + i * SEGMENT_SIZE;

        store_le32(p, g->capacity);
        store_le32(p + 4, g->count);
        store_le64(p + 8, g->bank_off[0]);
        store_le64(p + 16, g->bank_off[1]);
    }
    memcpy(buf + SB_KEYSLOTS, sb->keyslots, sizeof sb->keyslots);
}

/* Whether [off, off + len) is block-aligned and lies within the image, behind the superblocks. */
static bool
range_ok(const struct superblock *sb, uint64_t off, uint64_t len)
{
    return off % BLOCK_SIZE == 0 && len % BLOCK_SIZE == 0 && len > 0 && off >= FIRST_DIRECTORY &&
           off <= sb->image_size && len <= sb->image_size - off;
}

struct range {
    uint64_t off, len;
};

static int
range_order(const void *a, const void *b)
{
    const struct range *x = a, *y = b;

    return x->off < y->off ? -1 : x->off > y->off;
}

/* All directories and segments lie inside the image and apart from each other. */
static bool
geometry_ok(const struct superblock *sb)
{
    struct range ranges[2 + 2 * MAX_SEGMENTS];
    size_t n = 0;
    uint64_t slots = 0;

    ranges[n++] = (struct range){sb->dir_off[0], sb->dir_capacity};
    ranges[n++] = (struct range){sb->dir_off[1], sb->dir_capacity};
    for (unsigned i = 0; i < sb->n_segments; i++) {
        const struct segment *g = &sb->segments[i];
        uint64_t len = (uint64_t)g->count * ((uint64_t)BANK_HEADER + g->capacity);

        if (g->count == 0 || g->count > MAX_SLOTS || g->capacity == 0 ||
            g->capacity > MAX_CAPACITY || g->capacity % BLOCK_SIZE != 0)
            return false;
        slots += g->count;
        ranges[n++] = (struct range){g->bank_off[0], len};
        ranges[n++] = (struct range){g->bank_off[1], len};
    }
    if (slots == 0 || slots > MAX_SLOTS)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!range_ok(sb, ranges[i].off, ranges[i].len))
            return false;
    }
    qsort(ranges, n, sizeof ranges[0], range_order);
    for (size_t i = 1; i < n; i++) {
        if (ranges[i].off - ranges[i - 1].off < ranges[i - 1].len)
            return false;
    }
    return true;
}

static void
decode_segments(struct superblock *sb, const uint8_t *buf)
{
    for (unsigned i = 0; i < sb->n_segments; i++) {
        const uint8_t *p = buf + SB_SEGMENTS + i * SEGMENT_SIZE;

        sb->segments[i] = (struct segment){
            .capacity = load_le32(p),
            .count = load_le32(p + 4),
            .bank_off = {load_le64(p + 8), load_le64(p + 16)},
        };
    }
}

/* What version 1 leaves unused must be zero. */
static bool
superblock_reserved_ok(const uint8_t *buf, unsigned n_segments)
{
    size_t used = SB_SEGMENTS + n_segments * (size_t)SEGMENT_SIZE;

    for (unsigned i = 0; i < n_segments; i++) {
        if (load_le64(buf + SB_SEGMENTS + i * SEGMENT_SIZE + 24) != 0)
            return false;
    }
    return load_le16(buf + OFF_FLAGS) == 0 && load_le32(buf + 100) == 0 &&
           bytes_are_zero(buf + SB_HEADER_END, SB_SEGMENTS - SB_HEADER_END) &&
           bytes_are_zero(buf + used, SB_KEYSLOTS - used) &&
           bytes_are_zero(buf + SB_KEYSLOTS_END, SUPERBLOCK_TAG - SB_KEYSLOTS_END);
}

static bool
sealing_ok(const struct superblock *sb)
{
    if (sb->seal_mode == SEAL_NONE)
        return sb->key_size == 0 && sb->key_epoch == 0 &&
               bytes_are_zero(sb->keyslots[0], sizeof sb->keyslots);
    return sb->key_epoch != 0;
}

int
superblock_decode(struct superblock *out, const uint8_t *buf)
{
    struct superblock sb = {0};
    int r = check_frame(buf, BLOCK_SIZE, superblock_magic);

    if (r < 0)
        return r;
    sb.incompat = load_le64(buf + SB_INCOMPAT);
    if (sb.incompat != 0) /* whatever else it says may mean something new */
        return -EPROTONOSUPPORT;
    memcpy(sb.uuid, buf + OFF_UUID, UUID_SIZE);
    sb.sequence = load_le64(buf + SB_SEQUENCE);
    sb.compat = load_le64(buf + SB_COMPAT);
    sb.ro_compat = load_le64(buf + SB_RO_COMPAT);
    sb.image_size = load_le64(buf + SB_IMAGE_SIZE);
    sb.dir_off[0] = load_le64(buf + SB_DIR_OFF);
    sb.dir_off[1] = load_le64(buf + SB_DIR_OFF + 8);
    sb.dir_capacity = load_le32(buf + SB_DIR_CAPACITY);
    sb.key_epoch = load_le32(buf + SB_KEY_EPOCH);
    sb.seal_mode = buf[SB_SEAL_MODE];
    sb.key_size = buf[SB_KEY_SIZE];
    sb.n_segments = load_le16(buf + SB_N_SEGMENTS);
    sb.created = (int64_t)load_le64(buf + SB_CREATED);
    memcpy(sb.keyslots, buf + SB_KEYSLOTS, sizeof sb.keyslots);
    if (sb.sequence == 0 || sb.n_segments == 0 || sb.n_segments > MAX_SEGMENTS)
        return -EUCLEAN;
    decode_segments(&sb, buf);
    if (!superblock_reserved_ok(buf, sb.n_segments) || !geometry_ok(&sb) || !sealing_ok(&sb))
        return -EUCLEAN;
    *out = sb;
    return 0;
}

uint32_t
superblock_slot_count(const struct superblock *sb)
{
    uint32_t n = 0;

    for (unsigned i = 0; i < sb->n_segments; i++)
        n += sb->segments[i].count;
    return n;
}

static const struct segment *
find_segment(const struct superblock *sb, uint32_t slot, uint32_t *index)
{
    for (unsigned i = 0; i < sb->n_segments; i++) {
        if (slot < sb->segments[i].count) {
            *index = slot;
            return &sb->segments[i];
        }
        slot -= sb->segments[i].count;
    }
    assert(!"slot is in no segment");
    return NULL;
}

uint32_t
superblock_slot_capacity(const struct superblock *sb, uint32_t slot)
{
    uint32_t index;

    return find_segment(sb, slot, &index)->capacity;
}

uint64_t
superblock_bank_offset(const struct superblock *sb, uint32_t slot, unsigned bank)
{
    uint32_t index;
    const struct segment *g = find_segment(sb, slot, &index);

    assert(bank < 2);
    return g->bank_off[bank] + index * ((uint64_t)BANK_HEADER + g->capacity);
}

/* ---- directory ---------------------------------------------------------------------------------
 */

enum {
    DIR_GENERATION = 32,
    DIR_SB_SEQUENCE = 40,
    DIR_LENGTH = 48,
    DIR_COUNT = 52,
    DIR_NEXT_ID = 56,
    DIR_COMMITTED = 64,
    DIR_KEY_EPOCH = 72,
    DIR_INDEX = 76,
    DIR_OWNER = 80,
    DIR_OWNER_END = DIR_OWNER + 16 + OWNER_NONCE_SIZE,
    DIR_ROOT = 128,
    DIR_RECOVERIES = 184,
    DIR_HEADER_END = 192,
    DIR_ENTRIES = 256,
};
static_assert(DIRECTORY_TAG + SEAL_TAG_SIZE == DIR_ENTRIES, "directory layout drifted");

enum {
    DIR_CLEAN = 1,
    DIR_RESEALING = 2,
    DIR_HELD_TPM12 = 4,
    DIR_HELD_TPM20 = 8,
    DIR_GUARDED = 16,
    DIR_FLAGS = 31
};

enum {
    ENT_RECORD = 0,
    ENT_NAME_LEN = 2,
    ENT_KIND = 3,
    ENT_MODE = 4,
    ENT_UID = 8,
    ENT_GID = 12,
    ENT_ID = 16,
    ENT_TIMES = 24,
    ENT_NSEC = 48,
    ENT_SLOT = 60,
    ENT_CURRENT = 64,
    CONTENT_SIZE = 56,
    ENT_PREVIOUS = ENT_CURRENT + CONTENT_SIZE,
    ENT_RESERVED = ENT_PREVIOUS + CONTENT_SIZE,
    ENT_RESERVE_SLOT = ENT_RESERVED + 4,
    ENT_NAME = 184,
};
static_assert(ENT_RESERVE_SLOT + 4 == ENT_NAME, "entry layout drifted");

enum { MODE_BITS = 07777 };

static size_t
record_size(size_t name_len)
{
    return (ENT_NAME + name_len + 7) / 8 * 8;
}

static uint64_t
directory_length(const struct directory *dir)
{
    uint64_t len = DIR_ENTRIES;

    for (uint32_t i = 0; i < dir->n_entries; i++)
        len += record_size(strlen(dir->entries[i].name));
    return len;
}

static uint64_t
whole_blocks(uint64_t len)
{
    return (len + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE;
}

uint64_t
directory_size(const struct directory *dir)
{
    return whole_blocks(directory_length(dir));
}

static void
encode_times(const struct file_attr *a, uint8_t *sec, uint8_t *nsec)
{
    store_le64(sec, (uint64_t)a->atime.tv_sec);
    store_le64(sec + 8, (uint64_t)a->mtime.tv_sec);
    store_le64(sec + 16, (uint64_t)a->ctime.tv_sec);
    store_le32(nsec, (uint32_t)a->atime.tv_nsec);
    store_le32(nsec + 4, (uint32_t)a->mtime.tv_nsec);
    store_le32(nsec + 8, (uint32_t)a->ctime.tv_nsec);
}

static void
decode_times(struct file_attr *a, const uint8_t *sec, const uint8_t *nsec)
{
    a->atime = (struct timespec){(int64_t)load_le64(sec), load_le32(nsec)};
    a->mtime = (struct timespec){(int64_t)load_le64(sec + 8), load_le32(nsec + 4)};
    a->ctime = (struct timespec){(int64_t)load_le64(sec + 16), load_le32(nsec + 8)};
}

static void
encode_content(const struct content *c, uint8_t *p)
{
    if (c->generation == 0)
        return; /* stays zero */
    store_le32(p, c->slot);
    p[4] = c->bank;
    store_le64(p + 8, c->length);
    store_le64(p + 16, c->generation);
    memcpy(p + 24, c->digest, SEAL_TAG_SIZE);
}

/* Fields only; whether the place exists is content_ok()'s question. */
static void
decode_content(struct content *c, const uint8_t *p)
{
    *c = (struct content){
        .slot = load_le32(p),
        .bank = p[4],
        .length = load_le64(p + 8),
        .generation = load_le64(p + 16),
    };
    memcpy(c->digest, p + 24, SEAL_TAG_SIZE);
}

static void
encode_entry(const struct entry *e, uint8_t *p)
{
    size_t name_len = strlen(e->name);

    store_le16(p + ENT_RECORD, (uint16_t)record_size(name_len));
    p[ENT_NAME_LEN] = (uint8_t)name_len;
    p[ENT_KIND] = (uint8_t)e->kind;
    store_le32(p + ENT_MODE, e->attr.mode);
    store_le32(p + ENT_UID, e->attr.uid);
    store_le32(p + ENT_GID, e->attr.gid);
    store_le64(p + ENT_ID, e->id);
    encode_times(&e->attr, p + ENT_TIMES, p + ENT_NSEC);
    store_le32(p + ENT_SLOT, e->slot);
    encode_content(&e->current, p + ENT_CURRENT);
    encode_content(&e->previous, p + ENT_PREVIOUS);
    store_le32(p + ENT_RESERVED, e->reserved);
    store_le32(p + ENT_RESERVE_SLOT, e->reserved ? e->reserve_slot : 0);
    memcpy(p + ENT_NAME, e->name, name_len);
}

void
directory_encode(const struct directory *dir, const uint8_t uuid[UUID_SIZE], uint8_t *buf)
{
    uint64_t len = directory_length(dir), off = DIR_ENTRIES;
    unsigned flags = (dir->clean ? DIR_CLEAN : 0u) | (dir->resealing ? DIR_RESEALING : 0u) |
                     (dir->held_tpm12 ? DIR_HELD_TPM12 : 0u) |
                     (dir->held_tpm20 ? DIR_HELD_TPM20 : 0u) |
                     (dir->owner.guarded ? DIR_GUARDED : 0u);

    memcpy(buf + OFF_MAGIC, directory_magic, 8);
    store_le16(buf + OFF_VERSION, FORMAT_VERSION);
    store_le16(buf + OFF_FLAGS, (uint16_t)flags);
    memcpy(buf + OFF_UUID, uuid, UUID_SIZE);
    store_le64(buf + DIR_GENERATION, dir->generation);
    store_le64(buf + DIR_SB_SEQUENCE, dir->superblock_sequence);
    store_le32(buf + DIR_LENGTH, (uint32_t)len);
    store_le32(buf + DIR_COUNT, dir->n_entries);
    store_le64(buf + DIR_NEXT_ID, dir->next_id);
    store_le64(buf + DIR_COMMITTED, (uint64_t)dir->committed);
    store_le32(buf + DIR_KEY_EPOCH, dir->key_epoch);
    buf[DIR_INDEX] = dir->index;
    store_le64(buf + DIR_OWNER, dir->owner.epoch);
    store_le64(buf + DIR_OWNER + 8, dir->owner.first);
    memcpy(buf + DIR_OWNER + 16, dir->owner.nonce, OWNER_NONCE_SIZE);
    store_le32(buf + DIR_ROOT, dir->root.mode);
    store_le32(buf + DIR_ROOT + 4, dir->root.uid);
    store_le32(buf + DIR_ROOT + 8, dir->root.gid);
    encode_times(&dir->root, buf + DIR_ROOT + 16, buf + DIR_ROOT + 40);
    store_le64(buf + DIR_RECOVERIES, dir->recoveries);
    for (uint32_t i = 0; i < dir->n_entries; i++) {
        encode_entry(&dir->entries[i], buf + off);
        off += record_size(strlen(dir->entries[i].name));
    }
}

int
directory_peek(const uint8_t *block, uint32_t capacity, uint64_t *len, uint64_t *generation)
{
    uint32_t n;

    if (memcmp(block + OFF_MAGIC, directory_magic, 8) != 0)
        return -ENODATA;
    n = load_le32(block + DIR_LENGTH);
    if (n < DIR_ENTRIES || n > capacity)
        return -EUCLEAN;
    *len = whole_blocks(n);
    *generation = load_le64(block + DIR_GENERATION);
    return *len <= capacity ? 0 : -EUCLEAN;
}

void
directory_claim(const uint8_t *block, struct directory_claim *claim)
{
    *claim = (struct directory_claim){
        .generation = load_le64(block + DIR_GENERATION),
        .key_epoch = load_le32(block + DIR_KEY_EPOCH),
    };
    memcpy(claim->digest, block + DIRECTORY_TAG, SEAL_TAG_SIZE);
}

/* A place that exists in the geometry, with a generation that the directory may know. */
static bool
content_ok(const struct content *c, const struct superblock *sb, uint64_t generation)
{
    if (c->generation == 0)
        return c->slot == 0 && c->bank == 0 && c->length == 0 &&
               bytes_are_zero(c->digest, sizeof c->digest);
    return c->slot < superblock_slot_count(sb) && c->bank < 2 && c->length > 0 &&
           c->length <= superblock_slot_capacity(sb, c->slot) && c->generation <= generation;
}

bool
entry_name_ok(const char *name, size_t len)
{
    return len > 0 && len <= NAME_MAX_LEN && memchr(name, '\0', len) == NULL &&
           memchr(name, '/', len) == NULL && !(len == 1 && name[0] == '.') &&
           !(len == 2 && name[0] == '.' && name[1] == '.');
}

static bool
time_ok(const struct timespec *t)
{
    return t->tv_nsec >= 0 && t->tv_nsec < 1000000000;
}

bool
file_attr_ok(const struct file_attr *a)
{
    return (a->mode & ~(uint32_t)MODE_BITS) == 0 && time_ok(&a->atime) && time_ok(&a->mtime) &&
           time_ok(&a->ctime);
}

/* A promise is kept by the file's own slot or by one of its own that is large enough. */
static bool
reservation_ok(const struct entry *e, const struct superblock *sb)
{
    uint32_t slot = e->reserve_slot == SLOT_NONE ? e->slot : e->reserve_slot;

    if (e->reserved == 0)
        return e->reserve_slot == SLOT_NONE;
    return slot < superblock_slot_count(sb) && e->reserved <= superblock_slot_capacity(sb, slot);
}

/* What each kind of entry must and must not have. */
static bool
kind_ok(const struct entry *e, const struct superblock *sb)
{
    bool holds_slot = e->slot < superblock_slot_count(sb);

    if (!reservation_ok(e, sb))
        return false;

    switch (e->kind) {
    case ENTRY_FILE:
        return holds_slot && e->id != 0 &&
               (e->current.generation == 0 || e->current.slot == e->slot);
    case ENTRY_TOMBSTONE:
        return e->slot == SLOT_NONE && e->current.generation == 0 && e->previous.generation != 0 &&
               e->reserved == 0;
    case ENTRY_RESERVED:
        return e->slot == SLOT_NONE && e->current.generation == 0 && e->reserved != 0;
    }
    return false;
}

static int
decode_entry(struct entry *e, const uint8_t *p, const struct superblock *sb,
             const struct directory *dir)
{
    size_t name_len = p[ENT_NAME_LEN];

    *e = (struct entry){
        .kind = p[ENT_KIND],
        .id = load_le64(p + ENT_ID),
        .slot = load_le32(p + ENT_SLOT),
        .reserved = load_le32(p + ENT_RESERVED),
        .reserve_slot = load_le32(p + ENT_RESERVE_SLOT),
        .attr = {.mode = load_le32(p + ENT_MODE),
                 .uid = load_le32(p + ENT_UID),
                 .gid = load_le32(p + ENT_GID)},
    };
    if (e->reserved == 0) {
        if (e->reserve_slot != 0)
            return -EUCLEAN;
        e->reserve_slot = SLOT_NONE;
    }
    memcpy(e->name, p + ENT_NAME, name_len);
    decode_content(&e->current, p + ENT_CURRENT);
    decode_content(&e->previous, p + ENT_PREVIOUS);
    decode_times(&e->attr, p + ENT_TIMES, p + ENT_NSEC);
    if (!file_attr_ok(&e->attr) || !entry_name_ok(e->name, name_len) || e->id >= dir->next_id ||
        !bytes_are_zero(p + ENT_NAME + name_len, record_size(name_len) - ENT_NAME - name_len) ||
        !bytes_are_zero(p + ENT_CURRENT + 5, 3) || !bytes_are_zero(p + ENT_PREVIOUS + 5, 3))
        return -EUCLEAN;
    if (!content_ok(&e->current, sb, dir->generation) ||
        !content_ok(&e->previous, sb, dir->generation) || !kind_ok(e, sb))
        return -EUCLEAN;
    return 0;
}

/* No slot is held twice, no name and no id stands twice, and no bank holds two contents. */
static int
entries_agree(const struct directory *dir, const struct superblock *sb)
{
    uint32_t n_slots = superblock_slot_count(sb);
    AUTO_FREE uint8_t *held = calloc(n_slots, 1);
    AUTO_FREE uint8_t *banks = calloc(n_slots, 2);

    if (!held || !banks)
        return -ENOMEM;
    for (uint32_t i = 0; i < dir->n_entries; i++) {
        const struct entry *e = &dir->entries[i];
        const struct content *both[2] = {&e->current, &e->previous};

        if (e->slot != SLOT_NONE && held[e->slot]++)
            return -EUCLEAN;
        if (e->reserve_slot != SLOT_NONE && held[e->reserve_slot]++)
            return -EUCLEAN;
        for (int k = 0; k < 2; k++) {
            if (both[k]->generation != 0 && banks[both[k]->slot * 2 + both[k]->bank]++)
                return -EUCLEAN;
        }
    }
    return 0;
}

static int
name_order(const void *a, const void *b)
{
    const struct entry *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* Files of one id next to each other: what is left of a name keeps the id of the file it had. */
static int
id_order(const void *a, const void *b)
{
    const struct entry *const *x = a, *const *y = b;

    if ((*x)->id != (*y)->id)
        return (*x)->id < (*y)->id ? -1 : 1;
    return (int)(*x)->kind - (int)(*y)->kind;
}

static int
names_differ(const struct directory *dir)
{
    AUTO_FREE const struct entry **by = calloc(dir->n_entries + 1, sizeof(*by));

    if (!by)
        return -ENOMEM;
    for (uint32_t i = 0; i < dir->n_entries; i++)
        by[i] = &dir->entries[i];
    qsort(by, dir->n_entries, sizeof(*by), name_order);
    for (uint32_t i = 1; i < dir->n_entries; i++) {
        if (strcmp(by[i - 1]->name, by[i]->name) == 0)
            return -EUCLEAN;
    }
    qsort(by, dir->n_entries, sizeof(*by), id_order);
    for (uint32_t i = 1; i < dir->n_entries; i++) {
        if (by[i]->kind == ENTRY_FILE && by[i - 1]->kind == ENTRY_FILE &&
            by[i - 1]->id == by[i]->id)
            return -EUCLEAN;
    }
    return 0;
}

static int
decode_entries(struct directory *dir, const uint8_t *buf, uint64_t len, const struct superblock *sb)
{
    uint64_t off = DIR_ENTRIES, used = load_le32(buf + DIR_LENGTH);
    uint32_t count = load_le32(buf + DIR_COUNT);

    if (used > len || used < DIR_ENTRIES || count > (used - DIR_ENTRIES) / ENT_NAME)
        return -EUCLEAN;
    dir->entries = calloc(count + 1, sizeof dir->entries[0]);
    if (!dir->entries)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *p = buf + off;
        int r;

        if (used - off < ENT_NAME || load_le16(p + ENT_RECORD) != record_size(p[ENT_NAME_LEN]) ||
            used - off < load_le16(p + ENT_RECORD))
            return -EUCLEAN;
        r = decode_entry(&dir->entries[i], p, sb, dir);
        if (r < 0)
            return r;
        off += load_le16(p + ENT_RECORD);
        dir->n_entries = i + 1;
    }
    if (off != used || !bytes_are_zero(buf + used, len - used))
        return -EUCLEAN;
    return 0;
}

/* All of it, or nothing. */
static bool
mark_ok(const struct owner_mark *m, uint64_t generation)
{
    bool any = !bytes_are_zero(m->nonce, sizeof m->nonce);

    if (m->epoch == 0)
        return m->first == 0 && !any && !m->guarded;
    return m->first != 0 && m->first <= generation && any;
}

static int
decode_header(struct directory *dir, const uint8_t *buf, const struct superblock *sb)
{
    unsigned flags = load_le16(buf + OFF_FLAGS);

    if (memcmp(buf + OFF_UUID, sb->uuid, UUID_SIZE) != 0 || (flags & ~(unsigned)DIR_FLAGS) ||
        buf[DIR_INDEX] > 1 || !bytes_are_zero(buf + DIR_INDEX + 1, 3) ||
        !bytes_are_zero(buf + DIR_HEADER_END, DIRECTORY_TAG - DIR_HEADER_END) ||
        load_le32(buf + DIR_ROOT + 12) != 0 || load_le32(buf + DIR_ROOT + 52) != 0)
        return -EUCLEAN;
    *dir = (struct directory){
        .generation = load_le64(buf + DIR_GENERATION),
        .superblock_sequence = load_le64(buf + DIR_SB_SEQUENCE),
        .key_epoch = load_le32(buf + DIR_KEY_EPOCH),
        .index = buf[DIR_INDEX],
        .clean = flags & DIR_CLEAN,
        .resealing = flags & DIR_RESEALING,
        .held_tpm12 = flags & DIR_HELD_TPM12,
        .held_tpm20 = flags & DIR_HELD_TPM20,
        .next_id = load_le64(buf + DIR_NEXT_ID),
        .recoveries = load_le64(buf + DIR_RECOVERIES),
        .committed = (int64_t)load_le64(buf + DIR_COMMITTED),
        .owner = {.epoch = load_le64(buf + DIR_OWNER),
                  .first = load_le64(buf + DIR_OWNER + 8),
                  .guarded = flags & DIR_GUARDED},
        .root = {.mode = load_le32(buf + DIR_ROOT),
                 .uid = load_le32(buf + DIR_ROOT + 4),
                 .gid = load_le32(buf + DIR_ROOT + 8)},
    };
    memcpy(dir->owner.nonce, buf + DIR_OWNER + 16, OWNER_NONCE_SIZE);
    decode_times(&dir->root, buf + DIR_ROOT + 16, buf + DIR_ROOT + 40);
    if (!file_attr_ok(&dir->root) || dir->generation == 0 || dir->next_id == 0 ||
        dir->superblock_sequence == 0 || !mark_ok(&dir->owner, dir->generation) ||
        !bytes_are_zero(buf + DIR_OWNER_END, DIR_ROOT - DIR_OWNER_END))
        return -EUCLEAN;
    return 0;
}

int
directory_decode(struct directory *out, const uint8_t *buf, uint64_t len,
                 const struct superblock *sb)
{
    struct directory dir = {0};
    int r = check_frame(buf, len, directory_magic);

    if (r < 0)
        return r;
    r = decode_header(&dir, buf, sb);
    if (r == 0)
        r = decode_entries(&dir, buf, len, sb);
    if (r == 0)
        r = entries_agree(&dir, sb);
    if (r == 0)
        r = names_differ(&dir);
    if (r < 0) {
        directory_fini(&dir);
        return r;
    }
    memcpy(dir.digest, buf + DIRECTORY_TAG, SEAL_TAG_SIZE);
    *out = dir;
    return 0;
}

/* Whether both records are of one name, kind and id. */
static bool
is_same_entry(const uint8_t *a, const uint8_t *b)
{
    size_t record = load_le16(a + ENT_RECORD);

    return memcmp(a, b, ENT_MODE) == 0 && memcmp(a + ENT_ID, b + ENT_ID, 8) == 0 &&
           memcmp(a + ENT_NAME, b + ENT_NAME, record - ENT_NAME) == 0;
}

int
directory_recheck(const struct directory *dir, const uint8_t *buf, uint64_t len, const uint8_t *was,
                  const struct superblock *sb)
{
    uint64_t off = DIR_ENTRIES, used = directory_length(dir);
    struct directory head;
    int r = decode_header(&head, buf, sb);

    if (r < 0 || load_le32(buf + DIR_LENGTH) != used ||
        load_le32(buf + DIR_COUNT) != dir->n_entries)
        return -EUCLEAN;
    if (load_le32(was + DIR_LENGTH) != used || load_le32(was + DIR_COUNT) != dir->n_entries ||
        load_le64(was + DIR_GENERATION) > head.generation ||
        load_le64(was + DIR_NEXT_ID) > head.next_id)
        return -EAGAIN;
    for (uint32_t i = 0; r == 0 && i < dir->n_entries; i++) {
        size_t record = record_size(strlen(dir->entries[i].name));
        struct entry e;

        if (memcmp(buf + off, was + off, record) != 0)
            r = is_same_entry(buf + off, was + off) ? decode_entry(&e, buf + off, sb, &head)
                                                    : -EAGAIN;
        off += record;
    }
    if (r == 0 && !bytes_are_zero(buf + used, len - used))
        r = -EUCLEAN;
    return r == 0 ? entries_agree(dir, sb) : r;
}

void
directory_fini(struct directory *dir)
{
    free(dir->entries);
    dir->entries = NULL;
    dir->n_entries = 0;
}

int
directory_copy(struct directory *to, const struct directory *from)
{
    struct entry *entries = malloc((from->n_entries + (size_t)1) * sizeof(*entries));

    if (!entries)
        return -ENOMEM;
    if (from->n_entries)
        memcpy(entries, from->entries, from->n_entries * sizeof(*entries));
    *to = *from;
    to->entries = entries;
    return 0;
}

/* ---- bank --------------------------------------------------------------------------------------
 */

enum {
    BANK_BANK = 14,
    BANK_SEAL_MODE = 15,
    BANK_GENERATION = 32,
    BANK_SLOT = 40,
    BANK_KEY_EPOCH = 44,
    BANK_LENGTH = 48,
    BANK_RESERVED = 56,
    BANK_IV = 64,
    BANK_RESERVED2 = 80,
    BANK_END = BANK_TAG + SEAL_TAG_SIZE,
};

uint64_t
bank_padded(uint64_t length)
{
    return whole_blocks(length);
}

void
bank_encode(const struct bank_header *h, uint8_t *buf)
{
    memset(buf, 0, BANK_HEADER);
    memcpy(buf + OFF_MAGIC, bank_magic, 8);
    store_le16(buf + OFF_VERSION, FORMAT_VERSION);
    buf[BANK_BANK] = h->bank;
    buf[BANK_SEAL_MODE] = h->seal_mode;
    memcpy(buf + OFF_UUID, h->uuid, UUID_SIZE);
    store_le64(buf + BANK_GENERATION, h->generation);
    store_le32(buf + BANK_SLOT, h->slot);
    store_le32(buf + BANK_KEY_EPOCH, h->key_epoch);
    store_le64(buf + BANK_LENGTH, h->length);
    memcpy(buf + BANK_IV, h->iv, SEAL_IV_SIZE);
}

int
bank_decode(struct bank_header *h, const uint8_t *buf, uint64_t padded)
{
    int r = check_frame(buf, BANK_HEADER + padded, bank_magic);
    uint64_t length;

    if (r < 0)
        return r;
    length = load_le64(buf + BANK_LENGTH);
    if (length == 0 || length > padded || padded - length >= BLOCK_SIZE ||
        load_le64(buf + BANK_GENERATION) == 0 || load_le64(buf + BANK_RESERVED) != 0 ||
        !bytes_are_zero(buf + BANK_RESERVED2, BANK_TAG - BANK_RESERVED2) ||
        !bytes_are_zero(buf + BANK_END, BANK_HEADER - BANK_END))
        return -EUCLEAN;
    *h = (struct bank_header){
        .generation = load_le64(buf + BANK_GENERATION),
        .length = length,
        .slot = load_le32(buf + BANK_SLOT),
        .key_epoch = load_le32(buf + BANK_KEY_EPOCH),
        .bank = buf[BANK_BANK],
        .seal_mode = buf[BANK_SEAL_MODE],
    };
    memcpy(h->uuid, buf + OFF_UUID, UUID_SIZE);
    memcpy(h->iv, buf + BANK_IV, SEAL_IV_SIZE);
    return 0;
}

int
bank_peek(const uint8_t *block, uint64_t *length, uint64_t *generation)
{
    if (memcmp(block + OFF_MAGIC, bank_magic, 8) != 0)
        return -ENODATA;
    *length = load_le64(block + BANK_LENGTH);
    *generation = load_le64(block + BANK_GENERATION);
    return 0;
}

/* ---- owner records -----------------------------------------------------------------------------
 */

enum {
    OWN_STATE = 14,
    OWN_GUARDED = 15,
    OWN_SEQUENCE = 32,
    OWN_EPOCH = 40,
    OWN_TIME = 48,
    OWN_FLOOR = 56,
    OWN_HOST_ID = 64,
    OWN_BOOT_ID = OWN_HOST_ID + HOST_ID_SIZE,
    OWN_NONCE = OWN_BOOT_ID + HOST_ID_SIZE,
    OWN_ZERO3 = OWN_NONCE + OWNER_NONCE_SIZE,
    OWN_NAME = 128,
    OWN_END = OWN_NAME + HOST_NAME_SIZE,
};

/* No host gets there. */
static const uint64_t own_count_max = INT64_MAX;

static bool
is_printable(uint8_t c)
{
    return c >= 0x20 && c < 0x7f;
}

void
owner_record_encode(const struct owner_record *rec, uint8_t *block)
{
    memset(block, 0, BLOCK_SIZE);
    memcpy(block + OFF_MAGIC, owner_magic, 8);
    store_le16(block + OFF_VERSION, FORMAT_VERSION);
    block[OWN_STATE] = (uint8_t)rec->state;
    block[OWN_GUARDED] = rec->guarded;
    memcpy(block + OFF_UUID, rec->uuid, UUID_SIZE);
    store_le64(block + OWN_SEQUENCE, rec->sequence);
    store_le64(block + OWN_EPOCH, rec->epoch);
    store_le64(block + OWN_TIME, (uint64_t)rec->time);
    store_le64(block + OWN_FLOOR, rec->floor);
    memcpy(block + OWN_HOST_ID, rec->host_id, HOST_ID_SIZE);
    memcpy(block + OWN_BOOT_ID, rec->boot_id, HOST_ID_SIZE);
    memcpy(block + OWN_NONCE, rec->nonce, OWNER_NONCE_SIZE);
    for (size_t i = 0; i < HOST_NAME_SIZE && rec->host_name[i]; i++) {
        uint8_t c = (uint8_t)rec->host_name[i];

        block[OWN_NAME + i] = is_printable(c) ? c : '?';
    }
    format_set_crc(block, BLOCK_SIZE);
}

/* Printable, then zeroes. */
static bool
host_name_ok(const uint8_t *p)
{
    size_t n = 0;

    while (n < HOST_NAME_SIZE && is_printable(p[n]))
        n++;
    return bytes_are_zero(p + n, HOST_NAME_SIZE - n);
}

int
owner_record_decode(struct owner_record *rec, const uint8_t *block)
{
    int r = check_frame(block, BLOCK_SIZE, owner_magic);

    if (r == -ENODATA && !bytes_are_zero(block, BLOCK_SIZE))
        r = -EUCLEAN;
    if (r < 0)
        return r;
    if (block[OWN_STATE] < OWNER_OWNED || block[OWN_STATE] > OWNER_CLAIMED ||
        block[OWN_GUARDED] > 1 || load_le64(block + OWN_FLOOR) > load_le64(block + OWN_EPOCH) ||
        !bytes_are_zero(block + OWN_ZERO3, OWN_NAME - OWN_ZERO3) ||
        !host_name_ok(block + OWN_NAME) || !bytes_are_zero(block + OWN_END, BLOCK_SIZE - OWN_END) ||
        load_le64(block + OWN_SEQUENCE) == 0 || load_le64(block + OWN_EPOCH) == 0 ||
        load_le64(block + OWN_SEQUENCE) > own_count_max ||
        load_le64(block + OWN_EPOCH) > own_count_max)
        return -EUCLEAN;
    *rec = (struct owner_record){
        .sequence = load_le64(block + OWN_SEQUENCE),
        .epoch = load_le64(block + OWN_EPOCH),
        .state = (enum owner_state)block[OWN_STATE],
        .guarded = block[OWN_GUARDED],
        .floor = load_le64(block + OWN_FLOOR),
        .time = (int64_t)load_le64(block + OWN_TIME),
    };
    memcpy(rec->uuid, block + OFF_UUID, UUID_SIZE);
    memcpy(rec->host_id, block + OWN_HOST_ID, HOST_ID_SIZE);
    memcpy(rec->boot_id, block + OWN_BOOT_ID, HOST_ID_SIZE);
    memcpy(rec->nonce, block + OWN_NONCE, OWNER_NONCE_SIZE);
    memcpy(rec->host_name, block + OWN_NAME, HOST_NAME_SIZE);
    return 0;
}

bool
format_has_magic(const uint8_t *block)
{
    return memcmp(block, superblock_magic, 8) == 0 || memcmp(block, directory_magic, 8) == 0 ||
           memcmp(block, bank_magic, 8) == 0 || memcmp(block, owner_magic, 8) == 0;
}
