/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/wire.h"
#include "base/bytes.h"

enum { PAD = 3 };

/* Without what a length in it adds. */
static size_t
fixed_body(uint32_t code)
{
    switch (code) {
    case WIRE_SET_LOCALITY:
    case WIRE_RESET_ESTABLISHED:
        return 1;
    case WIRE_INIT:
    case WIRE_HASH_DATA:
    case WIRE_SET_BUFFERSIZE:
    case WIRE_LOCK_STORAGE:
        return 4;
    case WIRE_GET_STATEBLOB:
    case WIRE_SET_STATEBLOB:
        return 12;
    case WIRE_GET_INFO:
        return 16;
    default:
        return 0;
    }
}

uint64_t
wire_size(const uint8_t *buf, size_t len)
{
    uint32_t code;
    size_t fixed;

    if (len < WIRE_HEAD)
        return 0;
    code = load_be32(buf);
    fixed = WIRE_HEAD + fixed_body(code);
    if (code != WIRE_HASH_DATA && code != WIRE_SET_STATEBLOB)
        return fixed;
    return len < fixed ? 0 : (uint64_t)fixed + load_be32(buf + fixed - 4);
}

/* Padding is zero from QEMU's SET_LOCALITY and anything from its RESET_ESTABLISHED, but always
 * comes in one piece with the locality; a code starts with three zeros and does not end with one.
 */
int
wire_padding(const uint8_t *buf, size_t len)
{
    if (len < PAD)
        return -1;
    if (!bytes_are_zero(buf, PAD))
        return PAD;
    if (len == PAD)
        return -1;
    return buf[PAD] == 0 ? PAD : 0;
}
