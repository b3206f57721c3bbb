/* SPDX-License-Identifier: BSD-3-Clause */
/* recovery.h - recovery keys: 128 random bits as eight groups of six digits, to be read aloud and
 * typed.  Each group is 16 bits times 11, so that a wrong or a swapped digit shows at once. */
#ifndef VNVRAM_CRYPT_RECOVERY_H
#define VNVRAM_CRYPT_RECOVERY_H

#include "crypt/secret.h"

enum {
    RECOVERY_SIZE = 16,
    RECOVERY_GROUPS = 8,
    RECOVERY_TEXT = RECOVERY_GROUPS * 7 /* with the NUL */
};

/* "123456-..." into @text, a secret of RECOVERY_TEXT bytes; @key has RECOVERY_SIZE. */
void recovery_format(const struct secret *key, struct secret *text);
/* 48 digits, whatever spaces and dashes lie between them.  0; -ENOENT when @text is something else;
 * -EINVAL when group *@group (from 1) is mistyped. */
int recovery_parse(struct secret **key, const struct secret *text, unsigned *group);

#endif
