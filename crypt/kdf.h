/* SPDX-License-Identifier: BSD-3-Clause */
/* kdf.h - Argon2id (RFC 9106): what a passphrase costs to try. */
#ifndef VNVRAM_CRYPT_KDF_H
#define VNVRAM_CRYPT_KDF_H

#include "crypt/secret.h"
#include <stdbool.h>
#include <stdint.h>

struct kdf_cost {
    uint32_t memory; /* KiB */
    uint32_t passes;
    uint32_t lanes;
};

/* What a slot may ask for when it is read: a hostile image shall exhaust neither memory nor
 * patience. */
enum {
    KDF_MEMORY_MIN = 32,          /* KiB */
    KDF_MEMORY_MAX = 1024 * 1024, /* KiB: 1 GiB */
    KDF_PASSES_MAX = 1024,
    KDF_LANES_MAX = 4,
};
#define KDF_WORK_MAX (UINT64_C(4) << 20) /* KiB times passes: some 4 s on a slow machine */

bool kdf_cost_ok(const struct kdf_cost *cost);

/* @out_len bytes at @out, which should be secure memory.  @ad and @secret may be empty; they are
 * there for RFC 9106's vector.  0, -ENOMEM, or -EINVAL for a cost that the library refuses. */
struct kdf_extra {
    const void *secret, *ad;
    size_t secret_len, ad_len;
};
int kdf_argon2id(const struct secret *passphrase, const uint8_t *salt, size_t salt_len,
                 const struct kdf_cost *cost, const struct kdf_extra *extra, uint8_t *out,
                 size_t out_len);

/* 64 MiB, 3 passes, a lane per processor. */
struct kdf_cost kdf_default_cost(void);
/* Finds a cost of about half a second on this machine, from 64 to 256 MiB, no more than a quarter
 * of its memory where that is more than 64 MiB. */
int kdf_benchmark(struct kdf_cost *cost);

#endif
