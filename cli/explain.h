/* SPDX-License-Identifier: BSD-3-Clause */
/* explain.h - what a stored blob is: a TPM's state in swtpm's envelope or without it, UEFI
 * variables, or nothing that is known. */
#ifndef VNVRAM_CLI_EXPLAIN_H
#define VNVRAM_CLI_EXPLAIN_H

#include "cli/varstore.h"
#include "tpm/envelope.h"
#include "tpm/permall.h"
#include <stdbool.h>

enum kind {
    KIND_UNKNOWN,
    KIND_EMPTY,
    KIND_TPM2_PERMANENT,
    KIND_TPM2_VOLATILE,
    KIND_TPM12,
    KIND_TPM_ENCRYPTED, /* by swtpm: which state it is, only its key tells */
    KIND_UEFI_VARIABLES,
};

struct explained {
    enum kind kind;
    bool has_envelope;
    struct envelope envelope;
    uint16_t version, min_version; /* TPM 2.0 */
    struct permall permall;        /* TPM2_PERMANENT; points into the blob */
    struct varstore varstore;      /* UEFI_VARIABLES */
};

/* Looks at @len bytes of the file @name.  Returns 0, or -EUCLEAN or -EPROTONOSUPPORT (reported)
 * when it is of a kind that is known, and damaged or too new; .kind says which even then.  End with
 * explain_fini(). */
int explain(struct explained *x, const uint8_t *buf, size_t len, const char *name);
void explain_fini(struct explained *x);

/* For people, on stdout; for programs, members of @o. */
const char *explain_kind_text(const struct explained *x);
void explain_print(const struct explained *x);
struct json_object;
void explain_json(const struct explained *x, struct json_object *o);

/* NV memory of a TPM 2.0 that is free. */
uint64_t explain_nv_left(const struct permall *p);

#endif
