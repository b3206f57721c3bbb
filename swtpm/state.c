/* SPDX-License-Identifier: BSD-3-Clause */
#include "swtpm/state.h"
#include "base/bytes.h"
#include <string.h>

static const char *const names_20[SWTPM_ITEMS] = {
    [SWTPM_PERMALL] = "tpm2-00.permall",
    [SWTPM_VOLATILE] = "tpm2-00.volatilestate",
    [SWTPM_SAVESTATE] = "tpm2-00.savestate",
};
static const char *const names_12[SWTPM_ITEMS] = {
    [SWTPM_PERMALL] = "tpm-00.permall",
    [SWTPM_VOLATILE] = "tpm-00.volatilestate",
    [SWTPM_SAVESTATE] = "tpm-00.savestate",
};

const char *
swtpm_state_name(enum tpm_version version, enum swtpm_item item)
{
    return version == TPM_VERSION_1_2 ? names_12[item] : names_20[item];
}

bool
swtpm_state_by_name(const char *name, enum tpm_version *version, enum swtpm_item *item)
{
    for (enum swtpm_item i = 0; i < SWTPM_ITEMS; i++) {
        bool is_20 = strcmp(name, names_20[i]) == 0;

        if (!is_20 && strcmp(name, names_12[i]) != 0)
            continue;
        *version = is_20 ? TPM_VERSION_2_0 : TPM_VERSION_1_2;
        *item = i;
        return true;
    }
    return false;
}

/* libtpms' own: a TPM 2.0's parts start with a version and a magic, a TPM 1.2's with a tag. */
enum { TAG_12 = 0x0001 };
#define MAGIC_20_PERMALL UINT32_C(0xab364723)
#define MAGIC_20_VOLATILE UINT32_C(0x45637889)

enum tpm_version
swtpm_state_version(const uint8_t *blob, size_t len, enum swtpm_item item)
{
    uint32_t magic;

    if (len < 6 || item == SWTPM_SAVESTATE)
        return TPM_VERSION_NONE;
    magic = load_be32(blob + 2);
    if (magic == (item == SWTPM_PERMALL ? MAGIC_20_PERMALL : MAGIC_20_VOLATILE))
        return TPM_VERSION_2_0;
    if (load_be16(blob) == TAG_12 && magic != MAGIC_20_PERMALL && magic != MAGIC_20_VOLATILE)
        return TPM_VERSION_1_2;
    return TPM_VERSION_NONE;
}
