/* SPDX-License-Identifier: BSD-3-Clause */
/* blob.h - a TPM's state as swtpm keeps it in files (its "state") and as it hands it to another
 * host (its "migration blob"): tpm/envelope.h's header, and records in the clear or under swtpm's
 * keys: AES-CBC with a padding of up to a key's length, then HMAC-SHA-256 under the same key. What
 * lies in the clear is held in locked memory only. */
#ifndef VNVRAM_SWTPM_BLOB_H
#define VNVRAM_SWTPM_BLOB_H

#include "crypt/secret.h"
#include "crypt/vault.h"
#include <stdbool.h>

/* swtpm's --key and --migration-key; NULL: not given. */
struct swtpm_keys {
    const struct secret *state, *migration;
};

/* Finds the blob within @len untrusted bytes at @raw, called @name in reports.  Reported:
 *   -ERANGE           there are fewer bytes than its header says
 *   -EMEDIUMTYPE      it does not start with such a header
 *   -EUCLEAN          damaged in another way
 *   -EPROTONOSUPPORT  unknown version, flags or records
 *   -ENOKEY           it takes a key that was not given
 *   -EKEYREJECTED     another key, or encrypted bytes that have been changed: the same check fails
 *   -EKEYREVOKED      a key was given, but nothing in it is encrypted; swtpm would take it, and so
 *                     whatever somebody puts in its place */
int swtpm_blob_open(const uint8_t *raw, size_t len, const char *name, const struct swtpm_keys *keys,
                    struct vault **blob);
/* Whether opening it takes a key; false for what is no such blob. */
bool swtpm_blob_is_encrypted(const uint8_t *raw, size_t len);

/* The other way, under the keys that are given: a state, or, with @migration, a migration blob. */
int swtpm_blob_seal(const struct vault *blob, bool migration, const struct swtpm_keys *keys,
                    struct vault **raw);

#endif
