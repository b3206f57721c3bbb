/* SPDX-License-Identifier: BSD-3-Clause */
/* A store as DER, there and back, and everything that is done to it on the way. */
#include "base/bytes.h"
#include "base/crc32.h"
#include "base/report.h"
#include "base/scope.h"
#include "crypt/keys.h"
#include "crypt/sealed.h"
#include "der/node.h"
#include "der/store.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
/* after the above */
#include <cmocka.h>

enum { ENTRIES = 5 };

static void
silent(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level, (void)line;
}

static const struct file_attr attr = {
    .mode = 04755,
    .uid = UINT32_MAX - 1,
    .gid = 7,
    .atime = {.tv_sec = -1, .tv_nsec = 999999999},
    .mtime = {.tv_sec = INT64_C(1) << 33, .tv_nsec = 0},
    .ctime = {.tv_sec = 1, .tv_nsec = 128},
};

/* A store: empty, one byte, a block, more; a name that is no UTF-8. */
struct example {
    struct der_head head;
    struct der_entry entries[ENTRIES];
    struct sealer *sealer;
    struct vault *stream;
};

static void
example_fini(struct example *x)
{
    sealer_free(x->sealer);
    vault_free(x->stream);
}

static void
make(struct example *x, bool sealed)
{
    static const uint8_t content[600] = "not all of it is zero";
    static const struct {
        const char *name;
        size_t len;
    } files[ENTRIES] = {{"z", 0}, {"tpm2-00.permall", 600}, {"b", 16}, {"a", 1}, {"\xff", 17}};
    AUTO(secret_freep) struct secret *key = NULL;

    *x = (struct example){.head = {.generation = 300,
                                   .committed = INT64_C(1796032800),
                                   .root = attr,
                                   .sealed = sealed,
                                   .key_size = sealed ? 24 : 0}};
    memset(x->head.uuid, 0xe1, UUID_SIZE);
    if (sealed) {
        memset(x->head.stream, 0x5e, UUID_SIZE);
        memset(x->head.keyslots[0], 0x11, KEYSLOT_SIZE);
        memset(x->head.keyslots[1], 0x22, KEYSLOT_SIZE);
        assert_int_equal(secret_new(&key, VOLUME_KEY_SIZE), 0);
        assert_int_equal(sealer_sealed_new(&x->sealer, key, x->head.stream, 1, 24), 0);
    } else {
        x->sealer = sealer_plain();
    }
    for (int i = 0; i < ENTRIES; i++) {
        x->entries[i] = (struct der_entry){.capacity = 4096,
                                           .generation = files[i].len ? 7 : 0,
                                           .attr = attr,
                                           .data = content,
                                           .len = files[i].len};
        strcpy(x->entries[i].name, files[i].name);
    }
    assert_int_equal(der_write(&x->stream, &x->head, x->entries, ENTRIES, x->sealer), 0);
}

/* What a reader got. */
struct got {
    struct der_entry entries[ENTRIES];
    struct vault *contents[ENTRIES];
    size_t n;
};

static void
got_fini(struct got *g)
{
    for (size_t i = 0; i < g->n; i++)
        vault_free(g->contents[i]);
}

static int
collect(void *arg, const struct der_entry *e, struct vault **content)
{
    struct got *g = arg;

    assert_true(g->n < ENTRIES);
    g->entries[g->n] = *e;
    g->contents[g->n++] = steal(content);
    return 0;
}

static int
read_back(const struct example *x, const uint8_t *buf, size_t len)
{
    AUTO(got_fini) struct got g = {0};
    struct der_head h;
    uint8_t *exact = malloc(len ? len : 1);
    int r;

    assert_non_null(exact);
    memcpy(exact, buf, len);
    r = der_read_head(&h, exact, len, "x");
    if (r == 0)
        r = der_read(exact, len, "x", x->sealer, collect, &g);
    free(exact);
    return r;
}

/* The body of a stream: what its sums cover. */
static struct span
body_of(const struct vault *stream)
{
    struct span all = {stream->bytes, stream->len}, whole, inside, body;

    assert_int_equal(der_cut(&all, DER_SEQUENCE, &whole, &inside), 0);
    assert_int_equal(der_cut(&inside, DER_SEQUENCE, &whole, &body), 0);
    return whole;
}

/* A stream of @body with a right checksum and, with @retag, a right tag: else it is what it was. */
static struct vault *
mended(const struct example *x, const struct span *body, bool retag)
{
    const struct iovec iov = {(void *)(uintptr_t)body->p, body->n};
    uint8_t crc[5] = {0};
    size_t used = body->n, skip = 0;
    struct vault *v;

    assert_int_equal(vault_new(&v, used + 128, false), 0);
    memcpy(v->bytes, body->p, used);
    store_be32(crc + 1, crc32_of(body->p, body->n));
    while (skip < 4 && crc[skip] == 0 && !(crc[skip + 1] & 0x80))
        skip++;
    memcpy(v->bytes + used, crc + skip, 5 - skip);
    used += 5 - skip;
    assert_int_equal(der_wrap(v, &used, 5 - skip, DER_INTEGER), 0);
    if (retag)
        x->sealer->ops->tag(x->sealer, SEAL_DIRECTORY, &iov, 1, v->bytes + used);
    else
        memcpy(v->bytes + used, x->stream->bytes + x->stream->len - SEAL_TAG_SIZE, SEAL_TAG_SIZE);
    used += SEAL_TAG_SIZE;
    assert_int_equal(der_wrap(v, &used, SEAL_TAG_SIZE, DER_OCTETS), 0);
    assert_int_equal(der_wrap(v, &used, used, DER_SEQUENCE), 0);
    v->len = used;
    return v;
}

/* Reads the stream with the byte at @at of its body changed, and sums that are right. */
static int
read_changed(const struct example *x, size_t at, uint8_t by)
{
    AUTO(vault_freep) struct vault *copy = NULL, *v = NULL;
    struct span body = body_of(x->stream);

    assert_int_equal(vault_new(&copy, body.n, false), 0);
    memcpy(copy->bytes, body.p, body.n);
    copy->bytes[at] ^= by;
    body.p = copy->bytes;
    v = mended(x, &body, x->sealer->ops->mode == SEAL_NONE);
    return read_back(x, v->bytes, v->len);
}

static size_t
find(const struct vault *v, const void *what, size_t n)
{
    const uint8_t *at = memmem(v->bytes, v->len, what, n);

    assert_non_null(at);
    return (size_t)(at - v->bytes);
}

/* ---- cases ---- */

static void
gives_back_what_was_put_in(void **state)
{
    (void)state;
    for (int sealed = 0; sealed < 2; sealed++) {
        AUTO(example_fini) struct example x;
        AUTO(got_fini) struct got g = {0};
        struct der_head h;

        make(&x, sealed);
        assert_int_equal(der_read_head(&h, x.stream->bytes, x.stream->len, "x"), 0);
        assert_memory_equal(&h.uuid, &x.head.uuid, UUID_SIZE);
        assert_int_equal(h.generation, 300);
        assert_int_equal(h.committed, x.head.committed);
        assert_memory_equal(&h.root, &attr, sizeof attr);
        assert_int_equal(h.sealed, sealed);
        assert_memory_equal(h.keyslots, x.head.keyslots, sizeof h.keyslots);
        assert_int_equal(h.key_size, x.head.key_size);
        assert_int_equal(der_read(x.stream->bytes, x.stream->len, "x", x.sealer, collect, &g), 0);
        assert_int_equal(g.n, ENTRIES);
        for (int i = 0; i < ENTRIES; i++) { /* der_write() has sorted them */
            assert_string_equal(g.entries[i].name, x.entries[i].name);
            assert_int_equal(g.entries[i].capacity, 4096);
            assert_int_equal(g.entries[i].generation, x.entries[i].generation);
            assert_memory_equal(&g.entries[i].attr, &attr, sizeof attr);
            assert_int_equal(g.contents[i]->len, x.entries[i].len);
            assert_memory_equal(g.contents[i]->bytes, x.entries[i].data, x.entries[i].len);
        }
    }
}

static void
takes_a_store_without_files(void **state)
{
    AUTO(example_fini) struct example x;
    AUTO(vault_freep) struct vault *empty = NULL;
    AUTO(got_fini) struct got g = {0};

    (void)state;
    make(&x, false);
    assert_int_equal(der_write(&empty, &x.head, x.entries, 0, x.sealer), 0);
    assert_int_equal(der_read(empty->bytes, empty->len, "x", x.sealer, collect, &g), 0);
    assert_int_equal(g.n, 0);
}

static void
shows_no_content_of_a_sealed_store(void **state)
{
    AUTO(example_fini) struct example x;

    (void)state;
    make(&x, true);
    assert_null(memmem(x.stream->bytes, x.stream->len, "not all", 7));
    assert_non_null(memmem(x.stream->bytes, x.stream->len, "tpm2-00.permall", 15));
}

static void
refuses_every_truncation_and_what_follows(void **state)
{
    (void)state;
    for (int sealed = 0; sealed < 2; sealed++) {
        AUTO(example_fini) struct example x;
        size_t head; /* as much as tells the kind */

        make(&x, sealed);
        head = find(x.stream, "vnvram store", 12) + 12;
        for (size_t n = 0; n < x.stream->len; n += n < 64 ? 1 : 7)
            assert_int_equal(read_back(&x, x.stream->bytes, n), n < head ? -EMEDIUMTYPE : -ERANGE);
        assert_int_equal(vault_grow(x.stream, x.stream->len + 1), 0);
        assert_int_equal(read_back(&x, x.stream->bytes, x.stream->len), -EUCLEAN);
    }
}

static void
refuses_every_flipped_bit(void **state)
{
    (void)state;
    for (int sealed = 0; sealed < 2; sealed++) {
        AUTO(example_fini) struct example x;

        make(&x, sealed);
        for (size_t bit = 0; bit < x.stream->len * 8; bit += bit < 1024 ? 1 : 5) {
            int r;

            x.stream->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            r = read_back(&x, x.stream->bytes, x.stream->len);
            assert_true(r == -EUCLEAN || r == -EMEDIUMTYPE || r == -ERANGE ||
                        (r == -EBADMSG && bit / 8 >= x.stream->len - SEAL_TAG_SIZE));
            x.stream->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        assert_int_equal(read_back(&x, x.stream->bytes, x.stream->len), 0);
    }
}

static void
tells_forged_from_damaged(void **state)
{
    AUTO(example_fini) struct example x;
    unsigned forged = 0;
    size_t n;

    (void)state;
    make(&x, true);
    n = body_of(x.stream).n;
    for (size_t at = 60; at < n; at += 3) {
        int r = read_changed(&x, at, 0x40);

        assert_true(r == -EBADMSG || r == -EUCLEAN); /* its header or lengths may be none, too */
        forged += r == -EBADMSG;
    }
    assert_true(forged > 200);
}

static void
survives_every_byte_of_a_plain_store_with_its_sums_made_right(void **state)
{
    static const uint8_t by[] = {0x01, 0x80, 0x7f, 0xff};
    AUTO(example_fini) struct example x;
    size_t n;

    (void)state;
    make(&x, false);
    n = body_of(x.stream).n;
    for (size_t at = 0; at < n; at++) {
        for (size_t i = 0; i < sizeof by; i++) {
            int r = read_changed(&x, at, by[i]);

            assert_true(r == 0 || r == -EUCLEAN || r == -EMEDIUMTYPE || r == -EPROTONOSUPPORT);
        }
    }
}

/* Reads the stream with @what replaced, and sums that are right. */
static int
with(const struct example *x, const char *what, const char *by, size_t n)
{
    AUTO(vault_freep) struct vault *copy = NULL, *v = NULL;
    struct span body = body_of(x->stream);

    assert_int_equal(vault_new(&copy, body.n, false), 0);
    memcpy(copy->bytes, body.p, body.n);
    memcpy(copy->bytes + find(copy, what, n), by, n);
    body.p = copy->bytes;
    v = mended(x, &body, x->sealer->ops->mode == SEAL_NONE);
    return read_back(x, v->bytes, v->len);
}

static void
refuses_names_that_are_none_or_twice_there(void **state)
{
    AUTO(example_fini) struct example x;

    (void)state;
    make(&x, false);
    assert_int_equal(with(&x,
                          "\x0c\x01"
                          "a",
                          "\x0c\x01"
                          "/",
                          3),
                     -EUCLEAN);
    assert_int_equal(with(&x,
                          "\x0c\x01"
                          "a",
                          "\x0c\x01"
                          ".",
                          3),
                     -EUCLEAN);
    assert_int_equal(with(&x,
                          "\x0c\x01"
                          "a",
                          "\x0c\x01\0", 3),
                     -EUCLEAN);
    assert_int_equal(with(&x,
                          "\x0c\x01"
                          "a",
                          "\x0c\x01"
                          "b",
                          3),
                     -EUCLEAN); /* twice */
    assert_int_equal(with(&x,
                          "\x0c\x01"
                          "a",
                          "\x0c\x01"
                          "c",
                          3),
                     -EUCLEAN); /* out of order */
    assert_int_equal(with(&x,
                          "\x0c\x01"
                          "a",
                          "\x04\x01"
                          "a",
                          3),
                     -EUCLEAN);                                              /* is text */
    assert_int_equal(with(&x, "\x04\x01\xff", "\x0c\x01\xff", 3), -EUCLEAN); /* is none */
    assert_int_equal(with(&x,
                          "\x0c\x01"
                          "a",
                          "\x0c\x01"
                          "B",
                          3),
                     0);
}

static void
refuses_what_a_newer_program_wrote_and_other_kinds(void **state)
{
    AUTO(example_fini) struct example x;

    (void)state;
    make(&x, false);
    assert_int_equal(with(&x, "store\x02\x01\x01", "store\x02\x01\x02", 8), -EPROTONOSUPPORT);
    assert_int_equal(with(&x, "store\x02\x01\x01", "store\x02\x01\0", 8), -EUCLEAN);
    assert_int_equal(with(&x, "vnvram store", "vnvram stora", 12), -EMEDIUMTYPE);
    assert_int_equal(read_back(&x, (const uint8_t *)"text", 4), -EMEDIUMTYPE);
}

static void
refuses_values_out_of_range(void **state)
{
    AUTO(example_fini) struct example x;

    (void)state;
    make(&x, false);
    assert_int_equal(with(&x, "20261130", "20261131", 8), -EUCLEAN); /* no such day */
    assert_int_equal(with(&x, "\x02\x02\x09\xed", "\x02\x02\x19\xed", 4), -EUCLEAN); /* mode */
    assert_int_equal(with(&x, "\x02\x04\x3b\x9a\xc9\xff", "\x02\x04\x3b\x9a\xca\0", 6),
                     -EUCLEAN); /* nanoseconds */
    assert_int_equal(
        with(&x, "\x02\x02\x10\0\x02\x02\x02\x58", "\x02\x02\x02\x57\x02\x02\x02\x58", 8),
        -EUCLEAN); /* a length above the capacity */
    assert_int_equal(with(&x, "\x02\x02\x02\x58", "\x02\x02\x02\x57", 4),
                     -EUCLEAN);                                                  /* or not its */
    assert_int_equal(with(&x, "\x02\x02\x10\0", "\x02\x02\xf0\0", 4), -EUCLEAN); /* negative */
    assert_int_equal(with(&x, "\x02\x02\x10\0", "\x02\x02\0\x7f", 4),
                     -EUCLEAN);                                    /* not the shortest */
    assert_int_equal(with(&x, "not all", "not ALL", 7), -EUCLEAN); /* an entry's own checksum */
}

static void
refuses_ber(void **state)
{
    AUTO(example_fini) struct example x;
    AUTO(vault_freep) struct vault *v = NULL;

    (void)state;
    make(&x, false);
    /* The same, with a longer length in front of all. */
    assert_int_equal(vault_new(&v, x.stream->len + 1, false), 0);
    assert_int_equal(x.stream->bytes[1], 0x82);
    memcpy(v->bytes, "\x30\x83\0", 3);
    memcpy(v->bytes + 3, x.stream->bytes + 2, x.stream->len - 2);
    assert_int_equal(read_back(&x, v->bytes, v->len), -EUCLEAN);
    /* And without one, as BER may. */
    memcpy(v->bytes, "\x30\x80", 2);
    memcpy(v->bytes + 2, x.stream->bytes + 4, x.stream->len - 4);
    memset(v->bytes + x.stream->len - 2, 0, 3);
    assert_int_equal(read_back(&x, v->bytes, v->len), -EUCLEAN);
}

static void
put(struct vault *v, size_t *used, const void *bytes, size_t n)
{
    memcpy(v->bytes + *used, bytes, n);
    *used += n;
}

/* The first entry alone, whose name stands in @name: an element with its length. */
static int
read_with_name(const struct example *x, const void *name, size_t n)
{
    AUTO(vault_freep) struct vault *body = NULL, *v = NULL;
    struct span all = body_of(x->stream), whole, inside, header, entries, entry, old;
    size_t used = 0;

    assert_int_equal(der_cut(&all, DER_SEQUENCE, &whole, &inside), 0);
    assert_int_equal(der_cut(&inside, DER_SEQUENCE, &header, &whole), 0);
    assert_int_equal(der_cut(&inside, DER_SEQUENCE, &whole, &entries), 0);
    assert_int_equal(der_cut(&entries, DER_SEQUENCE, &whole, &entry), 0);
    assert_int_equal(der_cut(&entry, DER_UTF8, &whole, &old), 0);
    assert_int_equal(vault_new(&body, 4096, false), 0);
    put(body, &used, header.p, header.n);
    put(body, &used, name, n);
    put(body, &used, entry.p, entry.n);
    assert_int_equal(der_wrap(body, &used, n + entry.n, DER_SEQUENCE), 0);
    assert_int_equal(der_wrap(body, &used, used - header.n, DER_SEQUENCE), 0);
    assert_int_equal(der_wrap(body, &used, used, DER_SEQUENCE), 0);
    all = (struct span){body->bytes, used};
    v = mended(x, &all, true);
    return read_back(x, v->bytes, v->len);
}

static void
refuses_ber_within_an_entry(void **state)
{
    AUTO(example_fini) struct example x;

    (void)state;
    make(&x, false);
    assert_int_equal(read_with_name(&x, "\x0c\x01n", 3), 0);
    assert_int_equal(read_with_name(&x, "\x0c\x81\x01n", 4), -EUCLEAN);
    assert_int_equal(read_with_name(&x, "\x2c\x03\x0c\x01n", 5), -EUCLEAN); /* in parts */
}

static void
refuses_an_entry_in_the_place_of_another(void **state)
{
    AUTO(example_fini) struct example x = {0}, y = {0};
    AUTO(vault_freep) struct vault *v = NULL;
    struct span body;
    size_t a, b;

    (void)state;
    make(&x, true);
    for (;;) {          /* until its numbers are as long */
        make(&y, true); /* the same keys, other IVs */
        a = find(x.stream, "tpm2-00.permall", 15);
        b = find(y.stream, "tpm2-00.permall", 15);
        if (a == b && x.stream->len == y.stream->len)
            break;
        example_fini(&y);
    }
    memcpy(x.stream->bytes + a, y.stream->bytes + b, 780);
    assert_int_equal(read_back(&x, x.stream->bytes, x.stream->len), -EUCLEAN);
    body = body_of(x.stream);
    v = mended(&x, &body, false);
    assert_int_equal(read_back(&x, v->bytes, v->len), -EBADMSG);
}

/* Each entry is bound to its place and name, also for one who could make the tag of the whole. */
static void
binds_each_entry_to_its_place(void **state)
{
    AUTO(example_fini) struct example x = {0};
    AUTO(vault_freep) struct vault *v = NULL;
    struct span body;
    size_t at;

    (void)state;
    make(&x, true);
    at = find(x.stream,
              "\x0c\x01"
              "b",
              3);
    x.stream->bytes[at + 2] = 'c';
    body = body_of(x.stream);
    v = mended(&x, &body, true);
    assert_int_equal(read_back(&x, v->bytes, v->len), -EBADMSG);
}

/* A sealer that writes a one where the padding begins. */
static int
copy(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *out, size_t padded, const void *in,
     size_t len)
{
    (void)s, (void)iv;
    memset(out, 0, padded);
    memcpy(out, in, len);
    return 0;
}

static int
spoil_padding(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *out, size_t padded,
              const void *in, size_t len)
{
    copy(s, iv, out, padded, in, len);
    out[padded - 1] |= 1;
    return 0;
}

static int
leave(struct sealer *s, const uint8_t iv[SEAL_IV_SIZE], uint8_t *buf, size_t len)
{
    (void)s, (void)iv, (void)buf, (void)len;
    return 0;
}

static void
refuses_padding_that_is_not_zero(void **state)
{
    AUTO(example_fini) struct example x = {0};
    struct sealer_ops ops;
    const struct sealer_ops *own;

    (void)state;
    make(&x, true);
    own = x.sealer->ops;
    ops = *own;
    ops.encrypt = copy;
    ops.decrypt = leave;
    x.sealer->ops = &ops;
    vault_freep(&x.stream);
    assert_int_equal(der_write(&x.stream, &x.head, x.entries, ENTRIES, x.sealer), 0);
    assert_int_equal(read_back(&x, x.stream->bytes, x.stream->len), 0);
    ops.encrypt = spoil_padding;
    vault_freep(&x.stream);
    assert_int_equal(der_write(&x.stream, &x.head, x.entries, 1, x.sealer), 0);
    assert_int_equal(read_back(&x, x.stream->bytes, x.stream->len), -EUCLEAN);
    x.sealer->ops = own;
}

static void
opens_nothing_with_another_key(void **state)
{
    AUTO(example_fini) struct example x;
    AUTO(secret_freep) struct secret *key = NULL;

    (void)state;
    make(&x, true);
    sealer_free(x.sealer);
    assert_int_equal(secret_new(&key, VOLUME_KEY_SIZE), 0);
    key->bytes[0] = 1;
    assert_int_equal(sealer_sealed_new(&x.sealer, key, x.head.stream, 1, 24), 0);
    assert_int_equal(read_back(&x, x.stream->bytes, x.stream->len), -EBADMSG);
    sealer_free(x.sealer);
    x.sealer = sealer_plain(); /* nor without one */
    assert_int_equal(read_back(&x, x.stream->bytes, x.stream->len), -EINVAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_back_what_was_put_in),
        cmocka_unit_test(takes_a_store_without_files),
        cmocka_unit_test(shows_no_content_of_a_sealed_store),
        cmocka_unit_test(refuses_every_truncation_and_what_follows),
        cmocka_unit_test(refuses_every_flipped_bit),
        cmocka_unit_test(tells_forged_from_damaged),
        cmocka_unit_test(survives_every_byte_of_a_plain_store_with_its_sums_made_right),
        cmocka_unit_test(refuses_names_that_are_none_or_twice_there),
        cmocka_unit_test(refuses_what_a_newer_program_wrote_and_other_kinds),
        cmocka_unit_test(refuses_values_out_of_range),
        cmocka_unit_test(refuses_ber),
        cmocka_unit_test(refuses_ber_within_an_entry),
        cmocka_unit_test(refuses_an_entry_in_the_place_of_another),
        cmocka_unit_test(binds_each_entry_to_its_place),
        cmocka_unit_test(refuses_padding_that_is_not_zero),
        cmocka_unit_test(opens_nothing_with_another_key),
    };

    report_set_sink(silent, NULL);
    if (crypt_init() < 0)
        return 99;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
