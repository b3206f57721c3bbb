/* SPDX-License-Identifier: BSD-3-Clause */
/* node.h - one value of a type of doc/vnvram.asn1, in libtasn1's memory, which is wiped with it;
 * and the cutting of DER into such values without holding all of it there.
 *
 * put_ functions remember the first failure in *@r, so that a whole value can be filled before it
 * is looked at; -ENOMEM is all that can go wrong.  Wherever it does, it has been reported. */
#ifndef VNVRAM_DER_NODE_H
#define VNVRAM_DER_NODE_H

#include "crypt/vault.h"
#include <libtasn1.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct span {
    const uint8_t *p;
    size_t n;
};

/* A value of @type, "Entry". */
int node_new(asn1_node *node, const char *type);
void node_freep(asn1_node *node);

void node_put_number(asn1_node node, const char *field, int64_t value, int *r);
void node_put_bytes(asn1_node node, const char *field, const void *bytes, size_t n, int *r);
void node_choose(asn1_node node, const char *field, const char *alternative, int *r);

void node_leave_out(asn1_node node, const char *field, int *r); /* that is OPTIONAL */

/* Those that read are false when the field is not there or does not fit. */
bool node_get_number(asn1_node node, const char *field, int64_t *value);
bool node_get_bytes(asn1_node node, const char *field, void *bytes, size_t n); /* exactly @n */
/* At most @max bytes. */
bool node_get_some(asn1_node node, const char *field, void *bytes, size_t max, size_t *n);
int node_get_vault(asn1_node node, const char *field, struct vault **v); /* 0, -EUCLEAN, -ENOMEM */
bool node_chose(asn1_node node, const char *field, const char *alternative);

/* Appends the value's DER to the first *@used bytes of @out. */
int node_encode(asn1_node node, struct vault *out, size_t *used);
/* Reads a value of @type from exactly @der: 0, -EUCLEAN when it is none or not DER, -ENOMEM.  There
 * is one encoding of each value, and only that is taken. */
int node_decode(asn1_node *node, const char *type, const struct span *der);

/* Cuts the next element with @tag off @from: all of it, and what is in it.  0, -ERANGE when it goes
 * on past the end, -EUCLEAN when there is none or its length is not DER. */
int der_cut(struct span *from, uint8_t tag, struct span *whole, struct span *body);
/* Puts @tag and length in front of the last @n of *@used bytes. */
int der_wrap(struct vault *out, size_t *used, size_t n, uint8_t tag);

enum {
    DER_INTEGER = 0x02,
    DER_OCTETS = 0x04,
    DER_UTF8 = 0x0c,
    DER_TIME = 0x18,
    DER_SEQUENCE = 0x30,
    DER_OPTION = 0xa0, /* [0] */
};

#endif
