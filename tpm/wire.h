/* SPDX-License-Identifier: BSD-3-Clause */
/* wire.h - the control channel as QEMU and swtpm_ioctl speak it: requests and replies on a stream,
 * all integers big-endian.  A request is a u32 code and a body, whose size only the code, and for
 * some a length within, tells.  Pure facts: no I/O, no state, no locks. */
#ifndef VNVRAM_TPM_WIRE_H
#define VNVRAM_TPM_WIRE_H

#include <stddef.h>
#include <stdint.h>

enum wire_code {
    WIRE_GET_CAPABILITY = 1,
    WIRE_INIT,
    WIRE_SHUTDOWN,
    WIRE_GET_ESTABLISHED,
    WIRE_SET_LOCALITY,
    WIRE_HASH_START,
    WIRE_HASH_DATA,
    WIRE_HASH_END,
    WIRE_CANCEL,
    WIRE_STORE_VOLATILE,
    WIRE_RESET_ESTABLISHED,
    WIRE_GET_STATEBLOB,
    WIRE_SET_STATEBLOB,
    WIRE_STOP,
    WIRE_GET_CONFIG,
    WIRE_SET_DATAFD,
    WIRE_SET_BUFFERSIZE,
    WIRE_GET_INFO,
    WIRE_LOCK_STORAGE,
};

enum wire_result {
    WIRE_OK = 0,
    WIRE_BAD_BODY = 0x03,
    WIRE_FAIL = 0x09,        /* what a TPM 1.2 says to anything that it cannot do */
    WIRE_WRONG_STATE = 0x0a, /* or an unknown code */
    WIRE_IO_ERROR = 0x1f,
    WIRE_BAD_LOCALITY = 0x3d,
    WIRE_NO_BLOB = 0x800,
};

enum {
    WIRE_HEAD = 4,               /* the code */
    WIRE_CAPABILITIES = 0x17fff, /* all codes of the table; not "the header comes by itself" */
    WIRE_CAPABILITY_CANCEL = 0x20,
    WIRE_DELETE_VOLATILE = 1, /* a flag of INIT */
    WIRE_STATE_ENCRYPTED = 2, /* a flag of SET_STATEBLOB */
    WIRE_LOCALITIES = 5,
    WIRE_BODY_MAX = 4 << 20,
};

/* The size of the request of which @buf holds the first @len bytes; 0: it takes more bytes to tell.
 * An unknown code has no body. */
uint64_t wire_size(const uint8_t *buf, size_t len);

/* Some clients send the one byte of a locality in a body of four.  Of @len bytes that follow such a
 * request: how many to drop, or -1: it takes more bytes to tell. */
int wire_padding(const uint8_t *buf, size_t len);

#endif
