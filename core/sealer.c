/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/sealer.h"
#include <errno.h>

int
sealer_verify(struct sealer *s, enum seal_purpose purpose, const struct iovec *iov, int n,
              const uint8_t tag[SEAL_TAG_SIZE])
{
    uint8_t right[SEAL_TAG_SIZE], diff = 0;
    int r = s->ops->tag(s, purpose, iov, n, right);

    if (r < 0)
        return r;
    for (int i = 0; i < SEAL_TAG_SIZE; i++) /* always all of it: no timing to learn from */
        diff |= right[i] ^ tag[i];
    if (diff == 0)
        return 0;
    return s->ops->mode == SEAL_NONE ? -EUCLEAN : -EBADMSG;
}

void
sealer_free(struct sealer *s)
{
    if (s)
        s->ops->free(s);
}

void
sealer_freep(struct sealer **s)
{
    sealer_free(*s);
}
