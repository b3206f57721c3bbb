/* SPDX-License-Identifier: BSD-3-Clause */
/* aes.h - AES as this program uses it: CBC over whole blocks, and RFC 3394 key wrap.  A handle per
 * operation, in secure memory: cheap beside the work, and nothing is shared between threads. */
#ifndef VNVRAM_CRYPT_AES_H
#define VNVRAM_CRYPT_AES_H

#include <gcrypt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { AES_BLOCK = 16, WRAP_EXTRA = 8 };

/* 16, 24 or 32 bytes: the sizes of an AES key. */
static inline bool
aes_key_size_ok(size_t n)
{
    return n == 16 || n == 24 || n == 32;
}

/* In place; @len is a multiple of AES_BLOCK.  0 or -ENOMEM. */
int aes_cbc_encrypt(const uint8_t *key, size_t key_len, const uint8_t iv[AES_BLOCK], uint8_t *buf,
                    size_t len);
int aes_cbc_decrypt(const uint8_t *key, size_t key_len, const uint8_t iv[AES_BLOCK], uint8_t *buf,
                    size_t len);

/* The same with a handle that stays keyed; gcry_cipher_close() it.  One operation at a time.
 * Encrypts @len bytes of @in, and zeros up to @padded, a multiple of AES_BLOCK, to @out, which is
 * @in or lies apart from it.  0 or -EIO. */
int aes_cbc_open(gcry_cipher_hd_t *out, const uint8_t *key, size_t key_len);
int aes_cbc_encrypt_with(gcry_cipher_hd_t h, const uint8_t iv[AES_BLOCK], uint8_t *out,
                         size_t padded, const void *in, size_t len);
int aes_cbc_decrypt_with(gcry_cipher_hd_t h, const uint8_t iv[AES_BLOCK], uint8_t *buf, size_t len);

/* @out is @len + WRAP_EXTRA bytes; @len is a multiple of 8 and at least 16. */
int aes_wrap(const uint8_t *kek, size_t kek_len, const uint8_t *plain, size_t len, uint8_t *out);
/* @len counts the wrapped bytes; @out is @len - WRAP_EXTRA.  -EKEYREJECTED when the check value is
 * wrong. */
int aes_unwrap(const uint8_t *kek, size_t kek_len, const uint8_t *wrapped, size_t len,
               uint8_t *out);

#endif
