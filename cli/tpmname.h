/* SPDX-License-Identifier: BSD-3-Clause */
/* tpmname.h - which files of an image are a TPM's, by the names that swtpm gave them. */
#ifndef VNVRAM_CLI_TPMNAME_H
#define VNVRAM_CLI_TPMNAME_H

#include <stdbool.h>
#include <string.h>

/* The lock that whoever runs a TPM in a directory holds. */
#define TPM_LOCK_NAME ".lock"

/* State of a TPM: permanent, volatile, saved, a backup or what was about to be one of them. */
static inline bool
name_is_tpm_state(const char *name)
{
    static const char *const beginnings[] = {"tpm2-00.", "tpm-00.", "TMP2-00.", "TMP-00."};

    for (size_t i = 0; i < sizeof beginnings / sizeof beginnings[0]; i++) {
        if (strncmp(name, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    }
    return false;
}

#endif
