/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/cert.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum {
    INTEGER = 0x02,
    OCTETS = 0x04,
    OID = 0x06,
    UTC_TIME = 0x17,
    TIME = 0x18,
    SEQUENCE = 0x30,
    SET = 0x31,
    VERSION = 0xa0,        /* [0] of a certificate */
    EXTENSIONS = 0xa3,     /* [3] */
    DIRECTORY_NAME = 0xa4, /* [4] of an alternative name */
};

struct span {
    const uint8_t *p;
    size_t n;
};

/* Cuts the next element off @from.  False at the end, and when it is none. */
static bool
next(struct span *from, uint8_t *tag, struct span *body)
{
    size_t head = 2, n;

    if (from->n < 2)
        return false;
    *tag = from->p[0];
    n = from->p[1];
    if (n & 0x80) {
        size_t bytes = n & 0x7f;

        if (bytes == 0 || bytes > 3 || from->n - 2 < bytes)
            return false;
        n = 0;
        for (size_t i = 0; i < bytes; i++)
            n = n << 8 | from->p[2 + i];
        head += bytes;
    }
    if (from->n - head < n)
        return false;
    *body = (struct span){from->p + head, n};
    from->p += head + n;
    from->n -= head + n;
    return true;
}

static bool
expect(struct span *from, uint8_t tag, struct span *body)
{
    uint8_t found;

    return next(from, &found, body) && found == tag;
}

static const char *
attribute_name(const struct span *oid)
{
    static const struct {
        uint8_t oid[6];
        uint8_t n;
        const char *name;
    } known[] = {
        {{0x55, 4, 3}, 3, "CN"},
        {{0x55, 4, 5}, 3, "serialNumber"},
        {{0x55, 4, 6}, 3, "C"},
        {{0x55, 4, 7}, 3, "L"},
        {{0x55, 4, 8}, 3, "ST"},
        {{0x55, 4, 10}, 3, "O"},
        {{0x55, 4, 11}, 3, "OU"},
        {{0x67, 0x81, 5, 2, 1}, 5, "TPMManufacturer"},
        {{0x67, 0x81, 5, 2, 2}, 5, "TPMModel"},
        {{0x67, 0x81, 5, 2, 3}, 5, "TPMVersion"},
        {{0x67, 0x81, 5, 2, 4}, 5, "platformManufacturer"}, /* of TPM 1.2's profile, and of */
        {{0x67, 0x81, 5, 2, 5}, 5, "platformModel"},
        {{0x67, 0x81, 5, 2, 6}, 5, "platformVersion"},
        {{0x67, 0x81, 5, 5, 1, 1}, 6, "platformManufacturer"}, /* TPM 2.0's */
        {{0x67, 0x81, 5, 5, 1, 4}, 6, "platformModel"},
        {{0x67, 0x81, 5, 5, 1, 5}, 6, "platformVersion"},
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (oid->n == known[i].n && memcmp(oid->p, known[i].oid, oid->n) == 0)
            return known[i].name;
    }
    return "?";
}

/* Cut off where it is too long. */
static void
add_value(char text[CERT_TEXT], const char *name, const struct span *value)
{
    size_t n = strlen(text);

    n += (size_t)snprintf(text + n, CERT_TEXT - n, "%s%s=", n ? ", " : "", name);
    for (size_t i = 0; i < value->n && n < CERT_TEXT - 1; i++, n++) {
        uint8_t b = value->p[i];

        text[n] = (char)(b < 0x20 || b == 0x7f ? '?' : b);
        text[n + 1] = '\0';
    }
}

/* A Name: sets of pairs of OID and string. */
static bool
read_name(char text[CERT_TEXT], struct span name)
{
    struct span set, pair, oid, value;
    uint8_t tag;

    *text = '\0';
    while (name.n > 0) {
        if (!expect(&name, SET, &set))
            return false;
        while (set.n > 0) {
            if (!expect(&set, SEQUENCE, &pair) || !expect(&pair, OID, &oid) ||
                !next(&pair, &tag, &value))
                return false;
            if (strlen(text) < CERT_TEXT - 32)
                add_value(text, attribute_name(&oid), &value);
        }
    }
    return true;
}

/* "YYMMDDHHMMSSZ" or "YYYYMMDDHHMMSSZ" */
static bool
read_time(char text[20], struct span from)
{
    struct span t;
    uint8_t tag;
    char digits[16] = "20";
    size_t n;

    if (!next(&from, &tag, &t) || !next(&from, &tag, &t) || (tag != UTC_TIME && tag != TIME))
        return false;
    n = tag == TIME ? 14 : 12;
    if (t.n < n || strspn((const char *)memcpy((char[16]){0}, t.p, n), "0123456789") != n)
        return false;
    memcpy(digits + (tag == TIME ? 0 : 2), t.p, n);
    snprintf(text, 20, "%.4s-%.2s-%.2sT%.2s:%.2s:%.2s", digits, digits + 4, digits + 6, digits + 8,
             digits + 10, digits + 12);
    return true;
}

/* The directory name within a subject's alternative name; nothing where there is none. */
static void
read_alternative(char text[CERT_TEXT], struct span extensions)
{
    static const uint8_t wanted[] = {0x55, 0x1d, 0x11};
    struct span one, oid, value, names, name, inner;
    uint8_t tag;

    if (!expect(&extensions, SEQUENCE, &one))
        return;
    extensions = one;
    while (expect(&extensions, SEQUENCE, &one)) {
        if (!expect(&one, OID, &oid) || !next(&one, &tag, &value))
            return;
        if (tag != OCTETS && !expect(&one, OCTETS, &value)) /* whether it is critical */
            return;
        if (oid.n != sizeof wanted || memcmp(oid.p, wanted, sizeof wanted) != 0 ||
            !expect(&value, SEQUENCE, &names))
            continue;
        while (next(&names, &tag, &name)) {
            if (tag == DIRECTORY_NAME && expect(&name, SEQUENCE, &inner) && !read_name(text, inner))
                *text = '\0';
        }
    }
}

static bool
read_serial(char text[64], struct span *tbs)
{
    struct span serial;

    if (!expect(tbs, INTEGER, &serial) || serial.n == 0 || serial.n > 31)
        return false;
    for (size_t i = 0; i < serial.n; i++)
        snprintf(text + 2 * i, 3, "%02x", serial.p[i]);
    return true;
}

int
cert_read(struct cert *cert, const uint8_t *der, size_t len)
{
    struct span all = {der, len}, whole, tbs, body, rest;
    struct cert c = {0};
    uint8_t tag;

    if (!expect(&all, SEQUENCE, &whole) || !expect(&whole, SEQUENCE, &tbs))
        return -EUCLEAN;
    c.len = len - all.n;
    rest = tbs;
    if (next(&rest, &tag, &body) && tag == VERSION)
        tbs = rest;
    if (!read_serial(c.serial, &tbs) || !expect(&tbs, SEQUENCE, &body) /* algorithm */ ||
        !expect(&tbs, SEQUENCE, &body) || !read_name(c.issuer, body) ||
        !expect(&tbs, SEQUENCE, &body) || !read_time(c.not_after, body) ||
        !expect(&tbs, SEQUENCE, &body) || !read_name(c.subject, body))
        return -EUCLEAN;
    while (next(&tbs, &tag, &body)) {
        if (tag == EXTENSIONS)
            read_alternative(c.tpm, body);
    }
    *cert = c;
    return 0;
}
