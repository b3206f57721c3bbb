/* SPDX-License-Identifier: BSD-3-Clause */
/* linear.h - swtpm's one file for all of a TPM's state (its backend file://): a header of 192
 * bytes, little-endian, then each blob in a section of a power of two.  Pure translation.
 *
 *   0  8  magic "nilmptws"     8  1  version 1     9  1  zero     10  2  header's size
 *  12     15 entries of offset, length, room (4 bytes each; offset 0: none), the first three being
 *         the permanent, the volatile and the saved state */
#ifndef VNVRAM_SWTPM_LINEAR_H
#define VNVRAM_SWTPM_LINEAR_H

#include "swtpm/state.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SWTPM_LINEAR_HEADER = 192 };

struct swtpm_linear {
    struct {
        uint32_t off, len, room; /* .off 0: there is none */
    } items[SWTPM_ITEMS];
};

/* Whether it is one: the magic is there. */
bool swtpm_linear_probe(const uint8_t *buf, size_t len);

/* Reads the header of a file of @size bytes, the first @len of which are at @buf (as many as there
 * are, up to SWTPM_LINEAR_HEADER).  Reported, calling it @name:
 *   -ENODATA          it holds no state: all zero, or never written to
 *   -EMEDIUMTYPE      no such file
 *   -ERANGE           truncated: an item lies past its end
 *   -EUCLEAN          damaged
 *   -EPROTONOSUPPORT  a newer version, or the states of several TPMs */
int swtpm_linear_decode(struct swtpm_linear *l, const uint8_t *buf, size_t len, uint64_t size,
                        const char *name);

/* Lays out items of .len bytes each (0: none), as swtpm does one after the other, and returns the
 * size of the file; 0 when it would be too large. */
uint64_t swtpm_linear_layout(struct swtpm_linear *l);
void swtpm_linear_encode(const struct swtpm_linear *l, uint8_t out[SWTPM_LINEAR_HEADER]);

#endif
