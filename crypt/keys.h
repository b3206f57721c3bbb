/* SPDX-License-Identifier: BSD-3-Clause */
/* keys.h - from what a user gives (a file, a descriptor, a passphrase) to a sealer.
 *
 * The user's key or passphrase yields a key-encryption key; the image's random volume key lies wrapped
 * under it in one of KEYSLOT_COUNT key slots of the superblock (doc/format.md, "Key slots"); separate
 * keys per purpose are derived from the volume key.  All secrets live in libgcrypt's secure memory. */
#ifndef VNVRAM_CRYPT_KEYS_H
#define VNVRAM_CRYPT_KEYS_H

#include "core/format.h"
#include "core/sealer.h"

/* Initialises libgcrypt (version check, secure memory, self-tests as far as they are cheap); call it
 * once, single-threaded, before anything else here.  Not dumpable, no core, from then on. */
int crypt_init(void);

/* The sealer of an unsealed image: SHA-256 digests.  A static object; freeing it is harmless. */
struct sealer *sealer_plain(void);

enum key_format { KEY_FORMAT_UNSET, KEY_FORMAT_HEX, KEY_FORMAT_BINARY, KEY_FORMAT_PASSPHRASE };

/* What the options said.  All pointers belong to the holder. */
struct key_options {
    char *file;             /* key_file= */
    int fd;                 /* key_fd=, -1 for none */
    char *text;             /* key=, in secure memory */
    enum key_format format; /* key_format= */
    unsigned key_size;      /* --key-size / from the key: 16, 24, 32; 0 = default */
    bool given;             /* any of the above: the user means a sealed image */
};

/* A store_unlock_fn; @arg is a struct key_options.  For an unsealed image and no key: sealer_plain(). */
int keys_unlock(void *arg, const struct superblock *sb, struct sealer **out);

/* For format: a new random volume key, wrapped into @keyslots[0] by the key that @opt gives, for an image
 * of @uuid and key epoch 1.  *@key_size is that of the user's key. */
int keys_new_volume(const struct key_options *opt, const uint8_t uuid[UUID_SIZE],
                    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE], uint8_t *key_size, struct sealer **out);

#endif
