/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/crc32.h"
#include "base/bytes.h"
#include <assert.h>
#include <gcrypt.h>
#include <stdlib.h>

uint32_t
crc32_of(const void *buf, size_t len)
{
    uint8_t md[4];

    gcry_md_hash_buffer(GCRY_MD_CRC32, md, buf, len);
    return load_be32(md);
}

uint32_t
crc32_with_hole(const uint8_t *buf, size_t len, size_t hole)
{
    static uint8_t zero[4];
    gcry_buffer_t iov[3] = {
        {.data = (void *)(uintptr_t)buf, .len = hole},
        {.data = zero, .len = sizeof zero},
        {.data = (void *)(uintptr_t)(buf + hole + 4), .len = len - hole - 4},
    };
    uint8_t md[4];

    assert(len >= 4 && hole <= len - 4);
    if (gcry_md_hash_buffers(GCRY_MD_CRC32, 0, md, iov, 3))
        abort(); /* only for a library without CRC32, which crypt_init() has ruled out */
    return load_be32(md);
}
