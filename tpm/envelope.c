/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/envelope.h"
#include "base/bytes.h"
#include "base/report.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>

enum { VERSION = 2, MIN_VERSION = 1 };
enum {
    OFF_VERSION = 0,
    OFF_MIN_VERSION = 1,
    OFF_HEADER_SIZE = 2,
    OFF_FLAGS = 4,
    OFF_TOTAL = 6,
    OFF_TAG = 10,
    OFF_END = 16,
    OFF_INNER_TAG = 16, /* of migration data */
    OFF_INNER_END = 22
};
static_assert((int)OFF_TAG == (int)ENVELOPE_HEADER, "the first record follows the header");
static_assert((int)OFF_END == (int)ENVELOPE_SIZE, "envelope layout drifted from its size");
static_assert((int)OFF_INNER_END == (int)ENVELOPE_MIGRATION_SIZE, "so did that of migration data");

void
envelope_encode_header(uint8_t out[ENVELOPE_HEADER], uint16_t flags, uint32_t len)
{
    out[OFF_VERSION] = VERSION;
    out[OFF_MIN_VERSION] = MIN_VERSION;
    store_be16(out + OFF_HEADER_SIZE, ENVELOPE_HEADER);
    store_be16(out + OFF_FLAGS, flags);
    store_be32(out + OFF_TOTAL, len);
}

void
envelope_encode_record(uint8_t out[ENVELOPE_RECORD_HEAD], uint16_t tag, uint32_t len)
{
    store_be16(out, tag);
    store_be32(out + 2, len);
}

void
envelope_encode(uint8_t out[ENVELOPE_SIZE], uint32_t len)
{
    envelope_encode_header(out, 0, OFF_END + len);
    envelope_encode_record(out + OFF_TAG, ENVELOPE_TAG_DATA, len);
}

void
envelope_encode_migration(uint8_t out[ENVELOPE_MIGRATION_SIZE], uint32_t len)
{
    envelope_encode_header(out, ENVELOPE_MIGRATION_DATA, OFF_INNER_END + len);
    envelope_encode_record(out + OFF_TAG, ENVELOPE_TAG_MIGRATION_DATA, ENVELOPE_RECORD_HEAD + len);
    envelope_encode_record(out + OFF_INNER_TAG, ENVELOPE_TAG_DATA, len);
}

static int
check_flags(uint16_t flags, const char *name)
{
    if (flags &
        (ENVELOPE_MIGRATION_ENCRYPTED | ENVELOPE_MIGRATION_DATA | ENVELOPE_MIGRATION_KEY_256))
        return report(-EPROTONOSUPPORT,
                      "%s: holds migration data of swtpm (flags 0x%x), not the state of a TPM: "
                      "\"vnvram import --swtpm\" takes such",
                      name, flags);
    if (flags & (ENVELOPE_ENCRYPTED | ENVELOPE_KEY_256))
        return report(-EPROTONOSUPPORT,
                      "%s: encrypted by swtpm (flags 0x%x): only swtpm with its key can use it "
                      "here; \"vnvram import --swtpm --swtpm-key\" decrypts it",
                      name, flags);
    if (flags)
        return report(-EUCLEAN, "%s: unknown flags 0x%x in its header", name, flags);
    return 0;
}

int
envelope_decode_header(const uint8_t *buf, size_t len, const char *name, uint16_t *flags)
{
    uint32_t total;

    if (len < ENVELOPE_HEADER)
        return report(-EUCLEAN, "%s: %zu bytes are too short for a TPM's state", name, len);
    if (load_be16(buf + OFF_HEADER_SIZE) != ENVELOPE_HEADER || buf[OFF_VERSION] == 0 ||
        buf[OFF_MIN_VERSION] == 0 || buf[OFF_MIN_VERSION] > buf[OFF_VERSION])
        return report(-EUCLEAN, "%s: does not start with the header of a TPM's state", name);
    total = load_be32(buf + OFF_TOTAL);
    if (total != len)
        return report(-EUCLEAN, "%s: has %zu bytes, but its header says %" PRIu32, name, len,
                      total);
    if (buf[OFF_VERSION] != VERSION || buf[OFF_MIN_VERSION] != MIN_VERSION)
        return report(-EPROTONOSUPPORT,
                      "%s: its header is of version %u (at least %u), and %d (%d) is supported",
                      name, buf[OFF_VERSION], buf[OFF_MIN_VERSION], VERSION, MIN_VERSION);
    *flags = load_be16(buf + OFF_FLAGS);
    return 0;
}

/* The record at @off, which must be of @tag and be all the rest; more than nothing. */
static int
check_record(const uint8_t *buf, size_t len, size_t off, uint16_t tag, const char *name)
{
    const size_t head = ENVELOPE_RECORD_HEAD;
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
    uint16_t flags;
    int r = envelope_decode_header(buf, len, name, &flags);

    if (r == 0)
        r = check_flags(flags, name);
    if (r == 0)
        r = check_record(buf, len, OFF_TAG, ENVELOPE_TAG_DATA, name);
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
    uint16_t flags;
    int r = envelope_decode_header(buf, len, name, &flags);

    if (r < 0 || flags != ENVELOPE_MIGRATION_DATA)
        return r < 0 ? r : envelope_decode(buf, len, name, blob, blob_len);
    r = check_record(buf, len, OFF_TAG, ENVELOPE_TAG_MIGRATION_DATA, name);
    if (r == 0)
        r = check_record(buf, len, OFF_INNER_TAG, ENVELOPE_TAG_DATA, name);
    if (r < 0)
        return r;
    *blob = buf + OFF_INNER_END;
    *blob_len = len - OFF_INNER_END;
    return 0;
}

/* ---- to look at --------------------------------------------------------------------------------
 */

int
envelope_read(struct envelope *e, const uint8_t *buf, size_t len)
{
    struct envelope found = {0};
    size_t off = ENVELOPE_HEADER;

    if (len < ENVELOPE_HEADER || load_be16(buf + OFF_HEADER_SIZE) != ENVELOPE_HEADER ||
        load_be32(buf + OFF_TOTAL) != len)
        return -EUCLEAN;
    found.version = buf[OFF_VERSION];
    found.min_version = buf[OFF_MIN_VERSION];
    found.flags = load_be16(buf + OFF_FLAGS);
    while (off < len) {
        struct envelope_record *rec = &found.records[found.n_records];

        if (found.n_records == ENVELOPE_RECORDS || len - off < ENVELOPE_RECORD_HEAD)
            return -EUCLEAN;
        rec->tag = load_be16(buf + off);
        rec->len = load_be32(buf + off + 2);
        if (rec->len > len - off - ENVELOPE_RECORD_HEAD)
            return -EUCLEAN;
        off += ENVELOPE_RECORD_HEAD + rec->len;
        found.n_records++;
    }
    *e = found;
    return 0;
}

const char *
envelope_flag_name(unsigned bit)
{
    static const char *const names[] = {"encrypted", "encrypted for migration", "migration data",
                                        "256-bit key", "256-bit migration key"};

    return bit < sizeof names / sizeof *names ? names[bit] : NULL;
}

const char *
envelope_tag_name(uint16_t tag)
{
    static const char *const names[ENVELOPE_TAGS] = {
        [ENVELOPE_TAG_DATA] = "data",
        [ENVELOPE_TAG_ENCRYPTED] = "encrypted data",
        [ENVELOPE_TAG_HMAC] = "HMAC",
        [ENVELOPE_TAG_MIGRATION_DATA] = "migration data",
        [ENVELOPE_TAG_MIGRATION_ENCRYPTED] = "encrypted migration data",
        [ENVELOPE_TAG_IV] = "IV",
        [ENVELOPE_TAG_MIGRATION_IV] = "migration IV",
    };

    return tag < ENVELOPE_TAGS ? names[tag] : NULL;
}
