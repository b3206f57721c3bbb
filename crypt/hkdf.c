/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypt/hkdf.h"
#include "base/scope.h"
#include "crypt/secret.h"
#include <assert.h>
#include <errno.h>
#include <gcrypt.h>
#include <string.h>

static void
mac_closep(gcry_mac_hd_t *h)
{
    gcry_mac_close(*h);
}

int
hmac_open(gcry_mac_hd_t *out, const void *key, size_t key_len)
{
    AUTO(mac_closep) gcry_mac_hd_t h = NULL;

    if (gcry_mac_open(&h, GCRY_MAC_HMAC_SHA256, GCRY_MAC_FLAG_SECURE, NULL) ||
        gcry_mac_setkey(h, key, key_len))
        return -ENOMEM;
    *out = steal(&h);
    return 0;
}

int
hmac_with(gcry_mac_hd_t h, const struct iovec *iov, int n, uint8_t mac[HKDF_HASH])
{
    size_t mac_len = HKDF_HASH;

    if (gcry_mac_reset(h))
        return -EIO;
    for (int i = 0; i < n; i++) {
        if (gcry_mac_write(h, iov[i].iov_base, iov[i].iov_len))
            return -EIO;
    }
    return gcry_mac_read(h, mac, &mac_len) || mac_len != HKDF_HASH ? -EIO : 0;
}

int
hmac_sha256(const void *key, size_t key_len, const struct iovec *iov, int n, uint8_t mac[HKDF_HASH])
{
    AUTO(mac_closep) gcry_mac_hd_t h = NULL;
    int r = hmac_open(&h, key, key_len);

    return r < 0 ? r : hmac_with(h, iov, n, mac);
}

static struct iovec
piece(const void *p, size_t len)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)p, .iov_len = len};
}

int
hkdf_sha256(const void *ikm, size_t ikm_len, const void *salt, size_t salt_len, const void *info,
            size_t info_len, uint8_t *out, size_t out_len)
{
    static const uint8_t no_salt[HKDF_HASH];
    AUTO(secret_freep) struct secret *prk = NULL, *t = NULL;
    struct iovec in = piece(ikm, ikm_len);
    int r;

    assert(out_len <= HKDF_MAX);
    if ((r = secret_new(&prk, HKDF_HASH)) < 0 || (r = secret_new(&t, HKDF_HASH)) < 0)
        return r;
    if (salt_len == 0)
        r = hmac_sha256(no_salt, sizeof no_salt, &in, 1, prk->bytes);
    else
        r = hmac_sha256(salt, salt_len, &in, 1, prk->bytes);
    for (size_t i = 0, done = 0; r == 0 && done < out_len; i++) {
        uint8_t counter = (uint8_t)(i + 1);
        struct iovec iov[] = {piece(t->bytes, i ? HKDF_HASH : 0), piece(info, info_len),
                              piece(&counter, 1)};
        size_t n = out_len - done < HKDF_HASH ? out_len - done : HKDF_HASH;

        r = hmac_sha256(prk->bytes, HKDF_HASH, iov, 3, t->bytes);
        memcpy(out + done, t->bytes, n);
        done += n;
    }
    return r;
}
