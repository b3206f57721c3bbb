/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/explain.h"
#include "base/report.h"
#include "cli/image.h"
#include "tpm/cert.h"
#include "tpm/names.h"
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

enum { FLAG_BITS = 16, FLAG_ENCRYPTED = ENVELOPE_ENCRYPTED | ENVELOPE_MIGRATION_ENCRYPTED };

/* ---- looking -----------------------------------------------------------------------------------
 */

static int
look_at_state(struct explained *x, const uint8_t *blob, size_t len, const char *name)
{
    switch (blob_probe(blob, len, &x->version, &x->min_version)) {
    case BLOB_TPM2_PERMANENT:
        x->kind = KIND_TPM2_PERMANENT;
        return permall_parse(&x->permall, blob, len, name);
    case BLOB_TPM2_VOLATILE:
        x->kind = KIND_TPM2_VOLATILE;
        return 0;
    case BLOB_TPM12:
        if (x->has_envelope) /* four bytes alone are too little to know it by */
            x->kind = KIND_TPM12;
        return 0;
    default:
        return 0;
    }
}

static int
look_at_variables(struct explained *x, const uint8_t *buf, size_t len, const char *name)
{
    int r = varstore_read(&x->varstore, buf, len);

    if (r == -ENODATA)
        return 0;
    x->kind = KIND_UEFI_VARIABLES;
    return r < 0 ? report(r, "%s: the header of its firmware volume or variable store is damaged",
                          name)
                 : 0;
}

int
explain(struct explained *x, const uint8_t *buf, size_t len, const char *name)
{
    const uint8_t *blob = buf;
    size_t blob_len = len;
    int r;

    *x = (struct explained){.kind = len ? KIND_UNKNOWN : KIND_EMPTY};
    x->has_envelope = envelope_read(&x->envelope, buf, len) == 0;
    if (x->has_envelope && x->envelope.flags & FLAG_ENCRYPTED) {
        x->kind = KIND_TPM_ENCRYPTED;
        return 0;
    }
    if (x->has_envelope && (r = envelope_decode_migration(buf, len, name, &blob, &blob_len)) < 0)
        return r;
    r = look_at_state(x, blob, blob_len, name);
    if (r == 0 && x->kind == KIND_UNKNOWN && !x->has_envelope)
        r = look_at_variables(x, buf, len, name);
    return r;
}

void
explain_fini(struct explained *x)
{
    permall_fini(&x->permall);
}

uint64_t
explain_nv_left(const struct permall *p)
{
    return p->nv_size - p->nv_used; /* the parser has compared them */
}

/* A certificate that manufacturers of TPMs and platforms keep in such an index (TCG EK credential
 * profile, 2.2.1.4). */
static const char *
certificate_role(uint32_t handle)
{
    if (handle >= 0x01c00002 && handle <= 0x01c07fff)
        return "EK certificate";
    return handle >= 0x01c08000 && handle <= 0x01c0ffff ? "platform certificate" : NULL;
}

static const char *
find_certificate(struct cert *cert, const struct permall_index *i)
{
    const char *role = certificate_role(i->handle);

    return role && i->data && cert_read(cert, i->data, i->data_len) == 0 ? role : NULL;
}

/* ---- for people --------------------------------------------------------------------------------
 */

const char *
explain_kind_text(const struct explained *x)
{
    static const char *const texts[] = {
        [KIND_UNKNOWN] = "of no kind that is known",
        [KIND_EMPTY] = "empty",
        [KIND_TPM2_PERMANENT] = "permanent state of a TPM 2.0",
        [KIND_TPM2_VOLATILE] = "volatile state of a TPM 2.0",
        [KIND_TPM12] = "state of a TPM 1.2",
        [KIND_TPM_ENCRYPTED] = "state of a TPM, encrypted by swtpm",
        [KIND_UEFI_VARIABLES] = "UEFI variables",
    };

    return texts[x->kind];
}

static void
print_envelope(const struct envelope *e)
{
    const char *comma = "";

    printf("  envelope     swtpm's, version %u, for readers from %u on: ", e->version,
           e->min_version);
    for (unsigned bit = 0; bit < FLAG_BITS; bit++) {
        if (!(e->flags & 1U << bit))
            continue;
        printf("%s%s", comma, envelope_flag_name(bit) ? envelope_flag_name(bit) : "unknown flag");
        comma = ", ";
    }
    printf("%s\n  records     ", e->flags ? "" : "plain");
    comma = " ";
    for (unsigned i = 0; i < e->n_records; i++) {
        const char *name = envelope_tag_name(e->records[i].tag);

        printf("%s%s (%" PRIu32 " B)", comma, name ? name : "unknown", e->records[i].len);
        comma = ", ";
    }
    putchar('\n');
}

static void
print_line(const char *label, const char *text)
{
    if (!*text)
        return;
    printf("    %-10s ", label);
    print_escaped(text);
    putchar('\n');
}

static void
print_index(const struct permall_index *i)
{
    char text[NV_ATTRIBUTES_TEXT];
    struct cert cert;
    const char *role = find_certificate(&cert, i);

    printf("  0x%08" PRIx32 "  %5u  %-8s  %s\n", i->handle, i->size, tpm_hash_name(i->name_alg),
           nv_attributes_text(text, i->attributes));
    if (!role)
        return;
    printf("    %s, %zu B, valid until %sZ, serial %s\n", role, cert.len, cert.not_after,
           cert.serial);
    print_line("subject", cert.subject);
    print_line("TPM", cert.tpm);
    print_line("issuer", cert.issuer);
}

static void
print_key(const struct permall_key *k)
{
    char text[NV_ATTRIBUTES_TEXT], kind[KEY_TEXT];

    printf("  0x%08" PRIx32 "  %s%s, %s: %s\n", k->handle, key_text(kind, k),
           k->public_only ? " (public part)" : "", tpm_hash_name(k->name_alg),
           key_attributes_text(text, k->attributes));
}

static void
print_permall(const struct permall *p)
{
    if (p->profile) {
        printf("  profile      ");
        print_escaped(p->profile);
        putchar('\n');
    }
    printf("  firmware     %08" PRIx32 " %08" PRIx32 "\n", p->firmware[0], p->firmware[1]);
    printf("  clock        %" PRIu64 ".%03" PRIu64 " s; resets: %" PRIu64 " in all, %" PRIu32
           " since the last clear\n",
           p->clock / 1000, p->clock % 1000, p->total_resets, p->resets);
    printf("  shutdown     %s\n",
           p->resumable ? "with its state, to be resumed" : "none that kept its state");
    printf("  lockout      %" PRIu32 " of %" PRIu32 " failed tries%s\n", p->failed_tries,
           p->max_tries,
           p->max_tries && p->failed_tries >= p->max_tries ? ": it is locked out" : "");
    printf("  NV space     %" PRIu64 " of %" PRIu64 " bytes used, %" PRIu64 " left\n", p->nv_used,
           p->nv_size, explain_nv_left(p));
    printf("  orderly RAM  %" PRIu32 " of %" PRIu32 " bytes used\n", p->ram_used, p->ram_size);
    printf("\n  NV index    bytes  hash      attributes%s\n",
           p->n_indices ? "" : ": there is none");
    for (size_t i = 0; i < p->n_indices; i++)
        print_index(&p->indices[i]);
    printf("\n  key         kind, hash: attributes%s\n", p->n_keys ? "" : ": there is none");
    for (size_t i = 0; i < p->n_keys; i++)
        print_key(&p->keys[i]);
}

static void
print_varstore(const struct varstore *v)
{
    char text[SIZE_TEXT], used[SIZE_TEXT];

    printf("  volume       %s, revision %u\n", size_text(text, v->volume), v->revision);
    printf("  store        %s of %s used, %s\n", size_text(used, v->used), size_text(text, v->size),
           v->authenticated ? "for authenticated variables" : "without authenticated variables");
    printf("  variables    %u, and %u deleted ones that take room%s\n", v->variables, v->deleted,
           v->whole ? "" : "; behind them it cannot be read");
}

void
explain_print(const struct explained *x)
{
    if (x->has_envelope)
        print_envelope(&x->envelope);
    if (x->kind == KIND_TPM2_PERMANENT || x->kind == KIND_TPM2_VOLATILE)
        printf("  version      %u, for readers from %u on\n", x->version, x->min_version);
    if (x->kind == KIND_TPM2_PERMANENT && x->permall.version)
        print_permall(&x->permall);
    if (x->kind == KIND_UEFI_VARIABLES && x->varstore.size)
        print_varstore(&x->varstore);
}

/* ---- for programs ------------------------------------------------------------------------------
 */

static void
add_handle(struct json_object *o, const char *key, uint32_t value)
{
    char text[16];

    snprintf(text, sizeof text, "0x%08" PRIx32, value);
    json_add_text(o, key, text);
}

static struct json_object *
json_envelope(const struct envelope *e)
{
    struct json_object *o = json_object_new_object(), *records = json_object_new_array();

    json_add_number(o, "version", e->version);
    json_add_number(o, "min_version", e->min_version);
    json_add_number(o, "flags", e->flags);
    json_add_bool(o, "encrypted", e->flags & FLAG_ENCRYPTED);
    json_add_bool(o, "migration", e->flags & ENVELOPE_MIGRATION_DATA);
    for (unsigned i = 0; i < e->n_records; i++) {
        struct json_object *record = json_object_new_object();

        json_add_number(record, "tag", e->records[i].tag);
        json_add_number(record, "length", e->records[i].len);
        json_object_array_add(records, record);
    }
    json_object_object_add(o, "records", records);
    return o;
}

static struct json_object *
json_certificate(const char *role, const struct cert *cert)
{
    struct json_object *o = json_object_new_object();

    json_add_text(o, "role", role);
    json_add_number(o, "length", cert->len);
    json_add_text(o, "serial", cert->serial);
    json_add_text(o, "not_after", cert->not_after);
    json_add_text(o, "subject", cert->subject);
    json_add_text(o, "tpm", cert->tpm);
    json_add_text(o, "issuer", cert->issuer);
    return o;
}

static struct json_object *
json_index(const struct permall_index *i)
{
    struct json_object *o = json_object_new_object();
    char text[NV_ATTRIBUTES_TEXT];
    struct cert cert;
    const char *role = find_certificate(&cert, i);

    add_handle(o, "handle", i->handle);
    json_add_number(o, "size", i->size);
    json_add_text(o, "hash", tpm_hash_name(i->name_alg));
    json_add_number(o, "attributes_value", i->attributes);
    json_add_text(o, "attributes", nv_attributes_text(text, i->attributes));
    json_add_bool(o, "written", i->attributes & NV_WRITTEN);
    json_add_bool(o, "write_locked", i->attributes & NV_WRITELOCKED);
    json_add_bool(o, "read_locked", i->attributes & NV_READLOCKED);
    json_add_number(o, "space", i->space);
    if (role)
        json_object_object_add(o, "certificate", json_certificate(role, &cert));
    return o;
}

static struct json_object *
json_key(const struct permall_key *k)
{
    struct json_object *o = json_object_new_object();
    char text[NV_ATTRIBUTES_TEXT], kind[KEY_TEXT];

    add_handle(o, "handle", k->handle);
    json_add_text(o, "type", key_text(kind, k));
    json_add_text(o, "hash", tpm_hash_name(k->name_alg));
    json_add_number(o, "attributes_value", k->attributes);
    json_add_text(o, "attributes", key_attributes_text(text, k->attributes));
    json_add_bool(o, "public_only", k->public_only);
    json_add_number(o, "space", k->space);
    return o;
}

static void
json_permall(const struct permall *p, struct json_object *o)
{
    struct json_object *nv = json_object_new_object(), *ram = json_object_new_object();
    struct json_object *indices = json_object_new_array(), *keys = json_object_new_array();

    json_add_text(o, "profile", p->profile);
    add_handle(o, "firmware_1", p->firmware[0]);
    add_handle(o, "firmware_2", p->firmware[1]);
    json_add_number(o, "clock_ms", p->clock);
    json_add_number(o, "total_resets", p->total_resets);
    json_add_number(o, "resets", p->resets);
    json_add_bool(o, "resumable", p->resumable);
    json_add_bool(o, "clear_disabled", p->disable_clear);
    json_add_number(o, "failed_tries", p->failed_tries);
    json_add_number(o, "max_tries", p->max_tries);
    json_add_number(o, "recovery_time", p->recovery_time);
    json_add_number(o, "lockout_recovery", p->lockout_recovery);
    json_add_number(nv, "size", p->nv_size);
    json_add_number(nv, "used", p->nv_used);
    json_add_number(nv, "left", explain_nv_left(p));
    json_object_object_add(o, "nv", nv);
    json_add_number(ram, "size", p->ram_size);
    json_add_number(ram, "used", p->ram_used);
    json_object_object_add(o, "orderly_ram", ram);
    for (size_t i = 0; i < p->n_indices; i++)
        json_object_array_add(indices, json_index(&p->indices[i]));
    for (size_t i = 0; i < p->n_keys; i++)
        json_object_array_add(keys, json_key(&p->keys[i]));
    json_object_object_add(o, "nv_indices", indices);
    json_object_object_add(o, "persistent_keys", keys);
}

static void
json_varstore(const struct varstore *v, struct json_object *o)
{
    json_add_number(o, "volume", v->volume);
    json_add_number(o, "revision", v->revision);
    json_add_number(o, "store_size", v->size);
    json_add_number(o, "store_used", v->used);
    json_add_number(o, "variables", v->variables);
    json_add_number(o, "deleted", v->deleted);
    json_add_bool(o, "authenticated", v->authenticated);
    json_add_bool(o, "whole", v->whole);
}

void
explain_json(const struct explained *x, struct json_object *o)
{
    static const char *const kinds[] = {
        [KIND_UNKNOWN] = "unknown",
        [KIND_EMPTY] = "empty",
        [KIND_TPM2_PERMANENT] = "tpm2-permanent",
        [KIND_TPM2_VOLATILE] = "tpm2-volatile",
        [KIND_TPM12] = "tpm12",
        [KIND_TPM_ENCRYPTED] = "tpm-encrypted",
        [KIND_UEFI_VARIABLES] = "uefi-variables",
    };

    json_add_text(o, "kind", kinds[x->kind]);
    if (x->has_envelope)
        json_object_object_add(o, "envelope", json_envelope(&x->envelope));
    if (x->kind == KIND_TPM2_PERMANENT || x->kind == KIND_TPM2_VOLATILE) {
        json_add_number(o, "version", x->version);
        json_add_number(o, "min_version", x->min_version);
    }
    if (x->kind == KIND_TPM2_PERMANENT && x->permall.version)
        json_permall(&x->permall, o);
    if (x->kind == KIND_UEFI_VARIABLES && x->varstore.size)
        json_varstore(&x->varstore, o);
}
