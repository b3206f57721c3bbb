/* SPDX-License-Identifier: BSD-3-Clause */
/* The primitives against their RFCs' vectors, and the sealers that are made of them. */
#include "base/scope.h"
#include "crypt/aes.h"
#include "crypt/hkdf.h"
#include "crypt/kdf.h"
#include "crypt/keys.h"
#include "crypt/sealed.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 256 };

struct bytes {
    size_t len;
    uint8_t at[MOST];
};

static struct bytes
hex(const char *text)
{
    struct bytes b = {.len = strlen(text) / 2};

    assert_true(b.len <= MOST);
    for (size_t i = 0; i < b.len; i++)
        assert_int_equal(sscanf(text + 2 * i, "%2hhx", &b.at[i]), 1);
    return b;
}

static struct secret *
secret_of(const void *p, size_t len)
{
    struct secret *s = NULL;

    assert_int_equal(secret_copy(&s, p, len), 0);
    return s;
}

static void
sealer_endp(struct sealer **s)
{
    if (*s)
        (*s)->ops->free(*s);
}

/* ---- vectors -----------------------------------------------------------------------------------
 */

static void
aes_cbc_gives_the_vectors_of_rfc_3602(void **state)
{
    static const struct {
        const char *key, *iv, *plain, *cipher;
    } v[] = {
        {"06a9214036b8a15b512e03d534120006", "3dafba429d9eb430b422da802c9fac41",
         "53696e676c6520626c6f636b206d7367", "e353779c1079aeb82708942dbe77181a"},
        {"c286696d887c9aa0611bbb3e2025a45a", "562e17996d093d28ddb3ba695a2e6f58",
         "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
         "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1"},
        {"6c3ea0477630ce21a2ce334aa746c2cd", "c782dc4c098c66cbd9cd27d825682c81",
         "5468697320697320612034382d62797465206d657373616765202865786163746c79203320414553"
         "20626c6f636b7329",
         "d0a02b3836451753d493665d33f0e8862dea54cdb293abc7506939276772f8d5021c19216bad525c"
         "8579695d83ba2684"},
        {"56e47a38c5598974bc46903dba290349", "8ce82eefbea0da3c44699ed7db51b7d9",
         "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7"
         "c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf",
         "c30e32ffedc0774e6aff6af0869f71aa0f3af07a9a31a9c684db207eb0ef8e4e35907aa632c3ffdf"
         "868bb7b29d3d46ad83ce9f9a102ee99d49a53e87f4c3da55"},
        /* 192 and 256 bits are not in the RFC: NIST SP 800-38A, F.2.3 and F.2.5, first two blocks
         */
        {"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", "000102030405060708090a0b0c0d0e0f",
         "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51",
         "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"},
        {"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
         "000102030405060708090a0b0c0d0e0f",
         "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51",
         "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        struct bytes key = hex(v[i].key), iv = hex(v[i].iv), text = hex(v[i].plain);
        struct bytes plain = text, cipher = hex(v[i].cipher);

        assert_int_equal(aes_cbc_encrypt(key.at, key.len, iv.at, text.at, text.len), 0);
        assert_memory_equal(text.at, cipher.at, cipher.len);
        assert_int_equal(aes_cbc_decrypt(key.at, key.len, iv.at, text.at, text.len), 0);
        assert_memory_equal(text.at, plain.at, plain.len);
    }
}

static void
aes_refuses_a_key_of_another_size(void **state)
{
    uint8_t key[33] = {0}, iv[16] = {0}, buf[16] = {0};

    (void)state;
    for (size_t n = 0; n <= sizeof key; n++) {
        int expected = n == 16 || n == 24 || n == 32 ? 0 : -EINVAL;

        assert_int_equal(aes_cbc_encrypt(key, n, iv, buf, sizeof buf), expected);
    }
}

static void
hmac_gives_the_vectors_of_rfc_4231(void **state)
{
    static const struct {
        const char *key, *data, *mac;
    } v[] = {
        {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "4869205468657265",
         "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
        {"4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
         "dddddddddddddddddddd",
         "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
        {"0102030405060708090a0b0c0d0e0f10111213141516171819",
         "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
         "cdcdcdcdcdcdcdcdcdcd",
         "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaa",
         "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d20"
         "48617368204b6579204669727374",
         "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaa",
         "5468697320697320612074657374207573696e672061206c6172676572207468616e20626c6f636b"
         "2d73697a65206b657920616e642061206c6172676572207468616e20626c6f636b2d73697a652064"
         "6174612e20546865206b6579206e6565647320746f20626520686173686564206265666f72652062"
         "65696e6720757365642062792074686520484d414320616c676f726974686d2e",
         "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
        {"0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c", "546573742057697468205472756e636174696f6e",
         "a3b6167473100ee06e0c796c2955552b"}, /* the RFC gives 128 bits */
    };

    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        struct bytes key = hex(v[i].key), data = hex(v[i].data), mac = hex(v[i].mac);
        struct iovec iov[2] = {{data.at, data.len / 2},
                               {data.at + data.len / 2, data.len - data.len / 2}};
        uint8_t got[HKDF_HASH];

        assert_int_equal(hmac_sha256(key.at, key.len, iov, 2, got), 0);
        assert_memory_equal(got, mac.at, mac.len);
    }
}

static void
hkdf_gives_the_vectors_of_rfc_5869(void **state)
{
    static const struct {
        const char *ikm, *salt, *info, *okm;
    } v[] = {
        {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c",
         "f0f1f2f3f4f5f6f7f8f9",
         "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b88718"
         "5865"},
        {"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627"
         "28292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f",
         "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f8081828384858687"
         "88898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
         "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7"
         "d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
         "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac78272"
         "71cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f"
         "1d87"},
        {"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
         "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a"
         "96c8"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        struct bytes ikm = hex(v[i].ikm), salt = hex(v[i].salt), info = hex(v[i].info);
        struct bytes okm = hex(v[i].okm);
        uint8_t got[MOST];

        assert_int_equal(
            hkdf_sha256(ikm.at, ikm.len, salt.at, salt.len, info.at, info.len, got, okm.len), 0);
        assert_memory_equal(got, okm.at, okm.len);
    }
}

static void
key_wrap_gives_the_vectors_of_rfc_3394(void **state)
{
    static const char kek_256[] =
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    static const char data[] = "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f";
    static const struct {
        size_t kek, data;
        const char *wrapped;
    } v[] = {
        {16, 16, "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"},
        {24, 16, "96778b25ae6ca435f92b5b97c050aed2468ab8a17ad84e5d"},
        {32, 16, "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7"},
        {24, 24, "031d33264e15d33268f24ec260743edce1c6c7ddee725a936ba814915c6762d2"},
        {32, 24, "a8f9bc1612c68b3ff6e6f4fbe30e71e4769c8b80a32cb8958cd5d17d6b254da1"},
        {32, 32,
         "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"},
    };
    struct bytes kek = hex(kek_256), plain = hex(data);

    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        struct bytes wrapped = hex(v[i].wrapped);
        uint8_t got[MOST];

        /* 4.4 and 4.5 of the RFC wrap 192 bits: the first 16 bytes as here, then 0001020304050607.
         */
        assert_int_equal(aes_wrap(kek.at, v[i].kek, plain.at, v[i].data, got), 0);
        assert_memory_equal(got, wrapped.at, wrapped.len);
        assert_int_equal(aes_unwrap(kek.at, v[i].kek, wrapped.at, wrapped.len, got), 0);
        assert_memory_equal(got, plain.at, v[i].data);
    }
}

static void
key_wrap_notices_every_flipped_bit(void **state)
{
    uint8_t kek[32] = {1}, plain[32] = {2}, wrapped[40], got[32];

    (void)state;
    assert_int_equal(aes_wrap(kek, sizeof kek, plain, sizeof plain, wrapped), 0);
    for (size_t bit = 0; bit < 8 * sizeof wrapped; bit++) {
        wrapped[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(aes_unwrap(kek, sizeof kek, wrapped, sizeof wrapped, got), -EKEYREJECTED);
        wrapped[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(aes_unwrap(kek, 24, wrapped, sizeof wrapped, got), -EKEYREJECTED);
}

static void
argon2id_gives_the_vector_of_rfc_9106(void **state)
{
    const struct kdf_cost cost = {.memory = 32, .passes = 3, .lanes = 4};
    struct bytes tag = hex("0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
    uint8_t password[32], salt[16], secret[8], ad[12], got[32];
    const struct kdf_extra extra = {
        .secret = secret, .secret_len = sizeof secret, .ad = ad, .ad_len = sizeof ad};
    AUTO(secret_freep) struct secret *p = NULL;

    (void)state;
    memset(password, 1, sizeof password);
    memset(salt, 2, sizeof salt);
    memset(secret, 3, sizeof secret);
    memset(ad, 4, sizeof ad);
    p = secret_of(password, sizeof password);
    assert_int_equal(kdf_argon2id(p, salt, sizeof salt, &cost, &extra, got, sizeof got), 0);
    assert_memory_equal(got, tag.at, sizeof got);
}

static void
a_cost_beyond_reason_is_refused(void **state)
{
    static const struct {
        struct kdf_cost cost;
        bool ok;
    } v[] = {
        {{64 * 1024, 3, 4}, true},
        {{KDF_MEMORY_MIN, 1, 1}, true},
        {{KDF_MEMORY_MAX, 4, 1}, true},
        {{KDF_MEMORY_MAX, 5, 1}, false},
        {{KDF_MEMORY_MAX + 1, 1, 1}, false},
        {{KDF_MEMORY_MIN - 1, 1, 1}, false},
        {{UINT32_MAX, UINT32_MAX, 1}, false},
        {{32, KDF_PASSES_MAX, 1}, true},
        {{32, KDF_PASSES_MAX + 1, 1}, false},
        {{32, 0, 1}, false},
        {{32, 1, 0}, false},
        {{32, 1, KDF_LANES_MAX + 1}, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++)
        assert_int_equal(kdf_cost_ok(&v[i].cost), v[i].ok);
    struct kdf_cost standard = kdf_default_cost();
    assert_true(kdf_cost_ok(&standard));
}

/* ---- sealers -----------------------------------------------------------------------------------
 */

static const uint8_t uuid_1[UUID_SIZE] = "an image's uuid", uuid_2[UUID_SIZE] = "another's uuid";

static struct sealer *
sealed(uint8_t key_byte, const uint8_t uuid[UUID_SIZE], uint32_t epoch, size_t key_size)
{
    AUTO(secret_freep) struct secret *vk = NULL;
    struct sealer *s = NULL;

    assert_int_equal(secret_new(&vk, VOLUME_KEY_SIZE), 0);
    memset(vk->bytes, key_byte, vk->len);
    assert_int_equal(sealer_sealed_new(&s, vk, uuid, epoch, key_size), 0);
    return s;
}

struct answer {
    uint8_t tag[3][SEAL_TAG_SIZE], cipher[16];
};

static struct answer
answer_of(uint8_t key_byte, const uint8_t uuid[UUID_SIZE], uint32_t epoch, size_t key_size)
{
    AUTO(sealer_endp) struct sealer *s = sealed(key_byte, uuid, epoch, key_size);
    uint8_t text[] = "one of two pieces", iv[SEAL_IV_SIZE] = {0};
    struct iovec iov[2] = {{text, 6}, {text + 6, sizeof text - 6}};
    struct answer a = {.cipher = {0}};

    for (int p = SEAL_SUPERBLOCK; p <= SEAL_BANK; p++)
        assert_int_equal(s->ops->tag(s, (enum seal_purpose)p, iov, 2, a.tag[p]), 0);
    assert_int_equal(s->ops->encrypt(s, iv, a.cipher, sizeof a.cipher, a.cipher, sizeof a.cipher),
                     0);
    return a;
}

static void
a_sealer_has_other_keys_for_each_purpose_image_epoch_and_size(void **state)
{
    struct answer a[] = {
        answer_of(1, uuid_1, 1, 32), answer_of(2, uuid_1, 1, 32), answer_of(1, uuid_2, 1, 32),
        answer_of(1, uuid_1, 2, 32), answer_of(1, uuid_1, 1, 16), answer_of(1, uuid_1, 1, 24),
    };
    struct answer again = answer_of(1, uuid_1, 1, 32);
    const uint8_t *all[6 * 3];

    (void)state;
    assert_memory_equal(&again, &a[0], sizeof again);
    for (size_t i = 0; i < 6; i++) {
        for (size_t j = 0; j < i; j++) {
            assert_memory_not_equal(a[i].cipher, a[j].cipher, sizeof a[i].cipher);
            if (i < 4) /* the tags' keys do not depend on the cipher's size */
                assert_memory_not_equal(a[i].tag[0], a[j].tag[0], SEAL_TAG_SIZE);
        }
        for (size_t p = 0; p < 3; p++)
            all[3 * i + p] = a[i].tag[p];
    }
    for (size_t i = 0; i < 4 * 3; i++) {
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(all[i], all[j], SEAL_TAG_SIZE);
    }
}

static void
sealing_hides_the_text_and_opening_returns_it(void **state)
{
    uint8_t iv[SEAL_IV_SIZE], iv_2[SEAL_IV_SIZE], text[4096], buf[4096];

    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i / 16);
    for (size_t size = 16; size <= 32; size += 8) {
        AUTO(sealer_endp) struct sealer *s = sealed(7, uuid_1, 1, size);

        assert_int_equal(s->ops->mode, SEAL_AES_CBC_HMAC_SHA256);
        assert_int_equal(s->ops->new_iv(s, iv), 0);
        assert_int_equal(s->ops->new_iv(s, iv_2), 0);
        assert_memory_not_equal(iv, iv_2, sizeof iv);
        memcpy(buf, text, sizeof buf);
        assert_int_equal(s->ops->encrypt(s, iv, buf, sizeof buf, buf, sizeof buf), 0);
        for (size_t i = 0; i < sizeof buf; i += 16)
            assert_memory_not_equal(buf + i, text + i, 16);
        assert_int_equal(s->ops->decrypt(s, iv, buf, sizeof buf), 0);
        assert_memory_equal(buf, text, sizeof buf);
    }
}

/* A content is encrypted from where it lies, padded or not, to what encrypting it in place gives.
 */
static void
encrypts_from_elsewhere_with_padding(void **state)
{
    static const size_t lens[] = {0, 1, 15, 16, 17, 31, 32, 4079, 4080, 4081, 4095, 4096};
    uint8_t iv[SEAL_IV_SIZE] = "some IV", text[4096], in_place[4096], out[4096];

    (void)state;
    memset(text, 0x5a, sizeof text);
    for (int keyed = 0; keyed < 2; keyed++) {
        struct sealer *s = keyed ? sealed(7, uuid_1, 1, 32) : sealer_plain();

        for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
            size_t len = lens[i];

            memset(in_place, 0, sizeof in_place);
            memcpy(in_place, text, len);
            memset(out, 0xee, sizeof out);
            assert_int_equal(
                s->ops->encrypt(s, iv, in_place, sizeof in_place, in_place, sizeof in_place), 0);
            assert_int_equal(s->ops->encrypt(s, iv, out, sizeof out, text, len), 0);
            assert_memory_equal(out, in_place, sizeof out);
            memset(out, 0xee, sizeof out);
            memcpy(out, text, len);
            assert_int_equal(s->ops->encrypt(s, iv, out, sizeof out, out, len), 0);
            assert_memory_equal(out, in_place, sizeof out);
        }
        s->ops->free(s);
    }
}

static void
the_plain_sealer_is_sha_256_and_changes_nothing(void **state)
{
    struct sealer *s = sealer_plain();
    struct bytes abc = hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    uint8_t iv[SEAL_IV_SIZE], zero[SEAL_IV_SIZE] = {0}, text[16] = "plain", buf[16] = "plain";
    uint8_t tag[SEAL_TAG_SIZE], pieces[] = "abc";
    struct iovec iov[2] = {{pieces, 1}, {pieces + 1, 2}};

    (void)state;
    memset(iv, 0xff, sizeof iv);
    assert_int_equal(s->ops->mode, SEAL_NONE);
    assert_int_equal(s->ops->tag(s, SEAL_BANK, iov, 2, tag), 0);
    assert_memory_equal(tag, abc.at, sizeof tag);
    assert_int_equal(s->ops->new_iv(s, iv), 0);
    assert_memory_equal(iv, zero, sizeof iv);
    assert_int_equal(s->ops->encrypt(s, iv, buf, sizeof buf, buf, sizeof buf), 0);
    assert_int_equal(s->ops->decrypt(s, iv, buf, sizeof buf), 0);
    assert_memory_equal(buf, text, sizeof buf);
    s->ops->free(s);
    assert_int_equal(s->ops->tag(s, SEAL_BANK, iov, 2, tag), 0);
}

struct worker {
    pthread_t thread;
    struct sealer *sealer;
    uint8_t number;
    int failures;
};

static void *
work(void *arg)
{
    struct worker *w = arg;
    struct sealer *s = w->sealer;
    uint8_t text[1024], buf[1024], iv[SEAL_IV_SIZE], tag[2][SEAL_TAG_SIZE];
    struct iovec iov = {buf, sizeof buf};

    memset(text, w->number, sizeof text);
    for (int i = 0; i < 200; i++) {
        memcpy(buf, text, sizeof buf);
        w->failures += s->ops->new_iv(s, iv) != 0 ||
                       s->ops->encrypt(s, iv, buf, sizeof buf, buf, sizeof buf) != 0;
        w->failures += s->ops->tag(s, SEAL_BANK, &iov, 1, tag[0]) != 0;
        w->failures += s->ops->tag(s, SEAL_BANK, &iov, 1, tag[1]) != 0;
        w->failures += memcmp(tag[0], tag[1], SEAL_TAG_SIZE) != 0;
        w->failures += s->ops->decrypt(s, iv, buf, sizeof buf) != 0;
        w->failures += memcmp(buf, text, sizeof buf) != 0;
    }
    return NULL;
}

static void
one_sealer_serves_many_threads(void **state)
{
    AUTO(sealer_endp) struct sealer *s = sealed(9, uuid_1, 1, 32);
    struct worker w[16];

    (void)state;
    for (uint8_t i = 0; i < 16; i++) {
        w[i] = (struct worker){.sealer = s, .number = i};
        assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 16; i++) {
        pthread_join(w[i].thread, NULL);
        assert_int_equal(w[i].failures, 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aes_cbc_gives_the_vectors_of_rfc_3602),
        cmocka_unit_test(aes_refuses_a_key_of_another_size),
        cmocka_unit_test(hmac_gives_the_vectors_of_rfc_4231),
        cmocka_unit_test(hkdf_gives_the_vectors_of_rfc_5869),
        cmocka_unit_test(key_wrap_gives_the_vectors_of_rfc_3394),
        cmocka_unit_test(key_wrap_notices_every_flipped_bit),
        cmocka_unit_test(argon2id_gives_the_vector_of_rfc_9106),
        cmocka_unit_test(a_cost_beyond_reason_is_refused),
        cmocka_unit_test(a_sealer_has_other_keys_for_each_purpose_image_epoch_and_size),
        cmocka_unit_test(sealing_hides_the_text_and_opening_returns_it),
        cmocka_unit_test(encrypts_from_elsewhere_with_padding),
        cmocka_unit_test(the_plain_sealer_is_sha_256_and_changes_nothing),
        cmocka_unit_test(one_sealer_serves_many_threads),
    };

    if (crypt_init() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
