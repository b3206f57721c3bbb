/* SPDX-License-Identifier: BSD-3-Clause */
/* cert.h - whose an X.509 certificate is, as far as a person wants to know who finds one in a TPM.
 * It verifies nothing.  Pure: no I/O, no state, no locks. */
#ifndef VNVRAM_TPM_CERT_H
#define VNVRAM_TPM_CERT_H

#include <stddef.h>
#include <stdint.h>

enum { CERT_TEXT = 256 };

struct cert {
    size_t len;              /* of the certificate; the rest of the buffer is not its */
    char serial[64];         /* hexadecimal digits */
    char issuer[CERT_TEXT];  /* "CN=..., O=..."; bytes of others, without control characters */
    char subject[CERT_TEXT]; /* often empty in an EK certificate, which names the TPM here: */
    char tpm[CERT_TEXT];     /* manufacturer, model and version, of the alternative name */
    char not_after[20];      /* "2036-11-30T09:26:30" */
};

/* Reads the certificate at the start of @len untrusted bytes: 0, or -EUCLEAN (not reported) when
 * there is none. */
int cert_read(struct cert *cert, const uint8_t *der, size_t len);

#endif
