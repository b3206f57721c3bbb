/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram export --swtpm: a TPM's state as swtpm's directory, linear file or migration blobs. */
#include "base/report.h"
#include "base/scope.h"
#include "cli/interchange.h"
#include "swtpm/blob.h"
#include "swtpm/linear.h"
#include "swtpm/state.h"
#include <errno.h>
#include <string.h>

struct conversion {
    const struct options *o;
    struct secret *state_key, *migration_key;
};

static void
conversion_fini(struct conversion *c)
{
    secret_free(c->state_key);
    secret_free(c->migration_key);
}

bool
interchange_wants(const struct options *o, const char *name)
{
    enum tpm_version version;
    enum swtpm_item item;

    return swtpm_state_by_name(name, &version, &item) &&
           (o->tpm.version == TPM_VERSION_NONE || o->tpm.version == version);
}

/* An swtpm with a key may have run on the mount. */
static int
convert_one(const struct conversion *c, struct parcel *p)
{
    const bool migration = c->o->swtpm_form == SWTPM_FORM_MIGRATION;
    const struct swtpm_keys keys = {.state = c->state_key, .migration = c->migration_key};
    const struct swtpm_keys none = {NULL, NULL};
    const struct vault *v = p->content;
    AUTO(vault_freep) struct vault *blob = NULL, *raw = NULL;
    int r = swtpm_blob_open(v->bytes, v->len, p->name,
                            swtpm_blob_is_encrypted(v->bytes, v->len) ? &keys : &none, &blob);

    if (r == 0)
        r = swtpm_blob_seal(blob, migration, &keys, &raw);
    if (r < 0)
        return r;
    vault_free(p->content);
    p->content = steal(&raw);
    return 0;
}

/* ---- the linear file ----------------------------------------------------------------------------
 */

/* The file has one place for each. */
static int
find_version(const struct parcels *p, const char *image, enum tpm_version *version)
{
    bool has_20 = parcels_find(p, swtpm_state_name(TPM_VERSION_2_0, SWTPM_PERMALL));
    bool has_12 = parcels_find(p, swtpm_state_name(TPM_VERSION_1_2, SWTPM_PERMALL));

    if (has_20 && has_12)
        return report(-EINVAL,
                      "%s: holds a TPM 2.0 and a TPM 1.2, and a linear file takes one: choose with "
                      "--tpm",
                      image);
    *version = has_12 ? TPM_VERSION_1_2 : TPM_VERSION_2_0;
    return 0;
}

static int
make_linear(struct parcels *p, enum tpm_version version)
{
    struct parcel *items[SWTPM_ITEMS];
    AUTO(vault_freep) struct vault *v = NULL;
    struct swtpm_linear l = {0};
    uint64_t size;
    int r;

    for (enum swtpm_item i = 0; i < SWTPM_ITEMS; i++) {
        items[i] = parcels_find(p, swtpm_state_name(version, i));
        l.items[i].len = items[i] ? (uint32_t)items[i]->content->len : 0;
    }
    size = swtpm_linear_layout(&l);
    if (size == 0)
        return report(-EFBIG, "the states are too large for a linear file");
    r = vault_new(&v, size, true);
    if (r < 0)
        return r;
    swtpm_linear_encode(&l, v->bytes);
    for (enum swtpm_item i = 0; i < SWTPM_ITEMS; i++) {
        if (items[i])
            memcpy(v->bytes + l.items[i].off, items[i]->content->bytes, l.items[i].len);
    }
    parcels_fini(p);
    return parcels_add(p, "linear", &v, NULL);
}

/* ---- all of it ----------------------------------------------------------------------------------
 */

/* What else there is of a TPM is worth nothing without it. */
static int
check_whole(const struct parcels *p, const char *image)
{
    for (size_t i = 0; i < p->n; i++) {
        enum tpm_version version = TPM_VERSION_NONE;
        enum swtpm_item item;

        swtpm_state_by_name(p->list[i].name, &version, &item);
        if (!parcels_find(p, swtpm_state_name(version, SWTPM_PERMALL)))
            return report(-ENOENT, "%s: holds %s, but not %s", image, p->list[i].name,
                          swtpm_state_name(version, SWTPM_PERMALL));
    }
    return p->n > 0 ? 0 : report(-ENOENT, "%s: holds no state of such a TPM", image);
}

int
interchange_convert(struct parcels *p, struct options *o)
{
    AUTO(conversion_fini) struct conversion c = {.o = o};
    const bool linear = o->swtpm_form == SWTPM_FORM_LINEAR;
    enum tpm_version version = TPM_VERSION_NONE;
    int r = swtpm_key_read(&o->swtpm_key, &c.state_key);

    if (r == 0)
        r = swtpm_key_read(&o->swtpm_migration_key, &c.migration_key);
    if (r == 0 && o->swtpm_form != SWTPM_FORM_MIGRATION)
        r = check_whole(p, o->args[0]);
    if (r == 0 && linear)
        r = find_version(p, o->args[0], &version);
    for (size_t i = 0; r == 0 && i < p->n; i++)
        r = convert_one(&c, &p->list[i]);
    return r == 0 && linear ? make_linear(p, version) : r;
}

/* ---- the options --------------------------------------------------------------------------------
 */

int
interchange_check(const struct options *o)
{
    const bool any = o->swtpm || o->swtpm_form != SWTPM_FORM_NONE;

    if (!any && (o->swtpm_key.given || o->swtpm_migration_key.given))
        return report(-EINVAL,
                      "--swtpm-key and --swtpm-migration-key are of use with --swtpm only");
    if (!any && o->tpm.version != TPM_VERSION_NONE)
        return report(-EINVAL, "--tpm is of use with --swtpm only");
    if (o->swtpm_migration_key.given &&
        (o->swtpm_form == SWTPM_FORM_DIR || o->swtpm_form == SWTPM_FORM_LINEAR))
        return report(-EINVAL, "swtpm uses its migration key for migration blobs only: leave out "
                               "--swtpm-migration-key");
    return 0;
}
