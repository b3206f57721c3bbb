/* SPDX-License-Identifier: BSD-3-Clause */
/* swtpm's envelope around a TPM's state. */
#include "tpm/envelope.h"
#include "base/report.h"
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
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *blob = NULL, *again = NULL;
    uint8_t *whole;
    size_t len = 0, again_len = 0;
    int r = envelope_decode(data, size, "state", &blob, &len);

    MUST(r == 0 || r == -EUCLEAN || r == -EPROTONOSUPPORT);
    if (r < 0)
        return 0;
    MUST(blob >= data && len <= size && blob - data <= (ptrdiff_t)(size - len));
    whole = malloc(ENVELOPE_SIZE + len);
    MUST(whole);
    envelope_encode(whole, (uint32_t)len);
    memcpy(whole + ENVELOPE_SIZE, blob, len);
    r = envelope_decode(whole, ENVELOPE_SIZE + len, "state", &again, &again_len);
    MUST(len == 0 || (r == 0 && again == whole + ENVELOPE_SIZE && again_len == len));
    free(whole);
    return 0;
}
