/* SPDX-License-Identifier: BSD-3-Clause */
/* What swtpm writes, read back: blobs under its keys, its linear file, its key files.  The seeds of
 * the fuzzer are the vectors: swtpm 0.7.1 has written them. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "crypt/aes.h"
#include "crypt/hkdf.h"
#include "crypt/keys.h"
#include "swtpm/blob.h"
#include "swtpm/key.h"
#include "swtpm/linear.h"
#include "swtpm/state.h"
#include "tpm/envelope.h"
#include <errno.h>
#include <fcntl.h>
#include <gcrypt.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cmocka.h>

#define HEX_128 "00112233445566778899aabbccddeeff"
#define HEX_256 "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define PASSPHRASE "correct horse battery staple, and then some more words\n"

static char said[4096];

static void
listen_to(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level;
    snprintf(said, sizeof said, "%s", line);
}

static void
assert_said(const char *text)
{
    if (!strstr(said, text))
        fail_msg("wanted \"%s\", said \"%s\"", text, said);
}

/* ---- keys ---------------------------------------------------------------------------------------
 */

static char dir[] = "/tmp/vnvram-swtpm.XXXXXX";

/* A file of the test's own; the path is good until the next one. */
static const char *
file_of(const char *text, size_t len)
{
    static char path[sizeof dir + 8];
    AUTO_FD int fd = -1;

    snprintf(path, sizeof path, "%s/key", dir);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), (ssize_t)len);
    return path;
}

/* What becomes of @words, in which %s stands for a file that holds @text. */
static int
read_key(const char *words, const char *text, size_t len, struct secret **key)
{
    AUTO(swtpm_key_options_fini) struct swtpm_key_options opt = SWTPM_KEY_OPTIONS_INIT;
    const char *gap = strstr(words, "%s");
    char all[PATH_MAX];
    int r;

    *key = NULL;
    if (gap)
        snprintf(all, sizeof all, "%.*s%s%s", (int)(gap - words), words, file_of(text, len),
                 gap + 2);
    else
        snprintf(all, sizeof all, "%s", words);
    r = swtpm_key_options_set(&opt, "--swtpm-key", all);
    return r < 0 ? r : swtpm_key_read(&opt, key);
}

static void
assert_key(const char *words, const char *text, size_t len, const char *hex)
{
    AUTO(secret_freep) struct secret *key = NULL;
    char got[2 * 64 + 1] = "";

    if (read_key(words, text, len, &key) < 0)
        fail_msg("%s: %s", words, said);
    for (size_t i = 0; i < key->len; i++)
        snprintf(got + 2 * i, 3, "%02x", key->bytes[i]);
    assert_string_equal(got, hex);
}

static void
keys_are_read_as_swtpm_reads_them(void **state)
{
    (void)state;
    assert_key("file=%s", HEX_128, 32, HEX_128);
    assert_key("file=%s,mode=aes-cbc", "0x" HEX_128 "\n", 35, HEX_128);
    assert_key("file=%s,format=hex,mode=aes-128-cbc", HEX_128 " and a remark", 45, HEX_128);
    assert_key("mode=aes-256-cbc,file=%s", HEX_256 "\n", 65, HEX_256);
    assert_key("file=%s,format=binary", "sixteen byte key", 16, "7369787465656e2062797465206b6579");
    /* derived by Python's hashlib; swtpm has encrypted the seeds with them */
    assert_key("pwdfile=%s", PASSPHRASE, sizeof PASSPHRASE - 1, "c9716539059b3fb0d6f0e970fe9deda7");
    assert_key("pwdfile=%s,kdf=pbkdf2,mode=aes-256-cbc,remove=false", PASSPHRASE,
               sizeof PASSPHRASE - 1,
               "c9716539059b3fb0d6f0e970fe9deda7d28a3958b3887a7b829b8940e04e4912");
    assert_key("pwdfile=%s,kdf=sha512", PASSPHRASE, sizeof PASSPHRASE - 1,
               "281cfcf648a832999ad7421e14818f34");
}

static void
every_wrong_key_has_its_word(void **state)
{
    static const struct {
        const char *words, *text;
        int r;
        const char *said;
    } cases[] = {
        {"mode=aes-cbc", "", -EINVAL, "one of file="},
        {"file=%s,fd=3", HEX_128, -EINVAL, "only one of"},
        {"file=%s,mode=aes-192-cbc", HEX_128, -EPROTONOSUPPORT, "mode=aes-192-cbc"},
        {"file=%s,format=pem", HEX_128, -EINVAL, "hex or binary"},
        {"file=%s,kdf=sha512", HEX_128, -EINVAL, "kdf="},
        {"pwdfile=%s,format=hex", HEX_128, -EINVAL, "format="},
        {"pwdfile=%s,kdf=md5", HEX_128, -EPROTONOSUPPORT, "kdf=md5"},
        {"file=%s,remove=true", HEX_128, -EINVAL, "not removed here"},
        {"file=%s,colour=red", HEX_128, -EINVAL, "unknown word colour"},
        {"file=%s,mode", HEX_128, -EINVAL, "needs a value"},
        {"file=", "", -EINVAL, "needs a value"},
        {"fd=x", "", -EINVAL, "a descriptor"},
        {"file=%s", "", -EINVAL, "is empty"},
        {"pwdfile=%s", "", -EINVAL, "is empty"},
        {"file=%s", "0011", -EINVAL, "hexadecimal digits"},
        {"file=%s", "00112233445566778899aabbccddeefg", -EINVAL, "not a hexadecimal digit"},
        {"file=%s", HEX_256, -EINVAL, "mode=aes-256-cbc"},
        {"file=%s,mode=aes-256-cbc", HEX_128, -EINVAL, "mode=aes-128-cbc"},
        {"file=%s", HEX_128 "0123456789abcdef", -EINVAL, "16 or 32"},
        /* swtpm takes that for AES-128, whatever it was asked for */
        {"file=%s,format=binary,mode=aes-256-cbc", "sixteen byte key", -EINVAL, "aes-128-cbc"},
        {"file=%s,format=binary", "sixteen byte key\n", -EINVAL, "17 bytes"},
        {"file=/nonexistent/key", "", -ENOENT, "/nonexistent/key"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct secret *key;

        assert_int_equal(read_key(cases[i].words, cases[i].text, strlen(cases[i].text), &key),
                         cases[i].r);
        assert_null(key);
        assert_said(cases[i].said);
    }
}

static void
a_key_comes_from_a_descriptor_and_closes_it(void **state)
{
    AUTO(secret_freep) struct secret *key = NULL;
    char words[32];
    int fd = open(file_of(HEX_128, 32), O_RDONLY | O_CLOEXEC);

    (void)state;
    assert_true(fd > 2);
    snprintf(words, sizeof words, "fd=%d", fd);
    assert_int_equal(read_key(words, "", 0, &key), 0);
    assert_int_equal(key->len, 16);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/* ---- blobs --------------------------------------------------------------------------------------
 */

enum { BLOB_MOST = 2048, PLAIN_LEN = 1299 };

static struct secret *hex_128, *hex_256, *pbkdf2_256, *sha512_128, *binary_128;

static size_t
read_seed(const char *kind, const char *name, uint8_t buf[BLOB_MOST])
{
    const char *srcdir = getenv("srcdir");
    char path[PATH_MAX];
    FILE *f;
    size_t n;

    snprintf(path, sizeof path, "%s/tests/fuzz/seeds/%s/%s", srcdir ? srcdir : ".", kind, name);
    f = fopen(path, "rb");
    assert_non_null(f);
    n = fread(buf, 1, BLOB_MOST, f);
    fclose(f);
    return n;
}

/* What was seen of swtpm's, in the clear, when it wrote the seeds. */
static const struct vector {
    const char *name, *sha256;
    struct secret **state, **migration;
} vectors[] = {
    {"state-plain", "ef1966cb112e5095b727713f6597388a85ddf81e482372952f21395ceca005fb", NULL, NULL},
    {"state-hex128", "c407d0d07cf0bd86c916fb6b5491fce4ad60766c9e2619b97b4765d8378bf1e5", &hex_128,
     NULL},
    {"state-hex256", "fd03b139d0a1e2d383eb7036df4bbd27b395d274ddb98bd041dc766ab7667c76", &hex_256,
     NULL},
    {"state-pbkdf2-256", "3e223427685e9d803c418405e5e34e281547a3dea69e1e04b3dca51dffa3f910",
     &pbkdf2_256, NULL},
    {"state-sha512-128", "297905c473ca20579e796e95bcc328c4a1eb95119e269ff9b4215626dc825eea",
     &sha512_128, NULL},
    {"migration-plain", "ef1966cb112e5095b727713f6597388a85ddf81e482372952f21395ceca005fb", NULL,
     NULL},
    {"migration-pbkdf2-256", "ac0fa0158cc8b6534bb59b00e98d55d1b566e6579050bb441f7412cb81821fe3",
     NULL, &pbkdf2_256},
    {"migration-of-encrypted", "cf180bfef4dad6a07185d039c3a6b676c41aad449a629ff27a9c5a6034a66f00",
     &binary_128, &sha512_128},
};
enum { N_VECTORS = sizeof vectors / sizeof *vectors };

static struct swtpm_keys
keys_of(const struct vector *v)
{
    return (struct swtpm_keys){v->state ? *v->state : NULL, v->migration ? *v->migration : NULL};
}

static int
open_blob(const uint8_t *raw, size_t len, const struct swtpm_keys *keys)
{
    AUTO_FREE uint8_t *exact = malloc(len ? len : 1); /* so that a read past the end shows */
    struct vault *blob = NULL;
    int r;

    memcpy(exact, raw, len);
    r = swtpm_blob_open(exact, len, "x", keys, &blob);
    assert_true((r == 0) == (blob != NULL));
    vault_free(blob);
    return r;
}

static void
assert_sha256(const struct vault *v, const char *hex)
{
    uint8_t hash[32];
    char got[65];

    gcry_md_hash_buffer(GCRY_MD_SHA256, hash, v->bytes, v->len);
    for (size_t i = 0; i < sizeof hash; i++)
        snprintf(got + 2 * i, 3, "%02x", hash[i]);
    assert_string_equal(got, hex);
}

static void
opens_what_swtpm_has_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_VECTORS; i++) {
        const struct swtpm_keys keys = keys_of(&vectors[i]);
        AUTO(vault_freep) struct vault *blob = NULL;
        uint8_t raw[BLOB_MOST];
        size_t len = read_seed("swtpm_blob", vectors[i].name, raw);

        if (swtpm_blob_open(raw, len, "x", &keys, &blob) < 0)
            fail_msg("%s: %s", vectors[i].name, said);
        assert_int_equal(blob->len, PLAIN_LEN);
        assert_sha256(blob, vectors[i].sha256);
        assert_int_equal(swtpm_state_version(blob->bytes, blob->len, SWTPM_PERMALL),
                         TPM_VERSION_2_0);
        assert_int_equal(swtpm_blob_is_encrypted(raw, len), keys.state || keys.migration);
    }
}

static void
seals_what_swtpm_would_write(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_VECTORS; i++) {
        const struct swtpm_keys keys = keys_of(&vectors[i]);
        AUTO(vault_freep) struct vault *blob = NULL, *raw = NULL, *other = NULL, *again = NULL;
        uint8_t seed[BLOB_MOST];
        size_t len = read_seed("swtpm_blob", vectors[i].name, seed);
        bool migration = strncmp(vectors[i].name, "migration", 9) == 0;

        assert_int_equal(swtpm_blob_open(seed, len, "x", &keys, &blob), 0);
        assert_int_equal(swtpm_blob_seal(blob, migration, &keys, &raw), 0);
        assert_int_equal(raw->len, len);
        assert_memory_equal(raw->bytes, seed, ENVELOPE_HEADER + ENVELOPE_RECORD_HEAD);
        if (!keys.state && !keys.migration)
            assert_memory_equal(raw->bytes, seed, len);
        assert_int_equal(swtpm_blob_open(raw->bytes, raw->len, "x", &keys, &again), 0);
        assert_int_equal(again->len, blob->len);
        assert_memory_equal(again->bytes, blob->bytes, blob->len);
        assert_int_equal(swtpm_blob_seal(blob, migration, &keys, &other), 0);
        if (keys.state || keys.migration) /* never one initial vector twice */
            assert_memory_not_equal(raw->bytes, other->bytes, len);
    }
}

/* Around each length of padding. */
static void
any_length_makes_the_round_trip(void **state)
{
    struct secret *const keys[] = {hex_128, hex_256};

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        for (size_t len = 1; len <= 65; len++) {
            AUTO(vault_freep) struct vault *blob = NULL, *raw = NULL, *again = NULL;
            const struct swtpm_keys both = {keys[k], keys[1 - k]};

            assert_int_equal(vault_new(&blob, len, true), 0);
            memset(blob->bytes, (int)len, len);
            assert_int_equal(swtpm_blob_seal(blob, len % 2, &both, &raw), 0);
            assert_int_equal(swtpm_blob_open(raw->bytes, raw->len, "x", &both, &again), 0);
            assert_int_equal(again->len, len);
            assert_memory_equal(again->bytes, blob->bytes, len);
        }
    }
}

static void
every_truncation_is_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_VECTORS; i++) {
        const struct swtpm_keys keys = keys_of(&vectors[i]);
        uint8_t raw[BLOB_MOST];
        size_t len = read_seed("swtpm_blob", vectors[i].name, raw);

        for (size_t n = 0; n < len; n += n < 100 || n > len - 100 ? 1 : 37)
            assert_int_equal(open_blob(raw, n, &keys), -ERANGE);
        assert_int_equal(open_blob(raw, len + 1, &keys), -EUCLEAN);
    }
}

static void
every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_VECTORS; i++) {
        const struct swtpm_keys keys = keys_of(&vectors[i]);
        const bool sealed = keys.state || keys.migration;
        uint8_t raw[BLOB_MOST];
        size_t len = read_seed("swtpm_blob", vectors[i].name, raw);
        size_t bits = sealed ? 8 * len : 8 * (ENVELOPE_HEADER + ENVELOPE_RECORD_HEAD);

        for (size_t bit = 0; bit < bits; bit += bit < 200 ? 1 : 13) {
            raw[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_true(open_blob(raw, len, &keys) < 0);
            raw[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
}

static void
keys_that_are_wrong_missing_or_in_vain_are_findings(void **state)
{
    uint8_t raw[BLOB_MOST];
    size_t len = read_seed("swtpm_blob", "state-hex256", raw);

    (void)state;
    assert_int_equal(open_blob(raw, len, &(struct swtpm_keys){NULL, NULL}), -ENOKEY);
    assert_said("--swtpm-key");
    assert_int_equal(open_blob(raw, len, &(struct swtpm_keys){NULL, hex_256}), -ENOKEY);
    assert_int_equal(open_blob(raw, len, &(struct swtpm_keys){pbkdf2_256, NULL}), -EKEYREJECTED);
    assert_said("wrong key");
    assert_int_equal(open_blob(raw, len, &(struct swtpm_keys){hex_128, NULL}), -EKEYREJECTED);
    assert_said("256 bits");
    len = read_seed("swtpm_blob", "state-plain", raw);
    assert_int_equal(open_blob(raw, len, &(struct swtpm_keys){hex_128, NULL}), -EKEYREVOKED);
    assert_said("not encrypted");
    assert_int_equal(open_blob(raw, len, &(struct swtpm_keys){NULL, hex_128}), 0);
    len = read_seed("swtpm_blob", "migration-plain", raw);
    assert_int_equal(open_blob(raw, len, &(struct swtpm_keys){NULL, hex_128}), -EKEYREVOKED);
    len = read_seed("swtpm_blob", "migration-pbkdf2-256", raw);
    assert_int_equal(open_blob(raw, len, &(struct swtpm_keys){hex_128, pbkdf2_256}), 0);
    assert_int_equal(open_blob(raw, len, &(struct swtpm_keys){pbkdf2_256, NULL}), -ENOKEY);
    assert_said("--swtpm-migration-key");
    len = read_seed("swtpm_blob", "migration-of-encrypted", raw);
    assert_int_equal(open_blob(raw, len, &(struct swtpm_keys){NULL, sha512_128}), -ENOKEY);
    assert_int_equal(open_blob(raw, len, &(struct swtpm_keys){hex_128, sha512_128}), -EKEYREJECTED);
}

static void
headers_that_nobody_wrote_are_findings(void **state)
{
    static const struct {
        uint8_t flags[2];
        int r;
    } flags[] = {
        {{0, 0x20}, -EPROTONOSUPPORT}, {{0x01, 0}, -EPROTONOSUPPORT}, {{0, 0x08}, -EUCLEAN},
        {{0, 0x02}, -EUCLEAN},         {{0, 0x14}, -EUCLEAN},
    };
    const struct swtpm_keys none = {NULL, NULL};
    uint8_t raw[BLOB_MOST];
    size_t len = read_seed("swtpm_blob", "state-plain", raw);

    (void)state;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        memcpy(raw + 4, flags[i].flags, 2);
        assert_int_equal(open_blob(raw, len, &none), flags[i].r);
        assert_said("flags");
    }
    memset(raw + 4, 0, 2);
    raw[0] = raw[1] = 3;
    assert_int_equal(open_blob(raw, len, &none), -EPROTONOSUPPORT);
    raw[0] = raw[1] = 1;
    assert_int_equal(open_blob(raw, len, &none), -EPROTONOSUPPORT);
    raw[0] = 2;
    assert_int_equal(open_blob(raw, len, &none), 0);
    store_be16(raw + ENVELOPE_HEADER, 9);
    assert_int_equal(open_blob(raw, len, &none), -EPROTONOSUPPORT);
    assert_said("unknown kind");
    store_be16(raw + ENVELOPE_HEADER, ENVELOPE_TAG_IV);
    assert_int_equal(open_blob(raw, len, &none), -EUCLEAN);
    assert_int_equal(open_blob((const uint8_t *)"\177ELF and so on, for some bytes", 30, &none),
                     -EMEDIUMTYPE);
}

/* Plain records one after the other. */
static size_t
put_record(uint8_t *p, uint16_t tag, const void *bytes, size_t len)
{
    envelope_encode_record(p, tag, (uint32_t)len);
    memcpy(p + ENVELOPE_RECORD_HEAD, bytes, len);
    return ENVELOPE_RECORD_HEAD + len;
}

static void
records_that_do_not_belong_are_damage(void **state)
{
    const struct swtpm_keys none = {NULL, NULL};
    uint8_t raw[256];
    size_t len = ENVELOPE_HEADER;

    (void)state;
    len += put_record(raw + len, ENVELOPE_TAG_DATA, "abc", 3);
    envelope_encode_header(raw, 0, (uint32_t)len);
    assert_int_equal(open_blob(raw, len, &none), 0);
    len += put_record(raw + len, ENVELOPE_TAG_HMAC, "abc", 3);
    envelope_encode_header(raw, 0, (uint32_t)len);
    assert_int_equal(open_blob(raw, len, &none), -EUCLEAN);
    assert_said("does not belong");
    len = ENVELOPE_HEADER;
    len += put_record(raw + len, ENVELOPE_TAG_DATA, "abc", 3);
    len += put_record(raw + len, ENVELOPE_TAG_DATA, "abd", 3);
    envelope_encode_header(raw, 0, (uint32_t)len);
    assert_int_equal(open_blob(raw, len, &none), -EUCLEAN);
    assert_said("two records");
    len = ENVELOPE_HEADER + put_record(raw + ENVELOPE_HEADER, ENVELOPE_TAG_DATA, "", 0);
    envelope_encode_header(raw, 0, (uint32_t)len);
    assert_int_equal(open_blob(raw, len, &none), -EUCLEAN);
}

/* One encrypted by @key whose last block is what @plain says: nothing but the padding can be wrong
 * in it. */
static size_t
forge(uint8_t *raw, const struct secret *key, const uint8_t *plain, size_t len, bool with_iv)
{
    uint8_t iv[32] = {1}, mac[32], sealed[64];
    const struct iovec iov[] = {{sealed, len}, {iv, key->len}};
    size_t n = ENVELOPE_HEADER;

    memcpy(sealed, plain, len);
    if (!with_iv)
        memset(iv, 0, sizeof iv);
    assert_int_equal(aes_cbc_encrypt(key->bytes, key->len, iv, sealed, len), 0);
    assert_int_equal(hmac_sha256(key->bytes, key->len, iov, with_iv ? 2 : 1, mac), 0);
    n += put_record(raw + n, ENVELOPE_TAG_ENCRYPTED, sealed, len);
    n += put_record(raw + n, ENVELOPE_TAG_HMAC, mac, sizeof mac);
    if (with_iv)
        n += put_record(raw + n, ENVELOPE_TAG_IV, iv, key->len);
    envelope_encode_header(
        raw, key->len == 32 ? ENVELOPE_ENCRYPTED | ENVELOPE_KEY_256 : ENVELOPE_ENCRYPTED,
        (uint32_t)n);
    return n;
}

static void
paddings_are_checked(void **state)
{
    static const struct {
        size_t len, from;
        uint8_t value;
        int r_128, r_256;
    } cases[] = {
        {32, 31, 1, 0, 0},
        {32, 16, 16, 0, 0},
        {32, 32, 0, -EUCLEAN, -EUCLEAN}, /* a last byte of zero */
        {32, 31, 2, -EUCLEAN, -EUCLEAN}, /* the byte before is none */
        {48, 28, 20, -EUCLEAN, 0},       /* longer than a short key */
        {48, 16, 32, -EUCLEAN, 0},       /* as long as a long one */
        {48, 0, 33, -EUCLEAN, -EUCLEAN}, /* longer than that */
        {16, 0, 17, -EUCLEAN, -EUCLEAN}, /* longer than all */
        {16, 0, 16, -EUCLEAN, -EUCLEAN}, /* nothing is left */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t plain[64] = {0}, raw[256];
        size_t n;

        memset(plain + cases[i].from, cases[i].value, cases[i].len - cases[i].from);
        n = forge(raw, hex_128, plain, cases[i].len, true);
        assert_int_equal(open_blob(raw, n, &(struct swtpm_keys){hex_128, NULL}), cases[i].r_128);
        n = forge(raw, hex_256, plain, cases[i].len, true);
        assert_int_equal(open_blob(raw, n, &(struct swtpm_keys){hex_256, NULL}), cases[i].r_256);
    }
}

/* HMACs can be cut to any length, and then guessed. */
static void
authentication_codes_have_one_length(void **state)
{
    static const size_t lengths[] = {0, 1, 16, 31, 33};
    const struct swtpm_keys keys = {hex_128, NULL};
    uint8_t plain[32], whole[256], mac[64];
    const size_t at = ENVELOPE_HEADER + ENVELOPE_RECORD_HEAD + sizeof plain;
    size_t n;

    (void)state;
    memset(plain, 16, sizeof plain);
    n = forge(whole, hex_128, plain, sizeof plain, true);
    memcpy(mac, whole + at + ENVELOPE_RECORD_HEAD, sizeof mac);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t raw[256];
        size_t rest = at + ENVELOPE_RECORD_HEAD + 32, len;

        memcpy(raw, whole, at);
        len = at + put_record(raw + at, ENVELOPE_TAG_HMAC, mac, lengths[i]);
        memcpy(raw + len, whole + rest, n - rest);
        len += n - rest;
        envelope_encode_header(raw, ENVELOPE_ENCRYPTED, (uint32_t)len);
        assert_int_equal(open_blob(raw, len, &keys), -EUCLEAN);
        assert_said("authentication code");
    }
}

static void
the_first_swtpms_had_no_initial_vector(void **state)
{
    const struct swtpm_keys keys = {hex_128, NULL};
    uint8_t plain[32], raw[256];
    size_t n;

    (void)state;
    memset(plain, 16, sizeof plain);
    n = forge(raw, hex_128, plain, sizeof plain, false);
    assert_int_equal(open_blob(raw, n, &keys), 0);
}

/* ---- the linear file ----------------------------------------------------------------------------
 */

static int
decode_seed(const char *name, struct swtpm_linear *l, uint8_t raw[BLOB_MOST])
{
    size_t len = read_seed("swtpm_linear", name, raw);

    return swtpm_linear_decode(l, raw + 4, len - 4, load_le32(raw), "x");
}

static void
linear_files_of_swtpm_are_read_and_written_the_same(void **state)
{
    struct swtpm_linear l, mine = {0};
    uint8_t raw[BLOB_MOST], out[SWTPM_LINEAR_HEADER];

    (void)state;
    assert_int_equal(decode_seed("three-items", &l, raw), 0);
    assert_int_equal(l.items[SWTPM_PERMALL].off, SWTPM_LINEAR_HEADER);
    assert_int_equal(l.items[SWTPM_PERMALL].len, 1185);
    assert_int_equal(l.items[SWTPM_VOLATILE].len, 1247);
    assert_int_equal(l.items[SWTPM_SAVESTATE].len, 986);
    for (int i = 0; i < SWTPM_ITEMS; i++)
        mine.items[i].len = l.items[i].len;
    assert_int_equal(swtpm_linear_layout(&mine), load_le32(raw));
    swtpm_linear_encode(&mine, out);
    assert_memory_equal(out, raw + 4, sizeof out);

    assert_int_equal(decode_seed("one-item", &l, raw), 0);
    mine = (struct swtpm_linear){.items[0].len = l.items[0].len};
    assert_int_equal(swtpm_linear_layout(&mine), load_le32(raw));
    swtpm_linear_encode(&mine, out);
    assert_memory_equal(out, raw + 4, sizeof out);
}

static void
linear_sections_are_powers_of_two(void **state)
{
    static const struct {
        uint32_t len, room;
    } cases[] = {{1, 1}, {2, 2}, {3, 4}, {4096, 4096}, {4097, 8192}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct swtpm_linear l = {.items[1].len = cases[i].len};

        assert_int_equal(swtpm_linear_layout(&l), SWTPM_LINEAR_HEADER + cases[i].room);
        assert_int_equal(l.items[0].off, 0);
        assert_int_equal(l.items[1].room, cases[i].room);
    }
    assert_int_equal(swtpm_linear_layout(
                         &(struct swtpm_linear){.items = {{.len = 1U << 30}, {.len = 1U << 30}}}),
                     0);
}

static void
linear_headers_that_are_wrong_are_findings(void **state)
{
    /* 4 bytes at an offset of the file with three items: 192+2048, 2240+2048, 4288+1024 = 5312 */
    static const struct {
        unsigned at;
        uint32_t value;
        int r;
    } cases[] = {
        {0, 0x6d6c696f, -EMEDIUMTYPE},
        {8, 0x00c00002, -EPROTONOSUPPORT}, /* version 2 */
        {8, 0x00c00000, -EUCLEAN},         /* version 0 */
        {8, 0x00c00101, -EUCLEAN},         /* a byte that is zero */
        {8, 0x00bf0001, -EUCLEAN},         /* the header's size */
        {12, 0, -EUCLEAN},                 /* nowhere */
        {12, 191, -EUCLEAN},               /* within the header */
        {16, 0, -EUCLEAN},                 /* no bytes */
        {16, 2049, -EUCLEAN},              /* more than their section */
        {20, 2049, -EUCLEAN},              /* a section that reaches into the next */
        {20, UINT32_MAX, -EUCLEAN},
        {24, 193, -EUCLEAN}, /* two that overlap */
        {24, 5311, -ERANGE}, /* past the end */
        {36, UINT32_MAX, -ERANGE},
        {48, 1, -EPROTONOSUPPORT}, /* a fourth item */
        {188, 1, -EPROTONOSUPPORT},
    };
    struct swtpm_linear l;
    uint8_t raw[BLOB_MOST];
    size_t len;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        len = read_seed("swtpm_linear", "three-items", raw);
        store_le32(raw + 4 + cases[i].at, cases[i].value);
        if (swtpm_linear_decode(&l, raw + 4, len - 4, load_le32(raw), "x") != cases[i].r)
            fail_msg("%u: %x: %s", cases[i].at, cases[i].value, said);
    }
    len = read_seed("swtpm_linear", "three-items", raw) - 4;
    for (size_t n = 8; n < len; n++)
        assert_int_equal(swtpm_linear_decode(&l, raw + 4, n, n, "x"), -ERANGE);
    for (uint64_t size = len; size < 4288 + 986; size++)
        assert_int_equal(swtpm_linear_decode(&l, raw + 4, len, size, "x"), -ERANGE);
    assert_int_equal(swtpm_linear_decode(&l, raw + 4, len, 4288 + 986, "x"), 0);
    assert_int_equal(decode_seed("blank", &l, raw), -ENODATA);
    assert_int_equal(decode_seed("fresh", &l, raw), -ENODATA);
    assert_int_equal(swtpm_linear_decode(&l, raw, 0, 0, "x"), -EMEDIUMTYPE);
}

/* ---- names --------------------------------------------------------------------------------------
 */

static void
states_have_swtpms_names(void **state)
{
    static const enum tpm_version versions[] = {TPM_VERSION_2_0, TPM_VERSION_1_2};
    enum tpm_version version;
    enum swtpm_item item;

    (void)state;
    assert_string_equal(swtpm_state_name(TPM_VERSION_2_0, SWTPM_PERMALL), "tpm2-00.permall");
    assert_string_equal(swtpm_state_name(TPM_VERSION_1_2, SWTPM_SAVESTATE), "tpm-00.savestate");
    for (int v = 0; v < 2; v++) {
        for (enum swtpm_item i = 0; i < SWTPM_ITEMS; i++) {
            assert_true(swtpm_state_by_name(swtpm_state_name(versions[v], i), &version, &item));
            assert_int_equal(version, versions[v]);
            assert_int_equal(item, i);
        }
    }
    assert_false(swtpm_state_by_name("tpm2-01.permall", &version, &item));
    assert_false(swtpm_state_by_name("TMP2-00.permall", &version, &item));
}

/* ---- vaults -------------------------------------------------------------------------------------
 */

static void
a_vault_grows_and_keeps_its_bytes(void **state)
{
    AUTO(vault_freep) struct vault *v = NULL;

    (void)state;
    assert_int_equal(vault_new(&v, 10, true), 0);
    memset(v->bytes, 'x', 10);
    assert_int_equal(vault_grow(v, 20), 0);
    assert_int_equal(v->len, 20);
    assert_true(bytes_are_zero(v->bytes + 10, 10));
    assert_int_equal(vault_grow(v, 100000), 0);
    assert_int_equal(v->len, 100000);
    assert_memory_equal(v->bytes, "xxxxxxxxxx", 10);
    assert_true(bytes_are_zero(v->bytes + 10, 100000 - 10));
    assert_int_equal(vault_lock(v), 0);
    assert_int_equal(vault_new(&v, SIZE_MAX, false), -ENOMEM);
}

/* What /proc/self/smaps says of the mapping at @p: its flags, "" when there is none. */
static void
mapping_flags(const void *p, char flags[512])
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512];
    bool here = false;

    assert_non_null(f);
    *flags = '\0';
    while (fgets(line, sizeof line, f)) {
        unsigned long from, to;

        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            here = (uintptr_t)p >= from && (uintptr_t)p < to;
        if (here && strncmp(line, "VmFlags:", 8) == 0)
            snprintf(flags, 512, "%s", line + 8);
    }
    fclose(f);
}

static void
a_vault_is_locked_and_in_no_core(void **state)
{
    AUTO(vault_freep) struct vault *v = NULL;
    char flags[512];

    (void)state;
    assert_int_equal(vault_new(&v, 5000, true), 0);
    mapping_flags(v->bytes, flags);
    assert_non_null(strstr(flags, " lo"));        /* locked */
    assert_non_null(strstr(flags, " dd"));        /* do not dump */
    assert_int_equal(syscall(SYS_munlockall), 0); /* as the end of Argon2id does */
    mapping_flags(v->bytes, flags);
    assert_null(strstr(flags, " lo"));
    assert_int_equal(vault_lock(v), 0);
    mapping_flags(v->bytes, flags);
    assert_non_null(strstr(flags, " lo"));
    assert_int_equal(vault_grow(v, 50000), 0);
    mapping_flags(v->bytes + 49999, flags);
    assert_non_null(strstr(flags, " lo"));
    assert_non_null(strstr(flags, " dd"));
}

/* ---- frame --------------------------------------------------------------------------------------
 */

static int
set_up(void **state)
{
    (void)state;
    report_set_sink(listen_to, NULL);
    if (crypt_init() < 0 || !mkdtemp(dir))
        return -1;
    assert_int_equal(read_key("file=%s", HEX_128, 32, &hex_128), 0);
    assert_int_equal(read_key("file=%s,mode=aes-256-cbc", HEX_256, 64, &hex_256), 0);
    assert_int_equal(
        read_key("pwdfile=%s,mode=aes-256-cbc", PASSPHRASE, sizeof PASSPHRASE - 1, &pbkdf2_256), 0);
    assert_int_equal(
        read_key("pwdfile=%s,kdf=sha512", PASSPHRASE, sizeof PASSPHRASE - 1, &sha512_128), 0);
    assert_int_equal(read_key("file=%s,format=binary", "sixteen byte key", 16, &binary_128), 0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    secret_free(hex_128);
    secret_free(hex_256);
    secret_free(pbkdf2_256);
    secret_free(sha512_128);
    secret_free(binary_128);
    unlink(file_of("", 0));
    return rmdir(dir);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_read_as_swtpm_reads_them),
        cmocka_unit_test(every_wrong_key_has_its_word),
        cmocka_unit_test(a_key_comes_from_a_descriptor_and_closes_it),
        cmocka_unit_test(opens_what_swtpm_has_written),
        cmocka_unit_test(seals_what_swtpm_would_write),
        cmocka_unit_test(any_length_makes_the_round_trip),
        cmocka_unit_test(every_truncation_is_told),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(keys_that_are_wrong_missing_or_in_vain_are_findings),
        cmocka_unit_test(headers_that_nobody_wrote_are_findings),
        cmocka_unit_test(records_that_do_not_belong_are_damage),
        cmocka_unit_test(paddings_are_checked),
        cmocka_unit_test(authentication_codes_have_one_length),
        cmocka_unit_test(the_first_swtpms_had_no_initial_vector),
        cmocka_unit_test(linear_files_of_swtpm_are_read_and_written_the_same),
        cmocka_unit_test(linear_sections_are_powers_of_two),
        cmocka_unit_test(linear_headers_that_are_wrong_are_findings),
        cmocka_unit_test(states_have_swtpms_names),
        cmocka_unit_test(a_vault_grows_and_keeps_its_bytes),
        cmocka_unit_test(a_vault_is_locked_and_in_no_core),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
