/* SPDX-License-Identifier: BSD-3-Clause */
/* state.h - what a TPM's state consists of: the files' names, and whose state a blob is. */
#ifndef VNVRAM_SWTPM_STATE_H
#define VNVRAM_SWTPM_STATE_H

#include "tpm/process.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum swtpm_item { SWTPM_PERMALL, SWTPM_VOLATILE, SWTPM_SAVESTATE, SWTPM_ITEMS };

/* "tpm2-00.permall"; static. */
const char *swtpm_state_name(enum tpm_version version, enum swtpm_item item);
/* False for any other file. */
bool swtpm_state_by_name(const char *name, enum tpm_version *version, enum swtpm_item *item);

/* By its first bytes, which libtpms writes; NONE when they are neither's, and for every saved
 * state: those have no such bytes. */
enum tpm_version swtpm_state_version(const uint8_t *blob, size_t len, enum swtpm_item item);

#endif
