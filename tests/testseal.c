/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/testseal.h"
#include "base/bytes.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 4, STEP = LANES * 8 };

struct testseal {
    struct sealer sealer;
    uint64_t key, ivs;
};

/* ---- tags --------------------------------------------------------------------------------------
 */

struct mixer {
    uint64_t lane[LANES];
    uint8_t rest[STEP];
    size_t n_rest;
    uint64_t total;
};

static uint64_t
mix(uint64_t h, uint64_t w)
{
    h = (h ^ w) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

static void
mixer_step(struct mixer *m, const uint8_t *p)
{
    for (int i = 0; i < LANES; i++) {
        uint64_t w;

        memcpy(&w, p + i * 8, 8); /* host order will do: tags do not leave the process */
        m->lane[i] = mix(m->lane[i], w);
    }
}

static void
mixer_add(struct mixer *m, const uint8_t *p, size_t n)
{
    m->total += n;
    if (m->n_rest) {
        size_t k = n < STEP - m->n_rest ? n : STEP - m->n_rest;

        memcpy(m->rest + m->n_rest, p, k);
        m->n_rest += k;
        p += k;
        n -= k;
        if (m->n_rest < STEP)
            return;
        mixer_step(m, m->rest);
    }
    for (; n >= STEP; n -= STEP, p += STEP)
        mixer_step(m, p);
    memcpy(m->rest, p, n);
    m->n_rest = n;
}

static void
mixer_end(struct mixer *m, uint8_t tag[SEAL_TAG_SIZE])
{
    memset(m->rest + m->n_rest, 0, STEP - m->n_rest);
    mixer_step(m, m->rest);
    for (int round = 0; round < 2 * LANES; round++)
        m->lane[round % LANES] =
            mix(m->lane[round % LANES], m->lane[(round + 1) % LANES] + m->total);
    for (int i = 0; i < LANES; i++)
        store_le64(tag + 8 * i, m->lane[i]);
}

static int
test_tag(struct sealer *s, enum seal_purpose purpose, const struct iovec *iov, int n,
         uint8_t tag[SEAL_TAG_SIZE])
{
    struct mixer m = {.n_rest = 0};

    for (int i = 0; i < LANES; i++)
        m.lane[i] = mix(((struct testseal *)s)->key + (uint64_t)i, (uint64_t)purpose + 1);
    for (int i = 0; i < n; i++)
        mixer_add(&m, iov[i].iov_base, iov[i].iov_len);
    mixer_end(&m, tag);
    return 0;
}

/* ---- scrambling --------------------------------------------------------------------------------
 */

static int
plain_new_iv(struct sealer *s, uint8_t iv[SEAL_IV_SIZE])
{
    (void)s;
    memset(iv, 0, SEAL_IV_SIZE);
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
keyed_new_iv(struct sealer *s, uint8_t iv[SEAL_IV_SIZE])
{
    struct testseal *t = (struct testseal *)s;

    store_le64(iv, ++t->ivs);
    store_le64(iv + 8, t->key);
    return 0;
}

/* Its own inverse. */
static int
keyed_decrypt(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *buf, size_t len)
{
    uint64_t stream = mix(((struct testseal *)s)->key, load_le64(iv));

    for (size_t i = 0; i < len; i += 8) {
        stream = mix(stream, i);
        store_le64(buf + i, load_le64(buf + i) ^ stream);
    }
    return 0;
}

static int
plain_encrypt(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *out, size_t padded,
              const void *in, size_t len)
{
    (void)s, (void)iv;
    if (in != out && len)
        memcpy(out, in, len);
    memset(out + len, 0, padded - len);
    return 0;
}

static int
keyed_encrypt(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *out, size_t padded,
              const void *in, size_t len)
{
    plain_encrypt(s, iv, out, padded, in, len);
    return keyed_decrypt(s, iv, out, padded);
}

static void
plain_free(struct sealer *s)
{
    (void)s;
}

static void
keyed_free(struct sealer *s)
{
    free(s);
}

static const struct sealer_ops plain_ops = {
    .mode = SEAL_NONE,
    .new_iv = plain_new_iv,
    .encrypt = plain_encrypt,
    .decrypt = plain_decrypt,
    .tag = test_tag,
    .free = plain_free,
};

static const struct sealer_ops keyed_ops = {
    .mode = SEAL_AES_CBC_HMAC_SHA256,
    .new_iv = keyed_new_iv,
    .encrypt = keyed_encrypt,
    .decrypt = keyed_decrypt,
    .tag = test_tag,
    .free = keyed_free,
};

struct sealer *
testseal_plain(void)
{
    static struct testseal plain = {.sealer = {.ops = &plain_ops}};

    return &plain.sealer;
}

struct sealer *
testseal_keyed(uint64_t key)
{
    struct testseal *t = calloc(1, sizeof *t);

    if (!t)
        abort();
    t->sealer.ops = &keyed_ops;
    t->key = key;
    return &t->sealer;
}

void
testseal_keyslots(uint64_t volume, uint64_t user, uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE])
{
    memset(keyslots, 0, (size_t)KEYSLOT_COUNT * KEYSLOT_SIZE);
    store_le64(keyslots[0], volume);
    store_le64(keyslots[0] + 8, user);
}

int
testseal_unlock(void *arg, const struct superblock *sb, struct sealer **out)
{
    const uint64_t *user = arg;

    if (sb->seal_mode == SEAL_NONE) {
        if (user)
            return -EKEYREVOKED;
        *out = testseal_plain();
        return 0;
    }
    if (!user)
        return -ENOKEY;
    if (load_le64(sb->keyslots[0] + 8) != *user)
        return -EKEYREJECTED;
    *out = testseal_keyed(load_le64(sb->keyslots[0]));
    return 0;
}
