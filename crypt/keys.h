/* SPDX-License-Identifier: BSD-3-Clause */
/* keys.h - from what a user gives (a file, a descriptor, a passphrase) to a sealer.
 *
 * The user's key or passphrase yields a key-encryption key; the image's random volume key lies
 * wrapped under it in one of KEYSLOT_COUNT key slots of the superblock (doc/format.md, "Key
 * slots"); separate keys per purpose are derived from the volume key.  All secrets live in
 * libgcrypt's secure memory. */
#ifndef VNVRAM_CRYPT_KEYS_H
#define VNVRAM_CRYPT_KEYS_H

#include "core/format.h"
#include "core/sealer.h"
#include "crypt/secret.h"

/* Initialises libgcrypt (version check, secure memory); call it first of all in main(),
 * single-threaded. Not dumpable, no core, from then on. */
int crypt_init(void);

/* The sealer of an unsealed image: SHA-256 digests.  A static object; freeing it is harmless. */
struct sealer *sealer_plain(void);

enum key_format { KEY_FORMAT_UNSET, KEY_FORMAT_HEX, KEY_FORMAT_BINARY, KEY_FORMAT_PASSPHRASE };

/* What the options said.  Start from KEY_OPTIONS_INIT, fill with key_options_set(), end with
 * key_options_fini(). */
struct key_options {
    char *file;             /* key_file= */
    int fd;                 /* key_fd=, -1 for none; closed once it has been read */
    struct secret *text;    /* key= */
    enum key_format format; /* key_format=; unset means hex */
    unsigned key_size;      /* key_size=: 16, 24, 32 bytes for a new passphrase; 0 = 32 */
    uint32_t kdf_memory;    /* kdf_memory=, KiB, and */
    uint32_t kdf_time;      /* kdf_time=, passes, for a new passphrase; 0 = benchmark */
    const char *of;         /* what it opens, for who is asked; the caller's; NULL: not said */
    bool given;             /* a word that only a sealed image understands: the user means one */

    /* What has been read and opened, so that nobody is asked twice. */
    struct secret *key;
    bool is_passphrase;
    bool rejected; /* said so */
    struct secret *volume_key;
    uint8_t opened_slot[KEYSLOT_SIZE]; /* the slot that .volume_key came from */
};

#define KEY_OPTIONS_INIT                                                                           \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

/* Takes "key_file", "key_fd", "key", "key_format", "enc_mode", "key_size" (bits), "kdf_memory" or
 * "kdf_time" with its value (NULL: none was given).  0, -ENOENT for another word (not reported), or
 * -EINVAL (reported, without the value of "key").  @value is copied; a "key" should lie where
 * keys_hide_argv() has put it. */
int key_options_set(struct key_options *opt, const char *word, const char *value);
void key_options_fini(struct key_options *opt); /* wipes */

/* Moves every argument that holds a "key=" to secure memory and overwrites the value in the
 * process's own argument area with dashes, so that ps shows those.  Call it right after
 * crypt_init(). */
int keys_hide_argv(int argc, char **argv);

/* Reads the key now, once (asks on the terminal, if that is where it comes from; twice when
 * @is_new). Harmless when none was given.  What needs a key calls it by itself; a caller that must
 * not wait while it holds an image calls it first.  -EINVAL (malformed), -ENOKEY (no source), or an
 * I/O error: reported. */
int keys_read(struct key_options *opt, bool is_new);

/* A store_unlock_fn; @arg is a struct key_options.  For an unsealed image and no key:
 * sealer_plain(). */
int keys_unlock(void *arg, const struct superblock *sb, struct sealer **out);

/* For format: a new random volume key, wrapped into @keyslots[0] by the key that @opt gives, for an
 * image of @uuid and key epoch 1.  *@key_size is that of the user's key. */
int keys_new_volume(struct key_options *opt, const uint8_t uuid[UUID_SIZE],
                    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE], uint8_t *key_size,
                    struct sealer **out);
/* For reseal: the same for another epoch. */
int keys_renew_volume(struct key_options *opt, const uint8_t uuid[UUID_SIZE], uint32_t key_epoch,
                      uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE], uint8_t *key_size,
                      struct sealer **out);

/* Which of @sb's slots the key of @opt opens; -EKEYREJECTED (reported) when none. */
int keys_find_slot(struct key_options *opt, const struct superblock *sb);
/* Wraps the volume key that keys_unlock() has opened with @opt under the key that @added gives,
 * which may not be shorter than @key_size, that of the image. */
int keys_wrap(const struct key_options *opt, struct key_options *added, uint8_t key_size,
              uint8_t slot[KEYSLOT_SIZE]);
/* The same under a new random recovery key; *@text is how to print it. */
int keys_wrap_recovery(const struct key_options *opt, uint8_t slot[KEYSLOT_SIZE],
                       struct secret **text);

#endif
