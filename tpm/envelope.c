/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/envelope.h"
#include "base/bytes.h"
#include "base/report.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

enum { VERSION = 2, MIN_VERSION = 1, HEADER_SIZE = 10, TAG_DATA = 1, TAG_MIGRATION_DATA = 4 };
enum {
    OFF_VERSION = 0,
    OFF_MIN_VERSION = 1,
    OFF_HEADER_SIZE = 2,
    OFF_FLAGS = 4,
    OFF_TOTAL = 6,
    OFF_TAG = 10,
    OFF_LENGTH = 12,
    OFF_END = 16,
    OFF_INNER_TAG = 16, /* of migration data */
    OFF_INNER_LENGTH = 18,
    OFF_INNER_END = 22
};
static_assert((int)OFF_END == (int)ENVELOPE_SIZE, "envelope layout drifted from its size");
static_assert((int)OFF_INNER_END == (int)ENVELOPE_MIGRATION_SIZE, "so did that of migration data");

enum {
    FLAG_ENCRYPTED = 0x01,
    FLAG_MIGRATION_ENCRYPTED = 0x02,
    FLAG_MIGRATION_DATA = 0x04,
    FLAG_KEY_256 = 0x08,
    FLAG_MIGRATION_KEY_256 = 0x10
};

/* The header, and the first record, of @len bytes. */
static void
encode(uint8_t *out, uint16_t flags, uint16_t tag, uint32_t len)
{
    out[OFF_VERSION] = VERSION;
    out[OFF_MIN_VERSION] = MIN_VERSION;
    store_be16(out + OFF_HEADER_SIZE, HEADER_SIZE);
    store_be16(out + OFF_FLAGS, flags);
    store_be32(out + OFF_TOTAL, OFF_END + len);
    store_be16(out + OFF_TAG, tag);
    store_be32(out + OFF_LENGTH, len);
}

void
envelope_encode(uint8_t out[ENVELOPE_SIZE], uint32_t len)
{
    encode(out, 0, TAG_DATA, len);
}

void
envelope_encode_migration(uint8_t out[ENVELOPE_MIGRATION_SIZE], uint32_t len)
{
    encode(out, FLAG_MIGRATION_DATA, TAG_MIGRATION_DATA, OFF_INNER_END - OFF_INNER_TAG + len);
    store_be16(out + OFF_INNER_TAG, TAG_DATA);
    store_be32(out + OFF_INNER_LENGTH, len);
}

static int
check_flags(uint16_t flags, const char *name)
{
    if (flags & (FLAG_MIGRATION_ENCRYPTED | FLAG_MIGRATION_DATA | FLAG_MIGRATION_KEY_256))
        return report(-EPROTONOSUPPORT,
                      "%s: holds migration data of swtpm (flags 0x%x), not the state of a TPM",
                      name, flags);
    if (flags & (FLAG_ENCRYPTED | FLAG_KEY_256))
        return report(
            -EPROTONOSUPPORT,
            "%s: encrypted by swtpm (flags 0x%x); start it in swtpm with its key and let it "
            "write the state without",
            name, flags);
    if (flags)
        return report(-EUCLEAN, "%s: unknown flags 0x%x in its header", name, flags);
    return 0;
}

static int
check_header(const uint8_t *buf, size_t len, const char *name)
{
    uint32_t total;

    if (len < HEADER_SIZE)
        return report(-EUCLEAN, "%s: %zu bytes are too short for a TPM's state", name, len);
    if (buf[OFF_VERSION] != VERSION || buf[OFF_MIN_VERSION] != MIN_VERSION ||
        load_be16(buf + OFF_HEADER_SIZE) != HEADER_SIZE)
        return report(-EUCLEAN, "%s: does not start with the header of a TPM's state", name);
    total = load_be32(buf + OFF_TOTAL);
    if (total != len)
        return report(-EUCLEAN, "%s: has %zu bytes, but its header says %" PRIu32, name, len,
                      total);
    return 0;
}

/* The record at @off, which must be of @tag and be all the rest; more than nothing. */
static int
check_record(const uint8_t *buf, size_t len, size_t off, uint16_t tag, const char *name)
{
    const size_t head = OFF_END - OFF_TAG;
    uint32_t data;

    if (len - off <= head)
        return report(-EUCLEAN, "%s: holds no data", name);
    data = load_be32(buf + off + 2);
    if (load_be16(buf + off) != tag || data != len - off - head)
        return report(-EUCLEAN, "%s: its data record (tag %u, %" PRIu32 " bytes) does not fill it",
                      name, load_be16(buf + off), data);
    return 0;
}

int
envelope_decode(const uint8_t *buf, size_t len, const char *name, const uint8_t **blob,
                size_t *blob_len)
{
    int r = check_header(buf, len, name);

    if (r == 0)
        r = check_flags(load_be16(buf + OFF_FLAGS), name);
    if (r == 0)
        r = check_record(buf, len, OFF_TAG, TAG_DATA, name);
    if (r < 0)
        return r;
    *blob = buf + OFF_END;
    *blob_len = len - OFF_END;
    return 0;
}

int
envelope_decode_migration(const uint8_t *buf, size_t len, const char *name, const uint8_t **blob,
                          size_t *blob_len)
{
    int r = check_header(buf, len, name);

    if (r < 0 || load_be16(buf + OFF_FLAGS) != FLAG_MIGRATION_DATA)
        return r < 0 ? r : envelope_decode(buf, len, name, blob, blob_len);
    r = check_record(buf, len, OFF_TAG, TAG_MIGRATION_DATA, name);
    if (r == 0)
        r = check_record(buf, len, OFF_INNER_TAG, TAG_DATA, name);
    if (r < 0)
        return r;
    *blob = buf + OFF_INNER_END;
    *blob_len = len - OFF_INNER_END;
    return 0;
}
