/* SPDX-License-Identifier: BSD-3-Clause */
/* key.h - swtpm's own keys, from the words of its --key and --migration-key to bytes: a key in hex
 * or binary, or one derived from the whole of a passphrase file, its newline included. */
#ifndef VNVRAM_SWTPM_KEY_H
#define VNVRAM_SWTPM_KEY_H

#include "crypt/secret.h"

enum swtpm_kdf { SWTPM_KDF_UNSET, SWTPM_KDF_PBKDF2, SWTPM_KDF_SHA512 };

struct swtpm_key_options {
    char *file; /* file= or pwdfile= */
    int fd;     /* fd= or pwdfd=, -1 for none; closed once it has been read */
    bool given, is_passphrase, is_binary, format_given;
    size_t size; /* mode=: 16 or 32 bytes; 0: not given, so 16 */
    enum swtpm_kdf kdf;
};

#define SWTPM_KEY_OPTIONS_INIT                                                                     \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

/* Takes "file=PATH,mode=aes-256-cbc" and so on; @option is what to call it in reports.  -EINVAL, or
 * -EPROTONOSUPPORT for another cipher or derivation: reported. */
int swtpm_key_options_set(struct swtpm_key_options *opt, const char *option, const char *words);
void swtpm_key_options_fini(struct swtpm_key_options *opt);

/* Reads the key; *@key is NULL when none was given.  What swtpm would quietly take for another
 * cipher than mode= says is refused.  -EINVAL or an I/O error, reported. */
int swtpm_key_read(struct swtpm_key_options *opt, struct secret **key);

/* The derivations: @size bytes of key from a passphrase, and the bytes of a hexadecimal key. */
int swtpm_key_derive(const struct secret *passphrase, enum swtpm_kdf kdf, size_t size,
                     struct secret **key);
int swtpm_key_parse_hex(const struct secret *text, const char *what, struct secret **key);

#endif
