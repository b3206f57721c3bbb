/* SPDX-License-Identifier: BSD-3-Clause */
#include "der/node.h"
#include "base/report.h"
#include "base/scope.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

extern const asn1_static_node vnvram_asn1[]; /* made from doc/vnvram.asn1 */

enum { CONSTRUCTED = 0x20, DEPTH = 8, NUMBER = 8, LENGTH_MAX = 1 + sizeof(long), MODULE_NAME = 64 };

static int
no_memory(void)
{
    return report(-ENOMEM, "out of memory");
}

static void
fail(int asn1, int *r)
{
    if (asn1 != ASN1_SUCCESS && *r == 0)
        *r = no_memory();
}

void
node_freep(asn1_node *node)
{
    if (*node)
        asn1_delete_structure2(node, ASN1_DELETE_FLAG_ZEROIZE);
}

int
node_new(asn1_node *node, const char *type)
{
    AUTO(node_freep) asn1_node module = NULL;
    char name[MODULE_NAME];
    int r = 0;

    snprintf(name, sizeof name, "VNVRAM.%s", type);
    *node = NULL;
    fail(asn1_array2tree(vnvram_asn1, &module, NULL), &r);
    if (r == 0)
        fail(asn1_create_element(module, name, node), &r);
    return r;
}

/* ---- values ------------------------------------------------------------------------------------
 */

void
node_put_number(asn1_node node, const char *field, int64_t value, int *r)
{
    uint8_t be[NUMBER];

    for (int i = 0; i < NUMBER; i++)
        be[i] = (uint8_t)((uint64_t)value >> (8 * (NUMBER - 1 - i)));
    fail(asn1_write_value(node, field, be, NUMBER), r); /* takes away what is not needed */
}

void
node_put_bytes(asn1_node node, const char *field, const void *bytes, size_t n, int *r)
{
    /* A length of 0 would stand for strlen(). */
    fail(asn1_write_value(node, field, n ? bytes : "", n ? (int)n : 0), r);
}

void
node_choose(asn1_node node, const char *field, const char *alternative, int *r)
{
    fail(asn1_write_value(node, field, alternative, 1), r);
}

void
node_leave_out(asn1_node node, const char *field, int *r)
{
    fail(asn1_write_value(node, field, NULL, 0), r);
}

bool
node_get_some(asn1_node node, const char *field, void *bytes, size_t max, size_t *n)
{
    int len = (int)max;

    if (asn1_read_value(node, field, bytes, &len) != ASN1_SUCCESS || len < 0)
        return false;
    *n = (size_t)len;
    return *n <= max;
}

bool
node_get_number(asn1_node node, const char *field, int64_t *value)
{
    uint8_t be[NUMBER];
    uint64_t v;
    size_t n;

    if (!node_get_some(node, field, be, sizeof be, &n) || n == 0)
        return false;
    v = be[0] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | be[i];
    *value = (int64_t)v;
    return true;
}

bool
node_get_bytes(asn1_node node, const char *field, void *bytes, size_t n)
{
    size_t got;

    return node_get_some(node, field, bytes, n, &got) && got == n;
}

int
node_get_vault(asn1_node node, const char *field, struct vault **v)
{
    int len = 0, got = asn1_read_value(node, field, NULL, &len), r;

    if ((got != ASN1_SUCCESS && got != ASN1_MEM_ERROR) || len < 0)
        return -EUCLEAN;
    r = vault_new(v, (size_t)len, false);
    if (r < 0)
        return r;
    return len == 0 || node_get_bytes(node, field, (*v)->bytes, (size_t)len) ? 0 : -EUCLEAN;
}

bool
node_chose(asn1_node node, const char *field, const char *alternative)
{
    char name[32];
    size_t n;

    return node_get_some(node, field, name, sizeof name, &n) && strcmp(name, alternative) == 0;
}

/* ---- DER ---------------------------------------------------------------------------------------
 */

int
node_encode(asn1_node node, struct vault *out, size_t *used)
{
    int len = 0, r = asn1_der_coding(node, "", NULL, &len, NULL);

    if (r != ASN1_MEM_ERROR || len <= 0)
        return no_memory();
    if (out->len < *used + (size_t)len) {
        r = vault_grow(out, *used + (size_t)len + *used / 2);
        if (r < 0)
            return r;
    }
    if (asn1_der_coding(node, "", out->bytes + *used, &len, NULL) != ASN1_SUCCESS)
        return no_memory();
    *used += (size_t)len;
    return 0;
}

int
der_cut(struct span *from, uint8_t tag, struct span *whole, struct span *body)
{
    unsigned char shortest[LENGTH_MAX];
    int bytes = 0, shortest_len = 0;
    long len;

    if (from->n < 2)
        return -ERANGE;
    if (from->p[0] != tag)
        return -EUCLEAN;
    len = asn1_get_length_der(from->p + 1, (int)from->n - 1, &bytes);
    if (len == -4)
        return -ERANGE;
    if (len < 0)
        return -EUCLEAN;
    asn1_length_der((unsigned long)len, shortest, &shortest_len);
    if (bytes != shortest_len || memcmp(from->p + 1, shortest, (size_t)bytes) != 0)
        return -EUCLEAN; /* a length that is itself cut off, libtasn1 takes for 0 */
    *body = (struct span){from->p + 1 + bytes, (size_t)len};
    *whole = (struct span){from->p, 1 + (size_t)bytes + (size_t)len};
    from->p += whole->n;
    from->n -= whole->n;
    return 0;
}

static bool
is_shortest_number(const struct span *n)
{
    return n->n == 1 || (n->n > 1 && n->p[0] != (n->p[1] & 0x80 ? 0xff : 0));
}

/* Whether @all is elements in DER, of the kinds that the module has.  libtasn1's strict mode lets
 * lengths and numbers pass that are not the shortest. */
static bool
is_der(struct span all, int depth)
{
    while (all.n > 0) {
        const uint8_t tag = all.p[0];
        struct span whole, body;

        if ((tag != DER_INTEGER && tag != DER_OCTETS && tag != DER_UTF8 && tag != DER_TIME &&
             tag != DER_SEQUENCE && tag != DER_OPTION) ||
            der_cut(&all, tag, &whole, &body) < 0)
            return false;
        if (tag == DER_INTEGER && !is_shortest_number(&body))
            return false;
        if (tag & CONSTRUCTED && (depth == 0 || !is_der(body, depth - 1)))
            return false;
    }
    return true;
}

int
node_decode(asn1_node *node, const char *type, const struct span *der)
{
    int len = (int)der->n, r = is_der(*der, DEPTH) ? node_new(node, type) : -EUCLEAN;

    if (r < 0)
        return r;
    r = asn1_der_decoding2(node, der->p, &len, ASN1_DECODE_FLAG_STRICT_DER, NULL);
    if (r == ASN1_MEM_ALLOC_ERROR || r == ASN1_MEM_ERROR)
        return no_memory();
    return r == ASN1_SUCCESS ? 0 : -EUCLEAN;
}

int
der_wrap(struct vault *out, size_t *used, size_t n, uint8_t tag)
{
    unsigned char length[LENGTH_MAX];
    int bytes = 0, r;
    uint8_t *at;

    asn1_length_der(n, length, &bytes);
    r = vault_grow(out, *used + 1 + (size_t)bytes);
    if (r < 0)
        return r;
    at = out->bytes + *used - n;
    memmove(at + 1 + bytes, at, n);
    *at = tag;
    memcpy(at + 1, length, (size_t)bytes);
    *used += 1 + (size_t)bytes;
    return 0;
}
