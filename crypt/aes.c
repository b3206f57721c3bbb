/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypt/aes.h"
#include "base/scope.h"
#include <errno.h>
#include <gcrypt.h>
#include <string.h>

static void
cipher_closep(gcry_cipher_hd_t *h)
{
    gcry_cipher_close(*h);
}

static int
open_aes(gcry_cipher_hd_t *h, int mode, const uint8_t *key, size_t key_len)
{
    int algo = key_len == 16   ? GCRY_CIPHER_AES128
               : key_len == 24 ? GCRY_CIPHER_AES192
                               : GCRY_CIPHER_AES256;

    if (!aes_key_size_ok(key_len))
        return -EINVAL;
    if (gcry_cipher_open(h, algo, mode, GCRY_CIPHER_SECURE) || gcry_cipher_setkey(*h, key, key_len))
        return -ENOMEM;
    return 0;
}

int
aes_cbc_open(gcry_cipher_hd_t *out, const uint8_t *key, size_t key_len)
{
    AUTO(cipher_closep) gcry_cipher_hd_t h = NULL;
    int r = open_aes(&h, GCRY_CIPHER_MODE_CBC, key, key_len);

    if (r == 0)
        *out = steal(&h);
    return r;
}

/* What is not a whole block is copied, and it alone. */
int
aes_cbc_encrypt_with(gcry_cipher_hd_t h, const uint8_t iv[AES_BLOCK], uint8_t *out, size_t padded,
                     const void *in, size_t len)
{
    size_t whole = len / AES_BLOCK * AES_BLOCK, rest = len - whole;

    if (gcry_cipher_setiv(h, iv, AES_BLOCK) ||
        (whole && gcry_cipher_encrypt(h, out, whole, in, whole)))
        return -EIO;
    if (whole == padded)
        return 0;
    if (rest && in != out)
        memcpy(out + whole, (const uint8_t *)in + whole, rest);
    memset(out + len, 0, padded - len);
    return gcry_cipher_encrypt(h, out + whole, padded - whole, NULL, 0) ? -EIO : 0;
}

int
aes_cbc_decrypt_with(gcry_cipher_hd_t h, const uint8_t iv[AES_BLOCK], uint8_t *buf, size_t len)
{
    return gcry_cipher_setiv(h, iv, AES_BLOCK) || gcry_cipher_decrypt(h, buf, len, NULL, 0) ? -EIO
                                                                                            : 0;
}

int
aes_cbc_encrypt(const uint8_t *key, size_t key_len, const uint8_t iv[AES_BLOCK], uint8_t *buf,
                size_t len)
{
    AUTO(cipher_closep) gcry_cipher_hd_t h = NULL;
    int r = aes_cbc_open(&h, key, key_len);

    return r < 0 ? r : aes_cbc_encrypt_with(h, iv, buf, len, buf, len);
}

int
aes_cbc_decrypt(const uint8_t *key, size_t key_len, const uint8_t iv[AES_BLOCK], uint8_t *buf,
                size_t len)
{
    AUTO(cipher_closep) gcry_cipher_hd_t h = NULL;
    int r = aes_cbc_open(&h, key, key_len);

    return r < 0 ? r : aes_cbc_decrypt_with(h, iv, buf, len);
}

int
aes_wrap(const uint8_t *kek, size_t kek_len, const uint8_t *plain, size_t len, uint8_t *out)
{
    AUTO(cipher_closep) gcry_cipher_hd_t h = NULL;
    int r = open_aes(&h, GCRY_CIPHER_MODE_AESWRAP, kek, kek_len);

    if (r < 0)
        return r;
    return gcry_cipher_encrypt(h, out, len + WRAP_EXTRA, plain, len) ? -EIO : 0;
}

int
aes_unwrap(const uint8_t *kek, size_t kek_len, const uint8_t *wrapped, size_t len, uint8_t *out)
{
    AUTO(cipher_closep) gcry_cipher_hd_t h = NULL;
    int r = open_aes(&h, GCRY_CIPHER_MODE_AESWRAP, kek, kek_len);

    if (r < 0)
        return r;
    return gcry_cipher_decrypt(h, out, len - WRAP_EXTRA, wrapped, len) ? -EKEYREJECTED : 0;
}
