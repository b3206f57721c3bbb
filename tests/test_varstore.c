/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/bytes.h"
#include "cli/varstore.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
/* after the above */
#include <cmocka.h>

enum { HEAD = 72, STORE = 1024, VOLUME = HEAD + STORE + 64 };

/* A volume as EDK II makes it, with variables of each state. */
struct volume {
    uint8_t buf[VOLUME];
    size_t end; /* of the last variable, within the store */
};

static void
put_sum(uint8_t *buf)
{
    uint16_t sum = 0;

    store_le16(buf + 50, 0);
    for (size_t i = 0; i < HEAD; i += 2)
        sum = (uint16_t)(sum + load_le16(buf + i));
    store_le16(buf + 50, (uint16_t)-sum);
}

static void
put_variable(struct volume *v, uint8_t state, uint32_t name, uint32_t data)
{
    uint8_t *p = v->buf + HEAD + v->end;

    memset(p, 0, 60 + name + data);
    store_le16(p, 0x55aa);
    p[2] = state;
    store_le32(p + 36, name);
    store_le32(p + 40, data);
    v->end += (60 + name + data + 3) & ~3U;
}

static void
make(struct volume *v)
{
    static const uint8_t guid[] = {0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c,
                                   0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50};
    static const uint8_t store[] = {0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43,
                                    0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92};

    memset(v->buf, 0xff, VOLUME);
    memset(v->buf, 0, HEAD + 28);
    memcpy(v->buf + 16, guid, 16);
    store_le64(v->buf + 32, VOLUME);
    memcpy(v->buf + 40, "_FVH", 4);
    store_le16(v->buf + 48, HEAD);
    v->buf[55] = 2;
    put_sum(v->buf);
    memcpy(v->buf + HEAD, store, 16);
    store_le32(v->buf + HEAD + 16, STORE);
    v->buf[HEAD + 20] = 0x5a;
    v->buf[HEAD + 21] = 0xfe;
    v->end = 28;
    put_variable(v, 0x3f, 10, 1);
    put_variable(v, 0x3c, 8, 100); /* deleted */
    put_variable(v, 0x3e, 12, 7);  /* being replaced */
}

static int
read_exactly(struct varstore *s, const uint8_t *buf, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1);
    int r;

    assert_non_null(exact);
    memcpy(exact, buf, n);
    r = varstore_read(s, exact, n);
    free(exact);
    return r;
}

static void
counts_variables_and_the_room_they_take(void **state)
{
    struct volume v;
    struct varstore s;

    (void)state;
    make(&v);
    assert_int_equal(read_exactly(&s, v.buf, VOLUME), 0);
    assert_int_equal(s.volume, VOLUME);
    assert_int_equal(s.revision, 2);
    assert_int_equal(s.size, STORE);
    assert_int_equal(s.used, v.end);
    assert_int_equal(s.variables, 2);
    assert_int_equal(s.deleted, 1);
    assert_true(s.authenticated && s.whole);
}

static void
says_where_the_list_cannot_be_read(void **state)
{
    struct volume v;
    struct varstore s;

    (void)state;
    make(&v);
    v.buf[HEAD + v.end] = 0x12;
    assert_int_equal(read_exactly(&s, v.buf, VOLUME), 0);
    assert_false(s.whole);
    make(&v);
    store_le32(v.buf + HEAD + 28 + 40, 0xfffffff0); /* the first variable's length */
    assert_int_equal(read_exactly(&s, v.buf, VOLUME), 0);
    assert_int_equal(s.variables, 0);
    assert_false(s.whole);
}

static void
tells_a_damaged_volume_from_none(void **state)
{
    struct volume v;
    struct varstore s;

    (void)state;
    make(&v);
    for (size_t n = 0; n < VOLUME; n++)
        assert_int_equal(read_exactly(&s, v.buf, n), n < 56 ? -ENODATA : -EUCLEAN);
    for (size_t bit = 0; bit < 8 * (HEAD + 24); bit++) {
        size_t at = bit / 8;
        int r;

        v.buf[at] ^= (uint8_t)(1 << bit % 8);
        r = read_exactly(&s, v.buf, VOLUME);
        assert_true(r == -ENODATA || r == -EUCLEAN ||
                    (r == 0 && at >= HEAD + 16)); /* a store that is a little smaller */
        v.buf[at] ^= (uint8_t)(1 << bit % 8);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_variables_and_the_room_they_take),
        cmocka_unit_test(says_where_the_list_cannot_be_read),
        cmocka_unit_test(tells_a_damaged_volume_from_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
