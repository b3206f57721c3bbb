/* SPDX-License-Identifier: BSD-3-Clause */
/* keyslot.h - a key slot of the superblock (doc/format.md, "Key slots") as a host struct, and its
 * translation to and from bytes.  Pure: no I/O, no secrets, no state. */
#ifndef VNVRAM_CRYPT_KEYSLOT_H
#define VNVRAM_CRYPT_KEYSLOT_H

#include "core/format.h"
#include "crypt/kdf.h"

enum keyslot_type {
    KEYSLOT_FREE = 0,
    KEYSLOT_RAW = 1,        /* the user's key wraps the volume key as it is */
    KEYSLOT_PASSPHRASE = 2, /* Argon2id of a passphrase does */
    KEYSLOT_RECOVERY = 3,   /* HKDF of a recovery key does: 128 random bits need no stretching */
};

enum { KEYSLOT_VERSION = 1, KEYSLOT_SALT = 32, KEYSLOT_WRAPPED = 40 };

struct keyslot {
    enum keyslot_type type;     /* never FREE */
    uint8_t kek_size;           /* bytes of the key that wraps: 16, 24 or 32 */
    struct kdf_cost cost;       /* PASSPHRASE only */
    uint8_t salt[KEYSLOT_SALT]; /* zero for RAW */
    uint8_t wrapped[KEYSLOT_WRAPPED];
    int64_t created; /* seconds since 1970 */
};

void keyslot_encode(const struct keyslot *ks, uint8_t buf[KEYSLOT_SIZE]);
/* 0; -ENODATA for a free slot; -EPROTONOSUPPORT for a type or version not known, and for a
 * passphrase slot that asks for more than kdf_cost_ok() allows; -EUCLEAN for fields that
 * contradict.  Reports nothing. */
int keyslot_decode(struct keyslot *ks, const uint8_t buf[KEYSLOT_SIZE]);
const char *keyslot_type_name(enum keyslot_type type);

#endif
