/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/report.h"
#include "tpm/envelope.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
/* after the above */
#include <cmocka.h>

/* As swtpm writes it: version 2, at least 1, 10 bytes, no flags, 19 bytes; DATA, 3 bytes. */
static const uint8_t golden[] = {0x02, 0x01, 0x00, 0x0a, 0x00, 0x00, 0x00, 0x00, 0x00, 0x13,
                                 0x00, 0x01, 0x00, 0x00, 0x00, 0x03, 'T',  'P',  'M'};

/* And as its GET_STATEBLOB sends it. */
static const uint8_t travelling[] = {0x02, 0x01, 0x00, 0x0a, 0x00, 0x04, 0x00, 0x00, 0x00,
                                     0x19, 0x00, 0x04, 0x00, 0x00, 0x00, 0x09, 0x00, 0x01,
                                     0x00, 0x00, 0x00, 0x03, 'T',  'P',  'M'};

static char last[512];

static void
remember(void *arg, enum report_level level, const char *line)
{
    (void)arg;
    (void)level;
    strncpy(last, line, sizeof last - 1);
}

static int
decode(const uint8_t *buf, size_t len)
{
    const uint8_t *blob = NULL;
    size_t n = 0;
    int r = envelope_decode(buf, len, "x", &blob, &n);

    assert_true(r == 0 || (blob == NULL && n == 0));
    return r;
}

static void
encodes_what_swtpm_writes(void **state)
{
    uint8_t out[ENVELOPE_SIZE];

    (void)state;
    envelope_encode(out, 3);
    assert_memory_equal(out, golden, sizeof out);
}

static void
decodes_what_swtpm_writes(void **state)
{
    const uint8_t *blob;
    size_t n;

    (void)state;
    assert_int_equal(envelope_decode(golden, sizeof golden, "x", &blob, &n), 0);
    assert_ptr_equal(blob, golden + ENVELOPE_SIZE);
    assert_int_equal(n, 3);
}

static void
refuses_every_truncation(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof golden; len++)
        assert_int_equal(decode(golden, len), -EUCLEAN);
}

static void
refuses_trailing_bytes(void **state)
{
    uint8_t buf[sizeof golden + 1] = {0};

    (void)state;
    memcpy(buf, golden, sizeof golden);
    assert_int_equal(decode(buf, sizeof buf), -EUCLEAN);
    buf[9]++; /* also when the header counts them */
    assert_int_equal(decode(buf, sizeof buf), -EUCLEAN);
}

static void
refuses_every_flipped_bit_of_the_header(void **state)
{
    (void)state;
    for (size_t bit = 0; bit < ENVELOPE_SIZE * 8; bit++) {
        uint8_t buf[sizeof golden];

        memcpy(buf, golden, sizeof buf);
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_true(decode(buf, sizeof buf) < 0);
    }
}

/* Nor one that only a newer swtpm can read. */
static void
refuses_other_versions(void **state)
{
    uint8_t buf[sizeof golden];

    (void)state;
    memcpy(buf, golden, sizeof buf);
    buf[1] = 2;
    assert_int_equal(decode(buf, sizeof buf), -EPROTONOSUPPORT);
    buf[0] = 3;
    assert_int_equal(decode(buf, sizeof buf), -EPROTONOSUPPORT);
    buf[1] = 1;
    assert_int_equal(decode(buf, sizeof buf), -EPROTONOSUPPORT);
}

static void
refuses_an_empty_blob(void **state)
{
    uint8_t buf[ENVELOPE_SIZE];

    (void)state;
    envelope_encode(buf, 0);
    assert_int_equal(decode(buf, sizeof buf), -EUCLEAN);
}

static void
names_encryption_and_migration(void **state)
{
    static const struct {
        uint8_t flags;
        const char *word;
    } cases[] = {{0x01, "encrypted"}, {0x09, "encrypted"}, {0x02, "migration"},
                 {0x04, "migration"}, {0x16, "migration"}, {0x05, "migration"}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t buf[sizeof golden];

        memcpy(buf, golden, sizeof buf);
        buf[5] = cases[i].flags;
        assert_int_equal(decode(buf, sizeof buf), -EPROTONOSUPPORT);
        assert_non_null(strstr(last, cases[i].word));
    }
}

static void
encodes_and_decodes_what_travels(void **state)
{
    uint8_t out[sizeof travelling], copy[sizeof travelling];
    const uint8_t *blob = NULL;
    size_t n = 0;

    (void)state;
    envelope_encode_migration(out, 3);
    memcpy(out + ENVELOPE_MIGRATION_SIZE, "TPM", 3);
    assert_memory_equal(out, travelling, sizeof out);
    assert_int_equal(envelope_decode_migration(out, sizeof out, "x", &blob, &n), 0);
    assert_ptr_equal(blob, out + ENVELOPE_MIGRATION_SIZE);
    assert_int_equal(n, 3);
    assert_int_equal(envelope_decode_migration(golden, sizeof golden, "x", &blob, &n), 0);
    assert_ptr_equal(blob, golden + ENVELOPE_SIZE);
    assert_int_equal(n, 3);
    for (size_t len = 0; len < sizeof out; len++)
        assert_true(envelope_decode_migration(out, len, "x", &blob, &n) < 0);
    for (size_t bit = 0; bit < 8 * ENVELOPE_MIGRATION_SIZE; bit++) {
        memcpy(copy, out, sizeof copy);
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_true(envelope_decode_migration(copy, sizeof copy, "x", &blob, &n) < 0);
    }
    assert_int_equal(decode(travelling, sizeof travelling), -EPROTONOSUPPORT);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes_what_swtpm_writes),
        cmocka_unit_test(encodes_and_decodes_what_travels),
        cmocka_unit_test(decodes_what_swtpm_writes),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(refuses_trailing_bytes),
        cmocka_unit_test(refuses_every_flipped_bit_of_the_header),
        cmocka_unit_test(refuses_other_versions),
        cmocka_unit_test(refuses_an_empty_blob),
        cmocka_unit_test(names_encryption_and_migration),
    };

    report_set_sink(remember, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
