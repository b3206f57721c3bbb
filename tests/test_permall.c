/* SPDX-License-Identifier: BSD-3-Clause */
/* The state of a TPM 2.0, made here piece by piece; tests/cli_show.sh reads those of real ones. */
#include "base/bytes.h"
#include "base/report.h"
#include "tpm/cert.h"
#include "tpm/names.h"
#include "tpm/permall.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* after the above */
#include <cmocka.h>

static void
silent(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level, (void)line;
}

/* ---- a writer ---- */

struct writer {
    uint8_t buf[4096];
    size_t n;
};

/* What differs between the states that are tried; zero: as libtpms 0.9 writes it. */
struct recipe {
    bool profile;      /* version 4 */
    bool resumable;    /* with the two sections that a Shutdown(STATE) adds */
    bool long_blocks;  /* as a later version would: more in the blocks at the ends of sections */
    uint16_t least;    /* of the whole; 0: what it is */
    uint16_t key_type; /* of one more key; 0: none */
    uint64_t nv_size;  /* 0: 171200 */
};

static void
put16(struct writer *w, uint16_t v)
{
    store_be16(w->buf + w->n, v);
    w->n += 2;
}

static void
put32(struct writer *w, uint32_t v)
{
    store_be32(w->buf + w->n, v);
    w->n += 4;
}

static void
put64(struct writer *w, uint64_t v)
{
    put32(w, (uint32_t)(v >> 32));
    put32(w, (uint32_t)v);
}

static void
put8(struct writer *w, uint8_t v)
{
    w->buf[w->n++] = v;
}

static void
put_sized(struct writer *w, size_t n)
{
    put16(w, (uint16_t)n);
    memset(w->buf + w->n, 0xee, n);
    w->n += n;
}

static void
put_header(struct writer *w, uint16_t version, uint32_t magic, uint16_t least)
{
    put16(w, version);
    put32(w, magic);
    put16(w, least);
}

static void
put_block(struct writer *w, size_t n)
{
    put8(w, 1);
    put_sized(w, n);
}

/* What a section ends with. */
static void
put_tail(struct writer *w, const struct recipe *r)
{
    put_block(w, r->long_blocks ? 5 : 0);
}

static void
put_data(struct writer *w, const struct recipe *r)
{
    put_header(w, 4, 0x12213443, 4);
    put8(w, 1); /* disableClear */
    put16(w, 0x0b);
    put16(w, 0x0b);
    put16(w, 0x0b);
    for (int i = 0; i < 12; i++)
        put_sized(w, i < 6 ? 0 : 64);
    put64(w, 7);
    put32(w, 3);
    put_block(w, 11);
    put32(w, 1); /* PCR banks */
    put16(w, 0x0b);
    put8(w, 3);
    put8(w, 0xff), put8(w, 0xff), put8(w, 0xff);
    put_sized(w, 14);
    put32(w, 2), put32(w, 3), put32(w, 1000), put32(w, 1001);
    put8(w, 1);
    put16(w, r->resumable ? 0x8001 : 0);
    put_sized(w, 14);
    put16(w, 0x0b);
    put64(w, 0);
    put32(w, 1);
    put32(w, 0x20191023), put32(w, 0x163636);
    put8(w, 4);
    put32(w, 99);
    put_block(w, r->long_blocks ? 40 : 20);
}

static void
put_orderly(struct writer *w, const struct recipe *r)
{
    put_header(w, 2, 0x56657887, 1);
    put64(w, 123456);
    put8(w, 1);
    put_header(w, 2, 0x6fe83ea1, 1);
    put64(w, 1);
    put32(w, 0x44524247);
    put_sized(w, 48);
    put16(w, 4);
    put32(w, 1), put32(w, 2), put32(w, 3), put32(w, 4);
    put_tail(w, r);
    put_block(w, 24);
    put_tail(w, r);
}

static void
put_resumable(struct writer *w, const struct recipe *r)
{
    put_header(w, 4, 0x01102332, 4);
    put_sized(w, 64);
    put_sized(w, 64);
    put32(w, 0);
    put64(w, 0);
    put16(w, 3); /* session slots, each of two bytes, and a mask */
    put64(w, 0);
    put64(w, 0);
    put_sized(w, 32);
    put64(w, 0);
    put_block(w, 30);
    put_tail(w, r);

    put_header(w, 2, 0x98897667, 1);
    put8(w, 1), put8(w, 1), put8(w, 1);
    put16(w, 0x10);
    put_sized(w, 0);
    put_sized(w, 0);
    put_header(w, 2, 0x7372eabc, 1);
    put16(w, 16);
    put16(w, 0x0b);
    put_sized(w, 64);
    put16(w, 0x10);
    put_tail(w, r);
    put_header(w, 2, 0x6be82eaf, 1);
    put16(w, 1);
    put_sized(w, 32);
    put_tail(w, r);
    put_tail(w, r);
}

static void
put_ram(struct writer *w, const struct recipe *r)
{
    put_header(w, 2, 0x5346feab, 1);
    put32(w, 512);
    put32(w, 24);
    put32(w, 0x01500003);
    put32(w, NV_WRITTEN | NV_ORDERLY | 2);
    put_sized(w, 8);
    put32(w, 0);
    put_tail(w, r);
}

static void
put_index(struct writer *w, const struct recipe *r, uint32_t handle, uint32_t attributes,
          uint16_t size, size_t data)
{
    put32(w, (uint32_t)(152 + data));
    put32(w, handle);
    put_header(w, 2, 0x2547265a, 1);
    put32(w, handle);
    put16(w, 0x0b);
    put32(w, attributes);
    put_sized(w, 32);
    put16(w, size);
    put_sized(w, 20);
    put_tail(w, r);
    put32(w, (uint32_t)data);
    memset(w->buf + w->n, 'D', data);
    w->n += data;
}

static void
put_parameters(struct writer *w, uint16_t type)
{
    switch (type) {
    case 0x01: /* RSA 2048 for signing */
        put16(w, 0x10), put16(w, 0x14), put16(w, 0x0b), put16(w, 2048), put32(w, 0);
        put_sized(w, 256);
        break;
    case 0x23: /* ECC P-384, a parent */
        put16(w, 6), put16(w, 256), put16(w, 0x43), put16(w, 0x10), put16(w, 4), put16(w, 0x10);
        put_sized(w, 48);
        put_sized(w, 48);
        break;
    case 0x08: /* HMAC */
        put16(w, 5), put16(w, 0x0b);
        put_sized(w, 32);
        break;
    default: /* AES 128 */
        put16(w, 6), put16(w, 128), put16(w, 0x43);
        put_sized(w, 32);
    }
}

static void
put_key(struct writer *w, const struct recipe *r, uint32_t handle, uint16_t type, bool public_only)
{
    put32(w, 2608);
    put32(w, handle);
    put_header(w, 2, 0xfe9a3974, 1);
    put32(w, 0x8000 | public_only);
    put_header(w, 3, 0x75be73af, 3);
    put16(w, type);
    put16(w, 0x0b);
    put32(w, 0x00040040);
    put_sized(w, 0);
    put_parameters(w, type);
    put16(w, public_only ? 0 : type);
    put_sized(w, 0);
    put_sized(w, public_only ? 0 : 32);
    if (!public_only)
        put_sized(w, 128);
    put_block(w, 60);
    put_sized(w, 34);
    put32(w, handle);
    put_sized(w, 34);
    put_tail(w, r);
    put_tail(w, r);
}

static void
make(struct writer *w, const struct recipe *r)
{
    const uint16_t version = r->profile ? 4 : 3;

    w->n = 0;
    put_header(w, version, 0xab364723, r->least ? r->least : version);
    if (r->profile) {
        put16(w, 3);
        memcpy(w->buf + w->n, "{}", 3);
        w->n += 3;
    }
    put_header(w, 3, 0xc9ea6431, 1);
    put32(w, 2);
    put32(w, 1), put32(w, 1);
    put_tail(w, r);
    put_data(w, r);
    put_orderly(w, r);
    if (r->resumable)
        put_resumable(w, r);
    put_ram(w, r);
    put_header(w, 2, 0x094f22c3, 1);
    put64(w, r->nv_size ? r->nv_size : 171200);
    put_index(w, r, 0x01500001, NV_WRITTEN | NV_WRITELOCKED | 2, 12, 12);
    put_index(w, r, 0x01500003, NV_ORDERLY | 2, 8, 0);
    put_index(w, r, 0x01500004, 0x80040004, 5, 5);
    put_key(w, r, 0x81000001, 0x01, false);
    put_key(w, r, 0x81000002, 0x23, true);
    if (r->key_type)
        put_key(w, r, 0x81000003, r->key_type, false);
    put32(w, 0);
    put64(w, 1);
    put_tail(w, r);
    put_tail(w, r);
    put32(w, 0xab364723);
    assert_true(w->n < sizeof w->buf);
}

/* In memory that ends where the blob does, for the sanitizers. */
static int
parse(struct permall *p, const struct writer *w, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1);
    int r;

    assert_non_null(exact);
    memcpy(exact, w->buf, n);
    r = permall_parse(p, exact, n, "x");
    free(exact);
    return r;
}

static int
outcome(const struct writer *w)
{
    struct permall p = {0};
    int r = parse(&p, w, w->n);

    permall_fini(&p);
    return r;
}

/* ---- cases ---- */

static void
reads_what_is_in_it(void **state)
{
    const struct recipe recipe = {0};
    struct writer w;
    struct permall p;
    char text[NV_ATTRIBUTES_TEXT];

    (void)state;
    make(&w, &recipe);
    assert_int_equal(permall_parse(&p, w.buf, w.n, "x"), 0);
    assert_int_equal(p.version, 3);
    assert_int_equal(p.min_version, 3);
    assert_null(p.profile);
    assert_int_equal(p.data_version, 4);
    assert_true(p.disable_clear && !p.resumable);
    assert_int_equal(p.total_resets, 7);
    assert_int_equal(p.resets, 3);
    assert_int_equal(p.failed_tries, 2);
    assert_int_equal(p.max_tries, 3);
    assert_int_equal(p.recovery_time, 1000);
    assert_int_equal(p.lockout_recovery, 1001);
    assert_int_equal(p.firmware[0], 0x20191023);
    assert_int_equal(p.clock, 123456);
    assert_int_equal(p.nv_size, 171200);
    assert_int_equal(p.nv_used, 12 + 152 + 12 + 152 + 152 + 5 + 2 * 2608);
    assert_int_equal(p.ram_size, 512);
    assert_int_equal(p.ram_used, 24);
    assert_int_equal(p.n_indices, 3);
    assert_int_equal(p.indices[0].handle, 0x01500001);
    assert_int_equal(p.indices[0].size, 12);
    assert_int_equal(p.indices[0].data_len, 12);
    assert_memory_equal(p.indices[0].data, "DDDDDDDDDDDD", 12);
    assert_string_equal(nv_attributes_text(text, p.indices[0].attributes),
                        "ownerwrite|writelocked|written");
    assert_int_equal(p.n_keys, 2);
    assert_int_equal(p.keys[0].handle, 0x81000001);
    assert_string_equal(key_text(text, &p.keys[0]), "RSA 2048");
    assert_string_equal(key_text(text, &p.keys[1]), "ECC NIST P-384");
    assert_true(!p.keys[0].public_only && p.keys[1].public_only);
    permall_fini(&p);
}

static void
takes_an_orderly_index_from_its_ram_and_no_data_that_is_not_written(void **state)
{
    const struct recipe recipe = {0};
    struct writer w;
    struct permall p;

    (void)state;
    make(&w, &recipe);
    assert_int_equal(permall_parse(&p, w.buf, w.n, "x"), 0);
    assert_true(p.indices[1].attributes & NV_WRITTEN);
    assert_int_equal(p.indices[1].data_len, 8);
    assert_int_equal(p.indices[1].data[0], 0xee);
    assert_null(p.indices[2].data);
    assert_int_equal(p.indices[2].data_len, 0);
    assert_int_equal(p.indices[2].size, 5);
    permall_fini(&p);
}

static void
reads_profiles_saved_states_and_what_later_versions_append(void **state)
{
    static const struct recipe recipes[] = {
        {.profile = true},     {.resumable = true},
        {.long_blocks = true}, {.profile = true, .resumable = true, .long_blocks = true},
        {.key_type = 0x08},    {.key_type = 0x25},
    };
    struct writer w;
    struct permall p;

    (void)state;
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        make(&w, &recipes[i]);
        assert_int_equal(permall_parse(&p, w.buf, w.n, "x"), 0);
        assert_int_equal(p.resumable, recipes[i].resumable);
        assert_int_equal(p.profile != NULL, recipes[i].profile);
        assert_true(!p.profile || strcmp(p.profile, "{}") == 0);
        assert_int_equal(p.n_keys, recipes[i].key_type ? 3 : 2);
        permall_fini(&p);
    }
}

static void
names_keys_by_their_kind(void **state)
{
    const struct recipe hmac = {.key_type = 0x08}, aes = {.key_type = 0x25};
    struct writer w;
    struct permall p;
    char text[KEY_TEXT];

    (void)state;
    make(&w, &hmac);
    assert_int_equal(permall_parse(&p, w.buf, w.n, "x"), 0);
    assert_string_equal(key_text(text, &p.keys[2]), "HMAC key");
    permall_fini(&p);
    make(&w, &aes);
    assert_int_equal(permall_parse(&p, w.buf, w.n, "x"), 0);
    assert_string_equal(key_text(text, &p.keys[2]), "AES 128");
    permall_fini(&p);
}

static void
refuses_every_truncation_and_what_goes_on(void **state)
{
    static const struct recipe recipes[] = {
        {0}, {.profile = true, .resumable = true, .long_blocks = true, .key_type = 0x08}};
    struct writer w;
    struct permall p;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        make(&w, &recipes[i]);
        for (size_t n = 0; n < w.n; n++)
            assert_int_equal(parse(&p, &w, n), -EUCLEAN);
        w.buf[w.n] = 0;
        assert_int_equal(parse(&p, &w, w.n + 1), -EUCLEAN);
        w.buf[w.n - 1] ^= 1; /* the mark at its end */
        assert_int_equal(parse(&p, &w, w.n), -EUCLEAN);
    }
}

static void
survives_every_flipped_bit(void **state)
{
    const struct recipe recipe = {.profile = true, .resumable = true, .key_type = 0x25};
    struct writer w;

    (void)state;
    make(&w, &recipe);
    for (size_t bit = 0; bit < w.n * 8; bit++) {
        int r;

        w.buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
        r = outcome(&w);
        assert_true(r == 0 || r == -EUCLEAN || r == -EPROTONOSUPPORT);
        w.buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void
refuses_what_takes_a_newer_reader(void **state)
{
    const struct recipe newer = {.profile = true, .least = 5}, key = {.key_type = 0x26};
    struct writer w;

    (void)state;
    make(&w, &newer);
    assert_int_equal(outcome(&w), -EPROTONOSUPPORT);
    make(&w, &key);
    assert_int_equal(outcome(&w), -EPROTONOSUPPORT);
}

static void
refuses_more_than_the_nv_memory_holds(void **state)
{
    const uint64_t used = 12 + 152 + 12 + 152 + 152 + 5 + 2 * 2608;
    const struct recipe fits = {.nv_size = used}, too_small = {.nv_size = used - 1};
    struct writer w;

    (void)state;
    make(&w, &fits);
    assert_int_equal(outcome(&w), 0);
    make(&w, &too_small);
    assert_int_equal(outcome(&w), -EUCLEAN);
}

static void
knows_blobs_by_their_beginnings(void **state)
{
    static const uint8_t permanent[] = {0, 3, 0xab, 0x36, 0x47, 0x23, 0, 2};
    static const uint8_t running[] = {0, 4, 0x45, 0x63, 0x78, 0x89, 0, 1};
    static const uint8_t old[] = {0, 1, 0, 0x22}, other[] = "some text";
    uint16_t version = 0, least = 0;

    (void)state;
    assert_int_equal(blob_probe(permanent, 8, &version, &least), BLOB_TPM2_PERMANENT);
    assert_int_equal(version, 3);
    assert_int_equal(least, 2);
    assert_int_equal(blob_probe(running, 8, &version, &least), BLOB_TPM2_VOLATILE);
    assert_int_equal(version, 4);
    assert_int_equal(blob_probe(old, 4, &version, &least), BLOB_TPM12);
    assert_int_equal(blob_probe(other, 9, &version, &least), BLOB_UNKNOWN);
    for (size_t n = 0; n < 8; n++)
        assert_int_equal(blob_probe(permanent, n, &version, &least), BLOB_UNKNOWN);
}

static void
writes_attributes_as_the_specification_does(void **state)
{
    char text[NV_ATTRIBUTES_TEXT];

    (void)state;
    assert_string_equal(nv_attributes_text(text, 0), "");
    assert_string_equal(
        nv_attributes_text(text, 0x62072001),
        "ppwrite|writedefine|ppread|ownerread|authread|no_da|written|platformcreate");
    assert_string_equal(nv_attributes_text(text, 0x12), "ownerwrite|nt=counter");
    assert_string_equal(nv_attributes_text(text, 0x70 | 1 << 8), "nt=0x7|bit8");
    assert_true(strlen(nv_attributes_text(text, UINT32_MAX)) < sizeof text - 1);
    assert_string_equal(
        key_attributes_text(text, 0x300b2),
        "fixedtpm|fixedparent|sensitivedataorigin|adminwithpolicy|restricted|decrypt");
}

/* ---- certificates ---- */

/* CN=a; issued by CN=b, O=c; until 2036-01-02T03:04:05; directory name TPMModel=m. */
struct der {
    uint8_t buf[512];
    size_t n;
};

static void
der_put(struct der *d, uint8_t tag, const void *body, size_t n)
{
    d->buf[d->n++] = tag;
    d->buf[d->n++] = (uint8_t)n;
    memcpy(d->buf + d->n, body, n);
    d->n += n;
}

static void
der_wrap(struct der *d, uint8_t tag)
{
    struct der inner = *d;

    d->n = 0;
    if (inner.n < 128) {
        der_put(d, tag, inner.buf, inner.n);
        return;
    }
    d->buf[0] = tag;
    d->buf[1] = 0x81;
    d->buf[2] = (uint8_t)inner.n;
    memcpy(d->buf + 3, inner.buf, inner.n);
    d->n = 3 + inner.n;
}

static void
der_append(struct der *d, const struct der *more)
{
    memcpy(d->buf + d->n, more->buf, more->n);
    d->n += more->n;
}

static struct der
name_part(const char *oid, size_t oid_len, const char *value)
{
    struct der d = {0};

    der_put(&d, 6, oid, oid_len);
    der_put(&d, 0x0c, value, strlen(value));
    der_wrap(&d, 0x30);
    der_wrap(&d, 0x31);
    return d;
}

static struct der
make_certificate(void)
{
    struct der issuer = name_part("\x55\x04\x03", 3, "b"), o = name_part("\x55\x04\x0a", 3, "c\n");
    struct der subject = name_part("\x55\x04\x03", 3, "a"), validity = {0}, tbs = {0}, ext = {0};
    struct der model = name_part("\x67\x81\x05\x02\x02", 5, "m");

    der_append(&issuer, &o);
    der_wrap(&issuer, 0x30);
    der_wrap(&subject, 0x30);
    der_put(&validity, 0x17, "260102030405Z", 13);
    der_put(&validity, 0x18, "20360102030405Z", 15);
    der_wrap(&validity, 0x30);
    der_wrap(&model, 0x30);
    der_wrap(&model, 0xa4);
    der_wrap(&model, 0x30);
    der_put(&ext, 6, "\x55\x1d\x11", 3);
    der_put(&ext, 1, "\xff", 1);
    der_put(&ext, 4, model.buf, model.n);
    der_wrap(&ext, 0x30);
    der_wrap(&ext, 0x30);
    der_wrap(&ext, 0xa3);
    der_put(&tbs, 0xa0, "\2\1\2", 3);
    der_put(&tbs, 2, "\x12\x34", 2);
    der_put(&tbs, 0x30, "", 0);
    der_append(&tbs, &issuer);
    der_append(&tbs, &validity);
    der_append(&tbs, &subject);
    der_put(&tbs, 0x30, "", 0); /* key */
    der_append(&tbs, &ext);
    der_wrap(&tbs, 0x30);
    der_put(&tbs, 0x30, "", 0);
    der_put(&tbs, 3, "", 0);
    der_wrap(&tbs, 0x30);
    return tbs;
}

static void
reads_a_certificate(void **state)
{
    struct der d = make_certificate();
    struct cert cert;

    (void)state;
    d.buf[d.n] = 0xff; /* what follows in the index is not the certificate's */
    assert_int_equal(cert_read(&cert, d.buf, d.n + 1), 0);
    assert_int_equal(cert.len, d.n);
    assert_string_equal(cert.serial, "1234");
    assert_string_equal(cert.issuer, "CN=b, O=c?");
    assert_string_equal(cert.subject, "CN=a");
    assert_string_equal(cert.tpm, "TPMModel=m");
    assert_string_equal(cert.not_after, "2036-01-02T03:04:05");
}

static void
refuses_what_is_no_certificate(void **state)
{
    struct der d = make_certificate();
    struct cert cert;

    (void)state;
    for (size_t n = 0; n < d.n; n++) {
        uint8_t *exact = malloc(n ? n : 1);

        assert_non_null(exact);
        memcpy(exact, d.buf, n);
        assert_int_equal(cert_read(&cert, exact, n), -EUCLEAN);
        free(exact);
    }
    for (size_t bit = 0; bit < d.n * 8; bit++) {
        d.buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_true(cert_read(&cert, d.buf, d.n) <= 0);
        d.buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_is_in_it),
        cmocka_unit_test(takes_an_orderly_index_from_its_ram_and_no_data_that_is_not_written),
        cmocka_unit_test(reads_profiles_saved_states_and_what_later_versions_append),
        cmocka_unit_test(names_keys_by_their_kind),
        cmocka_unit_test(refuses_every_truncation_and_what_goes_on),
        cmocka_unit_test(survives_every_flipped_bit),
        cmocka_unit_test(refuses_what_takes_a_newer_reader),
        cmocka_unit_test(refuses_more_than_the_nv_memory_holds),
        cmocka_unit_test(knows_blobs_by_their_beginnings),
        cmocka_unit_test(writes_attributes_as_the_specification_does),
        cmocka_unit_test(reads_a_certificate),
        cmocka_unit_test(refuses_what_is_no_certificate),
    };

    report_set_sink(silent, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
