/* SPDX-License-Identifier: BSD-3-Clause */
/* tpmroom.h - how large the permanent state of libtpms' TPMs can grow, with swtpm's envelope. */
#ifndef VNVRAM_CLI_TPMROOM_H
#define VNVRAM_CLI_TPMROOM_H

#include "tpm/process.h"
#include <stdint.h>

static inline uint32_t
tpm_room(enum tpm_version version)
{
    return version == TPM_VERSION_1_2 ? 60000 : 180000;
}

#endif
