/* SPDX-License-Identifier: BSD-3-Clause */
/* envelope.h - the header that swtpm puts in front of each TPM blob, in its plain form: 10 bytes of
 * blob header and one DATA record, all big-endian.  Pure translation: no I/O, no state, no locks.
 */
#ifndef VNVRAM_TPM_ENVELOPE_H
#define VNVRAM_TPM_ENVELOPE_H

#include <stddef.h>
#include <stdint.h>

enum { ENVELOPE_SIZE = 16, ENVELOPE_MIGRATION_SIZE = 22 }; /* bytes in front of the blob */

/* Writes the envelope of a blob of @len bytes, which follows it. */
void envelope_encode(uint8_t out[ENVELOPE_SIZE], uint32_t len);

/* Finds the blob within @len untrusted bytes at @buf.  The result points into @buf.  Reports,
 * calling it @name, and returns -EUCLEAN (damaged: short, too long, wrong version, no data) or
 * -EPROTONOSUPPORT (encrypted or migration data, which only the swtpm with its key can read). */
int envelope_decode(const uint8_t *buf, size_t len, const char *name, const uint8_t **blob,
                    size_t *blob_len);

/* The same for a blob on its way to another host: there is one more record around the DATA record.
 */
void envelope_encode_migration(uint8_t out[ENVELOPE_MIGRATION_SIZE], uint32_t len);
/* Takes the form of a stored blob too. */
int envelope_decode_migration(const uint8_t *buf, size_t len, const char *name,
                              const uint8_t **blob, size_t *blob_len);

#endif
