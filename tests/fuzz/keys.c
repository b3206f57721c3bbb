/* SPDX-License-Identifier: BSD-3-Clause */
/* Keys as files and people give them, and key slots as images hold them.  The first byte picks. */
#include "base/report.h"
#include "crypt/keyslot.h"
#include "crypt/keysource.h"
#include "crypt/recovery.h"
#include "tests/fuzz/fuzz.h"
#include <errno.h>
#include <string.h>

static void
silent(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level, (void)line;
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    report_set_sink(silent, NULL);
    MUST(crypt_init() == 0);
    return 0;
}

static void
try_keyslot(const uint8_t *data, size_t size)
{
    uint8_t buf[KEYSLOT_SIZE] = {0}, again[KEYSLOT_SIZE];
    struct keyslot ks;
    int r;

    memcpy(buf, data, size < sizeof buf ? size : sizeof buf);
    r = keyslot_decode(&ks, buf);
    MUST(r == 0 || r == -ENODATA || r == -EPROTONOSUPPORT || r == -EUCLEAN);
    if (r < 0)
        return;
    MUST(keyslot_type_name(ks.type) != NULL);
    MUST(ks.type != KEYSLOT_PASSPHRASE || kdf_cost_ok(&ks.cost));
    keyslot_encode(&ks, again);
    MUST(memcmp(buf, again, sizeof buf) == 0); /* nothing passes that we would not write */
}

static void
try_recovery(const struct secret *text)
{
    struct secret *key = NULL, *shown = NULL, *again = NULL;
    unsigned group = 0;
    int r = recovery_parse(&key, text, &group);

    MUST(r == 0 || r == -ENOENT || (r == -EINVAL && group >= 1 && group <= RECOVERY_GROUPS));
    if (r == 0) {
        MUST(key->len == RECOVERY_SIZE && secret_new(&shown, RECOVERY_TEXT) == 0);
        recovery_format(key, shown);
        shown->len--;
        MUST(recovery_parse(&again, shown, &group) == 0 && secret_equal(key, again));
        shown->len++;
    }
    secret_free(key);
    secret_free(shown);
    secret_free(again);
}

static void
try_source(unsigned which, const struct secret *text)
{
    struct secret *key = NULL;
    int r = which == 0   ? keysource_parse_hex(&key, text, "key")
            : which == 1 ? keysource_parse_binary(&key, text, "key")
                         : keysource_parse_passphrase(&key, text, "key");

    MUST(r == 0 || r == -EINVAL);
    if (r == 0 && which == 2)
        MUST(key->len >= 1 && key->len <= PASSPHRASE_MAX);
    else if (r == 0)
        MUST(key->len == 16 || key->len == 24 || key->len == 32);
    secret_free(key);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct secret *text = NULL;

    if (size == 0 || size > 2 * PASSPHRASE_MAX)
        return 0;
    if (data[0] % 5 == 4) {
        try_keyslot(data + 1, size - 1);
        return 0;
    }
    MUST(secret_copy(&text, data + 1, size - 1) == 0);
    if (data[0] % 5 == 3)
        try_recovery(text);
    else
        try_source(data[0] % 5, text);
    secret_free(text);
    return 0;
}
