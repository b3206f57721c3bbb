/* SPDX-License-Identifier: BSD-3-Clause */
/* A TPM's state as it is looked at, and certificates in it. */
#include "tpm/permall.h"
#include "base/report.h"
#include "tests/fuzz/fuzz.h"
#include "tpm/cert.h"
#include "tpm/envelope.h"
#include "tpm/names.h"
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

static void
look(const struct permall *p, const uint8_t *data, size_t size)
{
    char text[NV_ATTRIBUTES_TEXT], kind[KEY_TEXT];
    struct cert cert;

    MUST(p->nv_used <= p->nv_size && p->ram_used <= p->ram_size);
    MUST(!p->profile || strlen(p->profile) < size);
    for (size_t i = 0; i < p->n_indices; i++) {
        const struct permall_index *x = &p->indices[i];

        MUST(strlen(nv_attributes_text(text, x->attributes)) < sizeof text);
        MUST(!x->data || (x->data >= data && x->data_len <= size - (size_t)(x->data - data)));
        if (x->data)
            cert_read(&cert, x->data, x->data_len);
    }
    for (size_t i = 0; i < p->n_keys; i++) {
        MUST(strlen(key_text(kind, &p->keys[i])) < sizeof kind);
        MUST(strlen(key_attributes_text(text, p->keys[i].attributes)) < sizeof text);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct envelope e = {0};
    struct permall p = {0};
    struct cert cert;
    uint16_t version, least;
    int r = envelope_read(&e, data, size);

    MUST(r == 0 || r == -EUCLEAN);
    MUST(e.n_records <= ENVELOPE_RECORDS);
    r = cert_read(&cert, data, size);
    MUST(r == -EUCLEAN || (r == 0 && cert.len <= size && strlen(cert.subject) < CERT_TEXT));
    blob_probe(data, size, &version, &least);
    r = permall_parse(&p, data, size, "state");
    MUST(r == 0 || r == -EUCLEAN || r == -EPROTONOSUPPORT);
    if (r == 0)
        look(&p, data, size);
    permall_fini(&p);
    return 0;
}
