/* SPDX-License-Identifier: BSD-3-Clause */
/* States and migration blobs of swtpm, with and without its keys. */
#include "base/report.h"
#include "crypt/keys.h"
#include "swtpm/blob.h"
#include "tests/fuzz/fuzz.h"
#include <errno.h>
#include <string.h>

/* That of the seed "state-hex128", and one of the other size. */
static const uint8_t key_128[16] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                    0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
static struct secret *short_key, *long_key;

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
    MUST(secret_copy(&short_key, key_128, sizeof key_128) == 0 && secret_new(&long_key, 32) == 0);
    return 0;
}

static void
try_open(const uint8_t *data, size_t size, const struct swtpm_keys *keys)
{
    struct vault *blob = NULL, *raw = NULL, *again = NULL;
    int r = swtpm_blob_open(data, size, "state", keys, &blob);

    MUST(r == 0 || r == -ERANGE || r == -EMEDIUMTYPE || r == -EUCLEAN || r == -EPROTONOSUPPORT ||
         r == -ENOKEY || r == -EKEYREJECTED || r == -EKEYREVOKED);
    MUST((r == 0) == (blob != NULL));
    if (r < 0)
        return;
    MUST(blob->len > 0 && blob->len < size);
    MUST(swtpm_blob_seal(blob, data[5] & 4, keys, &raw) == 0);
    MUST(swtpm_blob_open(raw->bytes, raw->len, "state", keys, &again) == 0);
    MUST(again->len == blob->len && memcmp(again->bytes, blob->bytes, blob->len) == 0);
    vault_free(blob);
    vault_free(raw);
    vault_free(again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_open(data, size, &(struct swtpm_keys){NULL, NULL});
    try_open(data, size, &(struct swtpm_keys){short_key, long_key});
    (void)swtpm_blob_is_encrypted(data, size);
    return 0;
}
