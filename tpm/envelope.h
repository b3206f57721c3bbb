/* SPDX-License-Identifier: BSD-3-Clause */
/* envelope.h - the header that swtpm puts in front of each TPM blob, and its plain form: 10 bytes
 * of blob header and one DATA record, all big-endian.  Pure translation: no I/O, no state, no
 * locks. The encrypted forms are swtpm/blob.h's. */
#ifndef VNVRAM_TPM_ENVELOPE_H
#define VNVRAM_TPM_ENVELOPE_H

#include <stddef.h>
#include <stdint.h>

enum { ENVELOPE_SIZE = 16, ENVELOPE_MIGRATION_SIZE = 22 }; /* bytes in front of the blob */
enum { ENVELOPE_HEADER = 10, ENVELOPE_RECORD_HEAD = 6 };

enum envelope_flag {
    ENVELOPE_ENCRYPTED = 0x01,
    ENVELOPE_MIGRATION_ENCRYPTED = 0x02,
    ENVELOPE_MIGRATION_DATA = 0x04,
    ENVELOPE_KEY_256 = 0x08,
    ENVELOPE_MIGRATION_KEY_256 = 0x10,
    ENVELOPE_FLAGS = 0x1f
};

enum envelope_tag {
    ENVELOPE_TAG_DATA = 1,
    ENVELOPE_TAG_ENCRYPTED = 2,
    ENVELOPE_TAG_HMAC = 3,
    ENVELOPE_TAG_MIGRATION_DATA = 4,
    ENVELOPE_TAG_MIGRATION_ENCRYPTED = 5,
    ENVELOPE_TAG_IV = 6,
    ENVELOPE_TAG_MIGRATION_IV = 7,
    ENVELOPE_TAGS
};

/* The header of a blob of @len bytes in all, and the head of a record of @len bytes. */
void envelope_encode_header(uint8_t out[ENVELOPE_HEADER], uint16_t flags, uint32_t len);
void envelope_encode_record(uint8_t out[ENVELOPE_RECORD_HEAD], uint16_t tag, uint32_t len);
/* Reads the header; the records are the rest of the @len untrusted bytes.  Reports, calling it
 * @name, and returns -EUCLEAN (short, too long, no such header) or -EPROTONOSUPPORT (of another
 * version).  The flags are as they stand there. */
int envelope_decode_header(const uint8_t *buf, size_t len, const char *name, uint16_t *flags);

/* Writes the envelope of a blob of @len bytes, which follows it. */
void envelope_encode(uint8_t out[ENVELOPE_SIZE], uint32_t len);

/* Finds the blob within @len untrusted bytes at @buf.  The result points into @buf.  Reports,
 * calling it @name, and returns -EUCLEAN (damaged: short, too long, wrong version, no data) or
 * -EPROTONOSUPPORT (encrypted or migration data, which takes swtpm's keys). */
int envelope_decode(const uint8_t *buf, size_t len, const char *name, const uint8_t **blob,
                    size_t *blob_len);

/* The same for a blob on its way to another host: there is one more record around the DATA record.
 */
void envelope_encode_migration(uint8_t out[ENVELOPE_MIGRATION_SIZE], uint32_t len);
/* Takes the form of a stored blob too. */
int envelope_decode_migration(const uint8_t *buf, size_t len, const char *name,
                              const uint8_t **blob, size_t *blob_len);

/* ---- to look at --------------------------------------------------------------------------------
 */

enum { ENVELOPE_RECORDS = 8 };

struct envelope_record {
    uint16_t tag;
    uint32_t len;
};

struct envelope {
    uint8_t version, min_version;
    uint16_t flags;
    struct envelope_record records[ENVELOPE_RECORDS]; /* the outer ones */
    unsigned n_records;
};

/* Reads header and records of any form, encrypted or not: 0, or -EUCLEAN (not reported) when @buf
 * does not start with such a header, or its records do not fill it. */
int envelope_read(struct envelope *e, const uint8_t *buf, size_t len);
/* "encrypted", "migration data", ...; NULL for a bit that has no meaning. */
const char *envelope_flag_name(unsigned bit);
const char *envelope_tag_name(uint16_t tag);

#endif
