/* SPDX-License-Identifier: BSD-3-Clause */
/* secret.h - keys and passphrases: bytes in libgcrypt's secure memory, wiped when they are freed.
 *
 * The pool is locked into RAM (memory locks do not pass a fork, so each process locks it again
 * before its first secret) and excluded from core dumps. */
#ifndef VNVRAM_CRYPT_SECRET_H
#define VNVRAM_CRYPT_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct secret {
    size_t len;
    uint8_t bytes[];
};

/* crypt_init() calls it once, before any other use of libgcrypt. */
void secret_pool_init(void);
/* From now on a forked child finds the pool zeroed, and must not use libgcrypt's secure memory. */
void secret_pool_wipe_in_children(void);

/* For work that takes @len bytes of scratch memory outside of the pool (Argon2id): locks all of the
 * process's memory meanwhile, where it may lock so much; false where it may not.  Pass the answer
 * on to the second. */
bool secret_lock_all(size_t len);
void secret_unlock_all(bool locked);

/* @len zero bytes.  -EPERM when the pool cannot be locked (reported, with the remedy) or -ENOMEM
 * when it is full (reported). */
int secret_new(struct secret **out, size_t len);
int secret_copy(struct secret **out, const void *bytes, size_t len);
/* From libgcrypt's strong generator. */
int secret_random(struct secret **out, size_t len);
bool secret_equal(const struct secret *a,
                  const struct secret *b); /* in constant time, lengths aside */
void secret_free(struct secret *s);        /* NULL is fine */
void secret_freep(struct secret **s);

#endif
