/* SPDX-License-Identifier: BSD-3-Clause */
/* crc32.h - CRC-32 as in IEEE 802.3 and zlib (reflected, polynomial 0x04c11db7), from libgcrypt. */
#ifndef VNVRAM_BASE_CRC32_H
#define VNVRAM_BASE_CRC32_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32_of(const void *buf, size_t len);

/* CRC of @len bytes at @buf with the four bytes at @hole taken as zero: how every structure of the
 * image carries its own CRC.  @hole + 4 <= len. */
uint32_t crc32_with_hole(const uint8_t *buf, size_t len, size_t hole);

#endif
