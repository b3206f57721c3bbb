/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypt/keys.h"
#include "base/report.h"
#include <errno.h>

int
keys_unlock(void *arg, const struct superblock *sb, struct sealer **out)
{
    const struct key_options *opt = arg;
    bool given = opt && opt->given;

    if (sb->seal_mode == SEAL_NONE) {
        if (given)
            return report(-EKEYREVOKED, "a key was given, but the image is not sealed");
        *out = sealer_plain();
        return 0;
    }
    if (!given)
        return report(-ENOKEY, "the image is sealed: give its key (-o key_file=, key_fd= or "
                               "key_format=passphrase)");
    return report(-EPROTONOSUPPORT, "seal mode %u is not supported", sb->seal_mode);
}

int
keys_new_volume(const struct key_options *opt, const uint8_t uuid[UUID_SIZE],
                uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE], uint8_t *key_size,
                struct sealer **out)
{
    (void)opt;
    (void)uuid;
    (void)keyslots;
    (void)key_size;
    (void)out;
    return report(-EPROTONOSUPPORT, "sealing is not supported");
}
