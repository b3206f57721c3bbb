/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypt/keys.h"
#include <errno.h>
#include <gcrypt.h>
#include <string.h>

static int
plain_new_iv(struct sealer *s, uint8_t iv[SEAL_IV_SIZE])
{
    (void)s;
    memset(iv, 0, SEAL_IV_SIZE);
    return 0;
}

static int
plain_encrypt(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *out, size_t padded,
              const void *in, size_t len)
{
    (void)s;
    (void)iv;
    if (in != out && len)
        memcpy(out, in, len);
    memset(out + len, 0, padded - len);
    return 0;
}

static int
plain_decrypt(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *buf, size_t len)
{
    (void)s;
    (void)iv;
    (void)buf;
    (void)len;
    return 0;
}

static int
plain_tag(struct sealer *s, enum seal_purpose purpose, const struct iovec *iov, int n,
          uint8_t tag[SEAL_TAG_SIZE])
{
    gcry_md_hd_t md;

    (void)s;
    (void)purpose;
    if (gcry_md_open(&md, GCRY_MD_SHA256, 0))
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        gcry_md_write(md, iov[i].iov_base, iov[i].iov_len);
    memcpy(tag, gcry_md_read(md, GCRY_MD_SHA256), SEAL_TAG_SIZE);
    gcry_md_close(md);
    return 0;
}

static void
plain_free(struct sealer *s)
{
    (void)s;
}

static const struct sealer_ops plain_ops = {
    .mode = SEAL_NONE,
    .new_iv = plain_new_iv,
    .encrypt = plain_encrypt,
    .decrypt = plain_decrypt,
    .tag = plain_tag,
    .free = plain_free,
};

struct sealer *
sealer_plain(void)
{
    static struct sealer plain = {.ops = &plain_ops};

    return &plain;
}
