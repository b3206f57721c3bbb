/* SPDX-License-Identifier: BSD-3-Clause */
/* image.c - single structures of an image: read whole and verified, or written sealed. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/store_impl.h"
#include <errno.h>
#include <string.h>

uint64_t
superblock_offset(unsigned copy)
{
    return copy == 0 ? SUPERBLOCK_A : SUPERBLOCK_B;
}

int
superblock_load(struct dev *d, unsigned copy, uint8_t *buf, struct superblock *sb)
{
    int r;

    if (d->size < superblock_offset(copy) + BLOCK_SIZE)
        return -ERANGE;
    r = dev_pread(d, buf, BLOCK_SIZE, superblock_offset(copy));
    return r < 0 ? r : superblock_decode(sb, buf);
}

int
superblock_seal(uint8_t *buf, const struct superblock *sb, struct sealer *sealer)
{
    superblock_encode(sb, buf);
    return format_seal(sealer, SEAL_SUPERBLOCK, buf, BLOCK_SIZE);
}

int
superblock_write(struct dev *d, unsigned copy, const struct superblock *sb, struct sealer *sealer)
{
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    int r;

    if (!buf)
        return -ENOMEM;
    r = superblock_seal(buf, sb, sealer);
    return r < 0 ? r : dev_pwrite(d, buf, BLOCK_SIZE, superblock_offset(copy));
}

/* A structure in the wrong place: only somebody with our key can have signed it, so it was moved.
 */
static int
misplaced(const struct sealer *sealer)
{
    return !sealer || sealer->ops->mode == SEAL_NONE ? -EUCLEAN : -EBADMSG;
}

int
directory_load(struct dev *d, struct sealer *sealer, const struct superblock *sb, unsigned index,
               struct directory *dir, struct directory_claim *claim)
{
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    uint64_t len, generation;
    int r;

    *claim = (struct directory_claim){0};
    if (!buf)
        return -ENOMEM;
    r = dev_pread(d, buf, BLOCK_SIZE, sb->dir_off[index]);
    if (r < 0)
        return r;
    r = directory_peek(buf, sb->dir_capacity, &len, &generation);
    if (r < 0)
        return r;
    free(buf);
    buf = dev_alloc(len);
    if (!buf)
        return -ENOMEM;
    r = dev_pread(d, buf, len, sb->dir_off[index]);
    if (r < 0)
        return r;
    if (!format_crc_ok(buf, len))
        return -EUCLEAN;
    directory_claim(buf, claim);
    r = format_verify(sealer, SEAL_DIRECTORY, buf, len);
    if (r < 0)
        return r;
    r = directory_decode(dir, buf, len, sb);
    if (r == 0 && dir->index != index) {
        directory_fini(dir);
        return misplaced(sealer);
    }
    return r;
}

/* The last line of defence: what no mount could read again is not written. */
static int
check_readable(const struct directory *dir, const uint8_t *buf, uint64_t len, const uint8_t *was,
               const struct superblock *sb)
{
    struct directory back = {0};
    int r = was ? directory_recheck(dir, buf, len, was, sb) : -EAGAIN;

    if (r == -EAGAIN)
        r = directory_decode(&back, buf, len, sb);
    directory_fini(&back);
    return r == -EUCLEAN ? report(-EINVAL, "refusing to write a directory that could not be read")
                         : r;
}

int
directory_seal(struct sealer *sealer, const struct superblock *sb, struct directory *dir,
               const uint8_t *was, uint8_t **out, uint64_t *len)
{
    uint64_t size = directory_size(dir);
    AUTO_FREE uint8_t *buf = NULL;
    int r;

    if (size > sb->dir_capacity)
        return -ENOSPC;
    buf = dev_alloc(size);
    if (!buf)
        return -ENOMEM;
    directory_encode(dir, sb->uuid, buf);
    r = format_seal(sealer, SEAL_DIRECTORY, buf, size);
    if (r == 0)
        r = check_readable(dir, buf, size, was, sb);
    if (r < 0)
        return r;
    memcpy(dir->digest, buf + DIRECTORY_TAG, SEAL_TAG_SIZE);
    *out = steal(&buf);
    *len = size;
    return 0;
}

int
directory_write(struct dev *d, struct sealer *sealer, const struct superblock *sb,
                struct directory *dir)
{
    AUTO_FREE uint8_t *buf = NULL;
    uint64_t len;
    int r = directory_seal(sealer, sb, dir, NULL, &buf, &len);

    return r < 0 ? r : dev_pwrite(d, buf, len, sb->dir_off[dir->index]);
}

/* Reads a bank as long as its own header says and verifies that it is a whole content of ours: what
 * lies where another content was expected. */
static int
load_other(struct dev *d, struct sealer *sealer, const struct superblock *sb,
           const struct content *c, const uint8_t *block, struct bank_header *h)
{
    uint64_t at = superblock_bank_offset(sb, c->slot, c->bank);
    AUTO_FREE uint8_t *buf = NULL;
    uint64_t length, generation, size;
    int r = bank_peek(block, &length, &generation);

    if (r < 0 || length > superblock_slot_capacity(sb, c->slot))
        return -EUCLEAN;
    size = BANK_HEADER + bank_padded(length);
    buf = dev_alloc(size);
    if (!buf)
        return -ENOMEM;
    r = dev_pread(d, buf, size, at);
    if (r < 0)
        return r;
    if (!format_crc_ok(buf, size))
        return -EUCLEAN;
    r = bank_decode(h, buf, size - BANK_HEADER);
    if (r == 0)
        r = format_verify(sealer, SEAL_BANK, buf, size);
    /* A reseal that was cut short leaves contents of a key that never came to be. */
    return r == -EBADMSG && h->key_epoch != sb->key_epoch ? -ESTALE : r;
}

static bool
bank_is_at_home(const struct bank_header *h, const struct superblock *sb, uint32_t slot,
                unsigned bank)
{
    return h->slot == slot && h->bank == bank && memcmp(h->uuid, sb->uuid, UUID_SIZE) == 0 &&
           h->seal_mode == sb->seal_mode;
}

/* Why @block, read where @c should lie, is not it. */
static int
explain_other(struct dev *d, struct sealer *sealer, const struct superblock *sb,
              const struct content *c, const uint8_t *block)
{
    struct bank_header h;
    int r = load_other(d, sealer, sb, c, block, &h);

    if (r < 0)
        return r;
    if (!bank_is_at_home(&h, sb, c->slot, c->bank))
        return misplaced(sealer);
    return -ESTALE; /* also of the same generation: a commit that was lost, then done again */
}

int
bank_load(struct dev *d, struct sealer *sealer, const struct superblock *sb,
          const struct content *c, uint8_t **raw)
{
    uint64_t padded = bank_padded(c->length);
    AUTO_FREE uint8_t *buf = dev_alloc(BANK_HEADER + padded);
    struct bank_header h;
    int r;

    if (!buf)
        return -ENOMEM;
    r = dev_pread(d, buf, BANK_HEADER + padded, superblock_bank_offset(sb, c->slot, c->bank));
    if (r < 0)
        return r;
    if (!format_crc_ok(buf, BANK_HEADER + padded) ||
        memcmp(buf + BANK_TAG, c->digest, SEAL_TAG_SIZE) != 0)
        return explain_other(d, sealer, sb, c, buf);
    r = format_verify(sealer, SEAL_BANK, buf, BANK_HEADER + padded);
    if (r < 0)
        return r;
    r = bank_decode(&h, buf, padded);
    if (r < 0)
        return r;
    if (!bank_is_at_home(&h, sb, c->slot, c->bank) || h.generation != c->generation ||
        h.length != c->length)
        return misplaced(sealer);
    *raw = steal(&buf);
    return 0;
}

int
bank_open(struct dev *d, struct sealer *sealer, const struct superblock *sb,
          const struct content *c, uint8_t **raw)
{
    uint64_t padded = bank_padded(c->length);
    struct bank_header h;
    int r = bank_load(d, sealer, sb, c, raw);

    if (r == 0)
        r = bank_decode(&h, *raw, padded);
    return r < 0 ? r : sealer->ops->decrypt(sealer, h.iv, *raw + BANK_HEADER, padded);
}

int
bank_write(struct dev *d, struct sealer *sealer, const struct superblock *sb, struct content *c,
           const void *data, size_t len, uint8_t **bank)
{
    uint64_t padded = bank_padded(len);
    AUTO_FREE uint8_t *buf = dev_alloc_raw(BANK_HEADER + padded);
    struct bank_header h = {
        .generation = c->generation,
        .length = len,
        .slot = c->slot,
        .key_epoch = sb->key_epoch,
        .bank = c->bank,
        .seal_mode = sb->seal_mode,
    };
    int r;

    if (!buf)
        return -ENOMEM;
    memcpy(h.uuid, sb->uuid, UUID_SIZE);
    r = sealer->ops->new_iv(sealer, h.iv);
    if (r < 0)
        return r;
    bank_encode(&h, buf);
    r = sealer->ops->encrypt(sealer, h.iv, buf + BANK_HEADER, padded, data, len);
    if (r == 0)
        r = format_seal(sealer, SEAL_BANK, buf, BANK_HEADER + padded);
    if (r < 0) {
        explicit_bzero(buf + BANK_HEADER, padded);
        return r;
    }
    c->length = len;
    memcpy(c->digest, buf + BANK_TAG, SEAL_TAG_SIZE);
    r = dev_submit(d, buf, BANK_HEADER + padded, superblock_bank_offset(sb, c->slot, c->bank));
    if (r == 0)
        *bank = steal(&buf);
    return r;
}
