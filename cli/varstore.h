/* SPDX-License-Identifier: BSD-3-Clause */
/* varstore.h - what a UEFI variable store (OVMF_VARS and the like) says of itself: the firmware
 * volume around it and how many variables are in it.  Pure: no I/O, no state, no locks. */
#ifndef VNVRAM_CLI_VARSTORE_H
#define VNVRAM_CLI_VARSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct varstore {
    uint64_t volume; /* bytes of the firmware volume, within the blob */
    unsigned revision;
    uint32_t size, used; /* of the variable store in it, its header and deleted ones included */
    unsigned variables, deleted;
    bool authenticated; /* variables that only their owner may change can be held */
    bool whole;         /* all of its list could be read */
};

/* Reads @len untrusted bytes: 0, -ENODATA when it is no firmware volume with variables, or -EUCLEAN
 * when it is a damaged one.  Reports nothing. */
int varstore_read(struct varstore *v, const uint8_t *buf, size_t len);

#endif
