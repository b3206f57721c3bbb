/* SPDX-License-Identifier: BSD-3-Clause */
/* sealer.h - what core asks of cryptography: a seam.  crypt/plain.c (SHA-256 digests, no secrecy)
 * and crypt/sealed.c (AES-CBC, then HMAC-SHA-256) implement it.
 *
 * Thread rules: a sealer is immutable after it is made; all operations may run in parallel. */
#ifndef VNVRAM_CORE_SEALER_H
#define VNVRAM_CORE_SEALER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum { SEAL_TAG_SIZE = 32, SEAL_IV_SIZE = 16, SEAL_BLOCK = 16 };
enum seal_mode { SEAL_NONE = 0, SEAL_AES_CBC_HMAC_SHA256 = 1 };
/* Separate keys for separate purposes. */
enum seal_purpose { SEAL_SUPERBLOCK = 0, SEAL_DIRECTORY = 1, SEAL_BANK = 2 };

struct sealer;

struct sealer_ops {
    enum seal_mode mode;
    /* A fresh IV; all zero for SEAL_NONE.  -EIO when there is no randomness: then nothing is
     * written. */
    int (*new_iv)(struct sealer *s, uint8_t iv[SEAL_IV_SIZE]);
    /* @len bytes of @in, and zeros up to @padded, a multiple of SEAL_BLOCK, to @out.  @in is @out,
     * or lies apart from it. */
    int (*encrypt)(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *out, size_t padded,
                   const void *in, size_t len);
    /* In place; @len is a multiple of SEAL_BLOCK. */
    int (*decrypt)(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *buf, size_t len);
    /* HMAC-SHA-256 (or SHA-256) over the concatenation of @iov. */
    int (*tag)(struct sealer *s, enum seal_purpose purpose, const struct iovec *iov, int n,
               uint8_t tag[SEAL_TAG_SIZE]);
    void (*free)(struct sealer *s); /* wipes its keys */
};

/* Embedded as the first member of an implementation. */
struct sealer {
    const struct sealer_ops *ops;
};

/* Constant-time comparison of @tag with the right one: 0, or -EBADMSG (SEAL_NONE: -EUCLEAN). */
int sealer_verify(struct sealer *s, enum seal_purpose purpose, const struct iovec *iov, int n,
                  const uint8_t tag[SEAL_TAG_SIZE]);
void sealer_free(struct sealer *s); /* NULL is fine */
void sealer_freep(struct sealer **s);

#endif
