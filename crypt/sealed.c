/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypt/sealed.h"
#include "base/bytes.h"
#include "base/scope.h"
#include "crypt/aes.h"
#include "crypt/hkdf.h"
#include <errno.h>
#include <gcrypt.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum { PURPOSES = SEAL_BANK + 1 };

struct sealed {
    struct sealer base;
    struct secret *cipher_key;
    struct secret *mac_key[PURPOSES];
    /* Keyed handles at rest, since to key one takes as long as to seal a page with it.  An
     * operation takes it and puts it back; who finds none, because another thread is at work, opens
     * one. */
    gcry_cipher_hd_t cipher;
    gcry_mac_hd_t mac[PURPOSES];
};

/* NULL: none is there. */
#define take_handle(at) __atomic_exchange_n(at, NULL, __ATOMIC_ACQ_REL)
/* Returns one that is not needed any more, or NULL. */
#define put_handle(at, h) __atomic_exchange_n(at, h, __ATOMIC_ACQ_REL)

static const char *const mac_info[PURPOSES] = {
    [SEAL_SUPERBLOCK] = "vnvram superblock hmac-sha256",
    [SEAL_DIRECTORY] = "vnvram directory hmac-sha256",
    [SEAL_BANK] = "vnvram bank hmac-sha256",
};

static int
sealed_new_iv(struct sealer *s, uint8_t iv[SEAL_IV_SIZE])
{
    (void)s;
    return getrandom(iv, SEAL_IV_SIZE, 0) == SEAL_IV_SIZE ? 0 : -EIO;
}

static int
take_cipher(struct sealed *s, gcry_cipher_hd_t *h)
{
    *h = take_handle(&s->cipher);
    return *h ? 0 : aes_cbc_open(h, s->cipher_key->bytes, s->cipher_key->len);
}

static void
put_cipher(struct sealed *s, gcry_cipher_hd_t h)
{
    gcry_cipher_close(put_handle(&s->cipher, h));
}

static int
sealed_encrypt(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *out, size_t padded,
               const void *in, size_t len)
{
    struct sealed *sealed = (struct sealed *)s;
    gcry_cipher_hd_t h;
    int r = take_cipher(sealed, &h);

    if (r == 0) {
        r = aes_cbc_encrypt_with(h, iv, out, padded, in, len);
        put_cipher(sealed, h);
    }
    return r;
}

static int
sealed_decrypt(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *buf, size_t len)
{
    struct sealed *sealed = (struct sealed *)s;
    gcry_cipher_hd_t h;
    int r = take_cipher(sealed, &h);

    if (r == 0) {
        r = aes_cbc_decrypt_with(h, iv, buf, len);
        put_cipher(sealed, h);
    }
    return r;
}

static int
sealed_tag(struct sealer *s, enum seal_purpose purpose, const struct iovec *iov, int n,
           uint8_t tag[SEAL_TAG_SIZE])
{
    struct sealed *sealed = (struct sealed *)s;
    const struct secret *key = sealed->mac_key[purpose];
    gcry_mac_hd_t h = take_handle(&sealed->mac[purpose]);
    int r = h ? 0 : hmac_open(&h, key->bytes, key->len);

    if (r == 0) {
        r = hmac_with(h, iov, n, tag);
        gcry_mac_close(put_handle(&sealed->mac[purpose], h));
    }
    return r;
}

static void
sealed_free(struct sealer *s)
{
    struct sealed *sealed = (struct sealed *)s;

    gcry_cipher_close(sealed->cipher);
    secret_free(sealed->cipher_key);
    for (int i = 0; i < PURPOSES; i++) {
        gcry_mac_close(sealed->mac[i]);
        secret_free(sealed->mac_key[i]);
    }
    free(sealed);
}

static const struct sealer_ops sealed_ops = {
    .mode = SEAL_AES_CBC_HMAC_SHA256,
    .new_iv = sealed_new_iv,
    .encrypt = sealed_encrypt,
    .decrypt = sealed_decrypt,
    .tag = sealed_tag,
    .free = sealed_free,
};

static int
derive(struct secret **out, size_t len, const struct secret *volume_key, const uint8_t *salt,
       size_t salt_len, const char *info)
{
    int r = secret_new(out, len);

    if (r < 0)
        return r;
    return hkdf_sha256(volume_key->bytes, volume_key->len, salt, salt_len, info, strlen(info),
                       (*out)->bytes, len);
}

static void
sealed_freep(struct sealed **s)
{
    if (*s)
        sealed_free(&(*s)->base);
}

int
sealer_sealed_new(struct sealer **out, const struct secret *volume_key,
                  const uint8_t uuid[UUID_SIZE], uint32_t key_epoch, size_t key_size)
{
    AUTO(sealed_freep) struct sealed *s = calloc(1, sizeof *s);
    uint8_t salt[UUID_SIZE + 4];
    char info[32];
    int r;

    if (!s)
        return -ENOMEM;
    s->base.ops = &sealed_ops;
    memcpy(salt, uuid, UUID_SIZE);
    store_le32(salt + UUID_SIZE, key_epoch);
    snprintf(info, sizeof info, "vnvram bank aes-%zu-cbc", key_size * 8);
    r = derive(&s->cipher_key, key_size, volume_key, salt, sizeof salt, info);
    for (int i = 0; r == 0 && i < PURPOSES; i++)
        r = derive(&s->mac_key[i], HKDF_HASH, volume_key, salt, sizeof salt, mac_info[i]);
    if (r == 0)
        *out = &steal(&s)->base;
    return r;
}
