/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypt/recovery.h"
#include "base/bytes.h"
#include "base/scope.h"
#include <assert.h>
#include <errno.h>

enum { GROUP_DIGITS = 6, DIGITS = RECOVERY_GROUPS * GROUP_DIGITS, CHECK = 11 };

void
recovery_format(const struct secret *key, struct secret *text)
{
    assert(key->len == RECOVERY_SIZE && text->len == RECOVERY_TEXT);
    for (int g = 0; g < RECOVERY_GROUPS; g++) {
        uint32_t v = (uint32_t)load_be16(key->bytes + 2 * g) * CHECK;

        for (int i = GROUP_DIGITS - 1; i >= 0; i--, v /= 10)
            text->bytes[g * 7 + i] = (uint8_t)('0' + v % 10);
        text->bytes[g * 7 + 6] = g < RECOVERY_GROUPS - 1 ? '-' : '\0';
    }
}

/* Keeps the digits of @text: -ENOENT unless there are 48, and nothing but spaces and dashes. */
static int
only_digits(struct secret *digits, const struct secret *text)
{
    size_t n = 0;

    for (size_t i = 0; i < text->len; i++) {
        uint8_t c = text->bytes[i];

        if (c == ' ' || c == '-')
            continue;
        if (c < '0' || c > '9' || n == DIGITS)
            return -ENOENT;
        digits->bytes[n++] = c;
    }
    return n == DIGITS ? 0 : -ENOENT;
}

int
recovery_parse(struct secret **key, const struct secret *text, unsigned *group)
{
    AUTO(secret_freep) struct secret *digits = NULL, *k = NULL;
    int r;

    if ((r = secret_new(&digits, DIGITS)) < 0 || (r = secret_new(&k, RECOVERY_SIZE)) < 0 ||
        (r = only_digits(digits, text)) < 0)
        return r;
    for (unsigned g = 0; g < RECOVERY_GROUPS; g++) {
        uint32_t v = 0;

        for (int i = 0; i < GROUP_DIGITS; i++)
            v = v * 10 + (digits->bytes[g * GROUP_DIGITS + i] - '0');
        if (v % CHECK != 0 || v / CHECK > UINT16_MAX) {
            *group = g + 1;
            return -EINVAL;
        }
        store_be16(k->bytes + 2 * g, (uint16_t)(v / CHECK));
    }
    *key = steal(&k);
    return 0;
}
