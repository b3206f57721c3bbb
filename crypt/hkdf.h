/* SPDX-License-Identifier: BSD-3-Clause */
/* hkdf.h - RFC 5869 with SHA-256, which libgcrypt 1.10 has no function for, and the HMAC beneath
 * it. */
#ifndef VNVRAM_CRYPT_HKDF_H
#define VNVRAM_CRYPT_HKDF_H

#include <gcrypt.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum { HKDF_HASH = 32, HKDF_MAX = 255 * HKDF_HASH };

/* HMAC-SHA-256 over the concatenation of @n pieces.  Key schedule in secure memory.  0 or -ENOMEM.
 */
int hmac_sha256(const void *key, size_t key_len, const struct iovec *iov, int n,
                uint8_t mac[HKDF_HASH]);

/* The same with a handle that stays keyed; gcry_mac_close() it.  One operation at a time. */
int hmac_open(gcry_mac_hd_t *out, const void *key, size_t key_len);
int hmac_with(gcry_mac_hd_t h, const struct iovec *iov, int n, uint8_t mac[HKDF_HASH]);

/* @out_len bytes, at most HKDF_MAX.  @out should be secure memory.  0 or -ENOMEM. */
int hkdf_sha256(const void *ikm, size_t ikm_len, const void *salt, size_t salt_len,
                const void *info, size_t info_len, uint8_t *out, size_t out_len);

#endif
