/* SPDX-License-Identifier: BSD-3-Clause */
#include "swtpm/blob.h"
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "crypt/aes.h"
#include "crypt/hkdf.h"
#include "tpm/envelope.h"
#include <assert.h>
#include <errno.h>
#include <gcrypt.h>
#include <inttypes.h>
#include <string.h>

enum { HMAC_SIZE = 32, AES256_SIZE = 32, OFF_TOTAL = 6 };

/* A blob is in a layer, and that may be in another. */
struct layer {
    uint16_t tag_plain, tag_encrypted, tag_iv;
    uint16_t flag_encrypted, flag_256;
    const char *option; /* where its key comes from */
};

static const struct layer state_layer = {
    ENVELOPE_TAG_DATA,  ENVELOPE_TAG_ENCRYPTED, ENVELOPE_TAG_IV,
    ENVELOPE_ENCRYPTED, ENVELOPE_KEY_256,       "--swtpm-key",
};
static const struct layer migration_layer = {
    ENVELOPE_TAG_MIGRATION_DATA,  ENVELOPE_TAG_MIGRATION_ENCRYPTED, ENVELOPE_TAG_MIGRATION_IV,
    ENVELOPE_MIGRATION_ENCRYPTED, ENVELOPE_MIGRATION_KEY_256,       "--swtpm-migration-key",
};

/* ---- records ------------------------------------------------------------------------------------
 */

struct record {
    const uint8_t *bytes; /* NULL: there is none */
    uint32_t len;
};

static int
read_records(struct record records[ENVELOPE_TAGS], const uint8_t *p, size_t len, const char *name)
{
    memset(records, 0, ENVELOPE_TAGS * sizeof *records);
    while (len > 0) {
        uint16_t tag;
        uint32_t n;

        if (len < ENVELOPE_RECORD_HEAD)
            return report(-EUCLEAN, "%s: ends within the head of a record", name);
        tag = load_be16(p);
        n = load_be32(p + 2);
        p += ENVELOPE_RECORD_HEAD;
        len -= ENVELOPE_RECORD_HEAD;
        if (n > len)
            return report(-EUCLEAN, "%s: a record of %" PRIu32 " bytes has %zu", name, n, len);
        if (tag == 0 || tag >= ENVELOPE_TAGS)
            return report(-EPROTONOSUPPORT, "%s: has a record of an unknown kind, %u", name, tag);
        if (records[tag].bytes)
            return report(-EUCLEAN, "%s: has two records of the kind %u", name, tag);
        records[tag] = (struct record){p, n};
        p += n;
        len -= n;
    }
    return 0;
}

/* Those that @tags has a bit for may be there, no others. */
static int
check_records(const struct record records[ENVELOPE_TAGS], unsigned tags, const char *name)
{
    for (unsigned tag = 0; tag < ENVELOPE_TAGS; tag++) {
        if (records[tag].bytes && !(tags & 1U << tag))
            return report(-EUCLEAN, "%s: has a record that does not belong there, of the kind %u",
                          name, tag);
    }
    return 0;
}

/* ---- one layer ----------------------------------------------------------------------------------
 */

static int
compute_hmac(const struct secret *key, const struct record *data, const struct record *iv,
             uint8_t mac[HMAC_SIZE])
{
    const struct iovec iov[] = {
        {(void *)(uintptr_t)data->bytes, data->len},
        {(void *)(uintptr_t)iv->bytes, iv->len},
    };

    return hmac_sha256(key->bytes, key->len, iov, iv->bytes ? 2 : 1, mac);
}

static bool
differ(const uint8_t *a, const uint8_t *b, size_t len)
{
    uint8_t any = 0;

    for (size_t i = 0; i < len; i++)
        any |= a[i] ^ b[i];
    return any != 0;
}

static int
check_hmac(const struct layer *l, const struct record records[ENVELOPE_TAGS], const char *name,
           const struct secret *key)
{
    const struct record *mac = &records[ENVELOPE_TAG_HMAC];
    uint8_t right[HMAC_SIZE];
    int r;

    if (!mac->bytes || mac->len != HMAC_SIZE)
        return report(-EUCLEAN, "%s: has no authentication code of %d bytes", name, HMAC_SIZE);
    r = compute_hmac(key, &records[l->tag_encrypted], &records[l->tag_iv], right);
    if (r < 0)
        return report(r, "%s: cannot be verified", name);
    if (differ(right, mac->bytes, HMAC_SIZE))
        return report(-EKEYREJECTED,
                      "%s: wrong key (%s), or changed since swtpm wrote it: its authentication "
                      "code does not fit",
                      name, l->option);
    return 0;
}

/* Takes the padding off. */
static int
unpad(struct vault *v, size_t most, const char *name)
{
    size_t pad = v->bytes[v->len - 1];
    bool wrong = pad == 0 || pad > most || pad > v->len;

    for (size_t i = 1; !wrong && i <= pad; i++)
        wrong = v->bytes[v->len - i] != pad;
    if (wrong)
        return report(-EUCLEAN, "%s: decrypts to a wrong padding", name);
    v->len -= pad;
    return 0;
}

static int
check_shape(const struct layer *l, const struct record records[ENVELOPE_TAGS], const char *name,
            size_t key_len)
{
    const struct record *data = &records[l->tag_encrypted], *iv = &records[l->tag_iv];
    int r = check_records(records,
                          1U << l->tag_encrypted | 1U << l->tag_iv | 1U << ENVELOPE_TAG_HMAC, name);

    if (r < 0)
        return r;
    if (!data->bytes || data->len == 0 || data->len % AES_BLOCK != 0)
        return report(-EUCLEAN, "%s: has no encrypted data of whole blocks", name);
    if (iv->bytes && iv->len != key_len)
        return report(-EUCLEAN, "%s: its initial vector has %" PRIu32 " bytes, not %zu", name,
                      iv->len, key_len);
    return 0;
}

static int
decrypt(const struct layer *l, const struct record records[ENVELOPE_TAGS], const char *name,
        const struct secret *key, struct vault **out)
{
    static const uint8_t no_iv[AES_BLOCK];
    const struct record *data = &records[l->tag_encrypted], *iv = &records[l->tag_iv];
    AUTO(vault_freep) struct vault *v = NULL;
    int r = check_hmac(l, records, name, key);

    if (r == 0)
        r = vault_new(&v, data->len, true);
    if (r < 0)
        return r;
    memcpy(v->bytes, data->bytes, data->len);
    /* The first swtpms used no initial vector; of a longer one AES takes the first block. */
    r = aes_cbc_decrypt(key->bytes, key->len, iv->bytes ? iv->bytes : no_iv, v->bytes, v->len);
    if (r < 0)
        return report(r, "%s: cannot be decrypted", name);
    r = unpad(v, key->len, name);
    if (r == 0)
        *out = steal(&v);
    return r;
}

static int
copy_plain(const struct layer *l, const struct record records[ENVELOPE_TAGS], const char *name,
           struct vault **out)
{
    const struct record *data = &records[l->tag_plain];
    int r = check_records(records, 1U << l->tag_plain, name);

    if (r == 0 && !data->bytes)
        r = report(-EUCLEAN, "%s: holds no data", name);
    if (r == 0)
        r = vault_new(out, data->len, true);
    if (r == 0)
        memcpy((*out)->bytes, data->bytes, data->len);
    return r;
}

static int
open_layer(const struct layer *l, const uint8_t *p, size_t len, uint16_t flags, const char *name,
           const struct secret *key, struct vault **out)
{
    struct record records[ENVELOPE_TAGS];
    size_t key_len = flags & l->flag_256 ? AES256_SIZE : AES256_SIZE / 2;
    int r = read_records(records, p, len, name);

    if (r < 0)
        return r;
    if (!(flags & l->flag_encrypted))
        return copy_plain(l, records, name, out);
    r = check_shape(l, records, name, key_len);
    if (r < 0)
        return r;
    if (!key)
        return report(-ENOKEY, "%s: is encrypted by swtpm: give its key with %s", name, l->option);
    if (key->len != key_len)
        return report(-EKEYREJECTED,
                      "%s: is encrypted with a key of %zu bits, and that of %s has %zu: see mode=",
                      name, key_len * 8, l->option, key->len * 8);
    return decrypt(l, records, name, key, out);
}

/* ---- all of them --------------------------------------------------------------------------------
 */

static int
check_flags(uint16_t flags, const char *name)
{
    const bool key = flags & ENVELOPE_ENCRYPTED, key_256 = flags & ENVELOPE_KEY_256;
    const bool mig = flags & ENVELOPE_MIGRATION_ENCRYPTED;
    const bool mig_256 = flags & ENVELOPE_MIGRATION_KEY_256;

    if (flags & ~ENVELOPE_FLAGS)
        return report(-EPROTONOSUPPORT, "%s: unknown flags 0x%x in its header", name, flags);
    if ((key_256 && !key) || (mig_256 && !mig) || (mig && !(flags & ENVELOPE_MIGRATION_DATA)))
        return report(-EUCLEAN, "%s: the flags 0x%x in its header contradict each other", name,
                      flags);
    return 0;
}

static int
read_header(const uint8_t *raw, size_t len, const char *name, uint16_t *flags)
{
    int r;

    if (len >= ENVELOPE_HEADER && load_be32(raw + OFF_TOTAL) > len &&
        load_be16(raw + 2) == ENVELOPE_HEADER)
        return report(-ERANGE, "%s: is truncated: %zu bytes of %" PRIu32, name, len,
                      load_be32(raw + OFF_TOTAL));
    if (len < ENVELOPE_HEADER)
        return report(-ERANGE, "%s: %zu bytes are too few for a TPM's state", name, len);
    if (load_be16(raw + 2) != ENVELOPE_HEADER)
        return report(-EMEDIUMTYPE, "%s: is no TPM's state of swtpm", name);
    r = envelope_decode_header(raw, len, name, flags);
    return r < 0 ? r : check_flags(*flags, name);
}

/* Data that no key vouches for may be anybody's. */
static int
check_keys_used(uint16_t flags, const char *name, const struct swtpm_keys *keys)
{
    const bool encrypted = flags & (ENVELOPE_ENCRYPTED | ENVELOPE_MIGRATION_ENCRYPTED);
    const bool migration = flags & ENVELOPE_MIGRATION_DATA;

    if (encrypted || !(keys->state || (migration && keys->migration)))
        return 0;
    return report(-EKEYREVOKED,
                  "%s: a key was given, but it is not encrypted: somebody may have replaced it; if "
                  "it is right, leave out the key",
                  name);
}

int
swtpm_blob_open(const uint8_t *raw, size_t len, const char *name, const struct swtpm_keys *keys,
                struct vault **blob)
{
    AUTO(vault_freep) struct vault *inner = NULL, *out = NULL;
    uint16_t flags;
    int r = read_header(raw, len, name, &flags);

    if (r == 0)
        r = check_keys_used(flags, name, keys);
    if (r < 0)
        return r;
    raw += ENVELOPE_HEADER;
    len -= ENVELOPE_HEADER;
    if (flags & ENVELOPE_MIGRATION_DATA) {
        r = open_layer(&migration_layer, raw, len, flags, name, keys->migration, &inner);
        if (r < 0)
            return r;
        raw = inner->bytes;
        len = inner->len;
    }
    r = open_layer(&state_layer, raw, len, flags, name, keys->state, &out);
    if (r < 0)
        return r;
    if (out->len == 0)
        return report(-EUCLEAN, "%s: holds no data", name);
    *blob = steal(&out);
    return 0;
}

bool
swtpm_blob_is_encrypted(const uint8_t *raw, size_t len)
{
    return len >= ENVELOPE_HEADER && load_be16(raw + 2) == ENVELOPE_HEADER &&
           (load_be16(raw + 4) & (ENVELOPE_ENCRYPTED | ENVELOPE_MIGRATION_ENCRYPTED));
}

/* ---- the other way ------------------------------------------------------------------------------
 */

/* The length of @len bytes within a layer. */
static size_t
sealed_length(size_t len, const struct secret *key)
{
    if (!key)
        return ENVELOPE_RECORD_HEAD + len;
    return 3 * ENVELOPE_RECORD_HEAD + len + (key->len - len % key->len) + HMAC_SIZE + key->len;
}

static uint8_t *
put_head(uint8_t *p, uint16_t tag, size_t len)
{
    envelope_encode_record(p, tag, (uint32_t)len);
    return p + ENVELOPE_RECORD_HEAD;
}

/* In swtpm's order: data, code, initial vector. */
static int
seal_layer(const struct layer *l, const uint8_t *data, size_t len, const struct secret *key,
           uint8_t *p)
{
    size_t pad;
    struct record sealed, iv;
    uint8_t *mac;
    int r;

    if (!key) {
        memcpy(put_head(p, l->tag_plain, len), data, len);
        return 0;
    }
    pad = key->len - len % key->len;
    p = put_head(p, l->tag_encrypted, len + pad);
    memcpy(p, data, len);
    memset(p + len, (int)pad, pad);
    sealed = (struct record){p, (uint32_t)(len + pad)};
    mac = put_head(p + len + pad, ENVELOPE_TAG_HMAC, HMAC_SIZE);
    iv = (struct record){put_head(mac + HMAC_SIZE, l->tag_iv, key->len), (uint32_t)key->len};
    gcry_randomize((uint8_t *)(uintptr_t)iv.bytes, iv.len, GCRY_STRONG_RANDOM);
    r = aes_cbc_encrypt(key->bytes, key->len, iv.bytes, p, sealed.len);
    return r < 0 ? r : compute_hmac(key, &sealed, &iv, mac);
}

static uint16_t
flags_of(const struct layer *l, const struct secret *key)
{
    if (!key)
        return 0;
    return key->len == AES256_SIZE ? l->flag_encrypted | l->flag_256 : l->flag_encrypted;
}

/* @raw has room for a header and the layer. */
static int
seal_outer(const struct layer *l, const uint8_t *data, size_t len, const struct secret *key,
           uint16_t flags, struct vault **raw)
{
    AUTO(vault_freep) struct vault *v = NULL;
    int r = vault_new(&v, ENVELOPE_HEADER + sealed_length(len, key), true);

    if (r < 0)
        return r;
    envelope_encode_header(v->bytes, flags | flags_of(l, key), (uint32_t)v->len);
    r = seal_layer(l, data, len, key, v->bytes + ENVELOPE_HEADER);
    if (r < 0)
        return report(r, "a TPM's state cannot be encrypted");
    *raw = steal(&v);
    return 0;
}

int
swtpm_blob_seal(const struct vault *blob, bool migration, const struct swtpm_keys *keys,
                struct vault **raw)
{
    AUTO(vault_freep) struct vault *inner = NULL;
    int r;

    if (blob->len > UINT32_MAX / 2)
        return report(-EFBIG, "%zu bytes are no TPM's state", blob->len);
    if (!migration)
        return seal_outer(&state_layer, blob->bytes, blob->len, keys->state, 0, raw);
    r = vault_new(&inner, sealed_length(blob->len, keys->state), true);
    if (r == 0)
        r = seal_layer(&state_layer, blob->bytes, blob->len, keys->state, inner->bytes);
    if (r < 0)
        return r;
    return seal_outer(&migration_layer, inner->bytes, inner->len, keys->migration,
                      ENVELOPE_MIGRATION_DATA | flags_of(&state_layer, keys->state), raw);
}
