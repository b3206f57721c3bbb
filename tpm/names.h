/* SPDX-License-Identifier: BSD-3-Clause */
/* names.h - the TPM 2.0 specification's names for what is a number in a TPM's state. */
#ifndef VNVRAM_TPM_NAMES_H
#define VNVRAM_TPM_NAMES_H

#include "tpm/permall.h"

enum { NV_ATTRIBUTES_TEXT = 512, KEY_TEXT = 48 };

/* "ownerread|ownerwrite|nt=counter|written": the specification's names, as tpm2-tools writes them.
 * @buf is returned. */
const char *nv_attributes_text(char buf[NV_ATTRIBUTES_TEXT], uint32_t attributes);
/* "fixedtpm|fixedparent|..."; the same of TPMA_OBJECT. */
const char *key_attributes_text(char buf[NV_ATTRIBUTES_TEXT], uint32_t attributes);
/* "RSA 2048", "ECC NIST P-256", "AES 128". */
const char *key_text(char buf[KEY_TEXT], const struct permall_key *key);
const char *tpm_hash_name(uint16_t alg); /* "sha256"; "?" for what is not known */

#endif
