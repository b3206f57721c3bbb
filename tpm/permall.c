/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/permall.h"
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
    MAGIC_PERMANENT = 0xab364723,
    MAGIC_VOLATILE = 0x45637889,
    MAGIC_CONSTANTS = 0xc9ea6431,
    MAGIC_DATA = 0x12213443,
    MAGIC_ORDERLY = 0x56657887,
    MAGIC_DRBG = 0x6fe83ea1,
    MAGIC_RESET = 0x01102332,
    MAGIC_CLEAR = 0x98897667,
    MAGIC_PCR_SAVE = 0x7372eabc,
    MAGIC_PCR_AUTH = 0x6be82eaf,
    MAGIC_ORDERLY_RAM = 0x5346feab,
    MAGIC_USER_NV = 0x094f22c3,
    MAGIC_INDEX = 0x2547265a,
    MAGIC_ANY_OBJECT = 0xfe9a3974,
    MAGIC_OBJECT = 0x75be73af,
};

enum {
    VERSION_PERMANENT = 4, /* the newest of each section that is known */
    VERSION_CONSTANTS = 3,
    VERSION_DATA = 5,
    VERSION_RESET = 4,
    VERSION_OBJECT = 4,
    VERSION_OTHERS = 2,
};

enum {
    ALG_RSA = 0x01,
    ALG_HMAC = 0x05,
    ALG_KEYEDHASH = 0x08,
    ALG_XOR = 0x0a,
    ALG_NULL = 0x10,
    ALG_RSAES = 0x15,
    ALG_ECDAA = 0x1a,
    ALG_ECC = 0x23,
    ALG_SYMCIPHER = 0x25,
};

enum {
    STARTUP_STATE = 1, /* the low bits of orderlyState after a Shutdown(STATE) */
    STARTUP_MASK = 0x7fff,
    HANDLE_INDEX = 0x01,
    HANDLE_PERSISTENT = 0x81,
    RAM_ENTRY = 16, /* what an orderly index takes beside its data */
    NV_END = 4 + 8, /* the list's end and the largest counter value */
    OBJECT_PUBLIC_ONLY = 1 << 0,
    OBJECT_SEQUENCE = 1 << 8 | 1 << 9 | 1 << 10,
    OBJECT_OCCUPIED = 1 << 15,
};

/* ---- reading -----------------------------------------------------------------------------------
 * The first thing that is wrong stays: from then on all reads give zeros and nothing moves. */

struct cursor {
    const uint8_t *at, *start;
    size_t left;
    const char *section;
    int r;
    const char *why;
    uint32_t value; /* for .why */
};

static void
wrong(struct cursor *c, int r, const char *why, uint32_t value)
{
    if (c->r < 0)
        return;
    c->r = r;
    c->why = why;
    c->value = value;
    c->left = 0;
}

static const uint8_t *
take(struct cursor *c, size_t n)
{
    const uint8_t *at = c->at;

    if (c->r < 0 || n > c->left) {
        wrong(c, -EUCLEAN, "it ends too early", (uint32_t)n);
        return NULL;
    }
    c->at += n;
    c->left -= n;
    return at;
}

static void
skip(struct cursor *c, size_t n)
{
    (void)take(c, n);
}

static uint8_t
get8(struct cursor *c)
{
    const uint8_t *p = take(c, 1);

    return p ? *p : 0;
}

static uint16_t
get16(struct cursor *c)
{
    const uint8_t *p = take(c, 2);

    return p ? load_be16(p) : 0;
}

static uint32_t
get32(struct cursor *c)
{
    const uint8_t *p = take(c, 4);

    return p ? load_be32(p) : 0;
}

static uint64_t
get64(struct cursor *c)
{
    uint64_t high = get32(c);

    return high << 32 | get32(c);
}

/* A TPM2B, or an array with its size in front. */
static void
skip_sized(struct cursor *c)
{
    skip(c, get16(c));
}

/* A block that a reader may pass over: whether it is there, and how long it is. */
static void
skip_block(struct cursor *c)
{
    uint8_t there = get8(c);
    uint16_t size = get16(c);

    if (there)
        skip(c, size);
}

/* A section's header.  Returns its version; a newer one is fine if it says so. */
static uint16_t
header(struct cursor *c, const char *section, uint32_t magic, uint16_t known)
{
    uint16_t version, least;
    uint32_t found;

    c->section = section;
    version = get16(c);
    found = get32(c);
    if (c->r == 0 && found != magic)
        wrong(c, -EUCLEAN, "it does not start with its mark", found);
    if (c->r == 0 && version < 2) /* before libtpms' first release */
        wrong(c, -EPROTONOSUPPORT, "its version is too old", version);
    least = get16(c);
    if (least > known)
        wrong(c, -EPROTONOSUPPORT, "it takes a reader of a newer version", least);
    return c->r < 0 ? 0 : version;
}

/* ---- sections ----------------------------------------------------------------------------------
 */

static void
read_constants(struct cursor *c)
{
    uint32_t n;

    header(c, "compile-time constants", MAGIC_CONSTANTS, VERSION_CONSTANTS);
    n = get32(c);
    if (n > c->left / 4)
        wrong(c, -EUCLEAN, "it has too many entries", n);
    else
        skip(c, (size_t)n * 4);
    skip_block(c);
}

static void
skip_pcr_selection(struct cursor *c)
{
    uint32_t n = get32(c);

    for (; n > 0 && c->r == 0; n--) {
        get16(c);
        skip(c, get8(c));
    }
}

static void
read_data(struct permall *p, struct cursor *c)
{
    uint16_t orderly;
    uint8_t clock_size;

    p->data_version = header(c, "persistent data", MAGIC_DATA, VERSION_DATA);
    p->disable_clear = get8(c) != 0;
    skip(c, 3 * 2);                 /* the hierarchies' policy algorithms, */
    for (int i = 0; i < 3 * 4; i++) /* policies, auth values, seeds and proofs: nobody's business */
        skip_sized(c);
    p->total_resets = get64(c);
    p->resets = get32(c);
    skip_block(c); /* policies of PCRs */
    skip_pcr_selection(c);
    skip_sized(c); /* commands that take physical presence */
    p->failed_tries = get32(c);
    p->max_tries = get32(c);
    p->recovery_time = get32(c);
    p->lockout_recovery = get32(c);
    get8(c);
    orderly = get16(c);
    p->resumable = (orderly & STARTUP_MASK) == STARTUP_STATE;
    skip_sized(c); /* commands that are audited */
    skip(c, 2 + 8 + 4);
    p->firmware[0] = get32(c);
    p->firmware[1] = get32(c);
    clock_size = get8(c);
    skip(c, clock_size);
    skip_block(c);
}

static void
read_orderly(struct permall *p, struct cursor *c)
{
    header(c, "orderly data", MAGIC_ORDERLY, VERSION_OTHERS);
    p->clock = get64(c);
    get8(c);
    header(c, "random generator", MAGIC_DRBG, VERSION_OTHERS);
    skip(c, 8 + 4);
    skip_sized(c);
    skip(c, (size_t)get16(c) * 4);
    skip_block(c);
    skip_block(c); /* timers */
    skip_block(c);
}

static void
read_reset(struct cursor *c)
{
    uint16_t version = header(c, "state of TPM reset", MAGIC_RESET, VERSION_RESET);
    bool wide = version >= 4; /* session slots */

    skip_sized(c);
    skip_sized(c);
    skip(c, 4 + 8);
    skip(c, (size_t)get16(c) * (wide ? 2 : 1));
    if (wide)
        get16(c);
    get64(c);
    skip_sized(c);
    skip(c, 4 + 4);
    skip_block(c); /* commit counters of ECC */
    skip_block(c);
}

static void
read_clear(struct cursor *c)
{
    header(c, "state of TPM restart", MAGIC_CLEAR, VERSION_OTHERS);
    skip(c, 3 + 2);
    skip_sized(c);
    skip_sized(c);
    header(c, "saved PCRs", MAGIC_PCR_SAVE, VERSION_OTHERS);
    get16(c);
    while (c->r == 0 && get16(c) != ALG_NULL)
        skip_sized(c);
    skip_block(c);
    header(c, "auth values of PCRs", MAGIC_PCR_AUTH, VERSION_OTHERS);
    for (uint16_t n = get16(c); n > 0 && c->r == 0; n--)
        skip_sized(c);
    skip_block(c);
    skip_block(c);
}

/* ---- orderly indices ---- */

struct ram_index {
    uint32_t handle, attributes;
    const uint8_t *data;
    uint16_t len;
};

struct ram {
    struct ram_index *indices;
    size_t n;
};

static void
ram_fini(struct ram *ram)
{
    free(ram->indices);
}

/* One more of @size at the end of the array *@list of @n.  NULL when memory is short. */
static void *
append(struct cursor *c, void **list, size_t *n, size_t size)
{
    uint8_t *grown = *list;

    if ((*n & (*n - 1)) == 0) /* doubled at each power of two */
        grown = reallocarray(*list, *n ? *n * 2 : 1, size);
    if (!grown) {
        wrong(c, -ENOMEM, "memory is short", 0);
        return NULL;
    }
    *list = grown;
    memset(grown + *n * size, 0, size);
    return grown + (*n)++ * size;
}

static void
read_orderly_ram(struct permall *p, struct ram *ram, struct cursor *c)
{
    header(c, "orderly RAM", MAGIC_ORDERLY_RAM, VERSION_OTHERS);
    p->ram_size = get32(c);
    while (c->r == 0 && p->ram_size - p->ram_used >= RAM_ENTRY) {
        struct ram_index *i;

        if (get32(c) == 0) /* its size, as large as the writer's structure happens to be */
            break;
        i = append(c, (void **)&ram->indices, &ram->n, sizeof *i);
        if (!i)
            return;
        i->handle = get32(c);
        i->attributes = get32(c);
        i->len = get16(c);
        i->data = take(c, i->len);
        if (c->r == 0 && i->len > p->ram_size - p->ram_used - RAM_ENTRY)
            wrong(c, -EUCLEAN, "more is in it than it has room for", i->len);
        p->ram_used += RAM_ENTRY + i->len;
    }
    skip_block(c);
}

/* ---- NV memory: indices ---- */

static void
read_index(struct permall *p, struct cursor *c, const struct ram *ram, uint32_t handle,
           uint32_t space)
{
    struct permall_index *i = append(c, (void **)&p->indices, &p->n_indices, sizeof *i);

    if (!i)
        return;
    header(c, "NV index", MAGIC_INDEX, VERSION_OTHERS);
    i->handle = get32(c);
    if (c->r == 0 && i->handle != handle)
        wrong(c, -EUCLEAN, "it is another index than its entry says", i->handle);
    i->name_alg = get16(c);
    i->attributes = get32(c);
    skip_sized(c); /* policy */
    i->size = get16(c);
    skip_sized(c); /* auth value */
    skip_block(c);
    i->data_len = get32(c);
    i->data = take(c, i->data_len);
    i->space = space;
    for (size_t k = 0; k < ram->n; k++) {
        if (ram->indices[k].handle != handle)
            continue;
        i->attributes = ram->indices[k].attributes;
        i->data = ram->indices[k].data;
        i->data_len = ram->indices[k].len;
    }
    if (!(i->attributes & NV_WRITTEN)) {
        i->data = NULL;
        i->data_len = 0;
    }
}

/* ---- NV memory: keys ---- */

/* TPMT_SYM_DEF_OBJECT */
static uint16_t
read_symmetric(struct cursor *c, uint16_t *bits)
{
    uint16_t alg = get16(c);

    *bits = 0;
    if (alg != ALG_NULL) {
        *bits = get16(c);
        get16(c); /* mode */
    }
    return alg;
}

/* TPMT_RSA_SCHEME, TPMT_ECC_SCHEME */
static void
skip_scheme(struct cursor *c)
{
    uint16_t scheme = get16(c);

    if (scheme == ALG_NULL || scheme == ALG_RSAES)
        return;
    get16(c); /* hash */
    if (scheme == ALG_ECDAA)
        get16(c);
}

static void
skip_keyedhash_scheme(struct cursor *c)
{
    uint16_t scheme = get16(c);

    if (scheme == ALG_NULL)
        return;
    get16(c);
    if (scheme == ALG_XOR)
        get16(c);
}

/* TPMU_PUBLIC_PARMS and TPMU_PUBLIC_ID */
static void
read_parameters(struct permall_key *k, struct cursor *c)
{
    uint16_t ignored;

    switch (k->type) {
    case ALG_RSA:
        read_symmetric(c, &ignored);
        skip_scheme(c);
        k->detail = get16(c);
        get32(c);
        skip_sized(c);
        break;
    case ALG_ECC:
        read_symmetric(c, &ignored);
        skip_scheme(c);
        k->detail = get16(c);
        if (get16(c) != ALG_NULL)
            get16(c);
        skip_sized(c);
        skip_sized(c);
        break;
    case ALG_KEYEDHASH:
        skip_keyedhash_scheme(c);
        skip_sized(c);
        break;
    case ALG_SYMCIPHER:
        k->detail = read_symmetric(c, &k->detail_bits);
        skip_sized(c);
        break;
    default:
        wrong(c, -EPROTONOSUPPORT, "it is of a kind that is not known", k->type);
    }
}

static bool
has_sensitive(uint16_t type)
{
    return type == ALG_RSA || type == ALG_ECC || type == ALG_KEYEDHASH || type == ALG_SYMCIPHER;
}

static void
read_key(struct permall *p, struct cursor *c, uint32_t handle, uint32_t space)
{
    struct permall_key *k = append(c, (void **)&p->keys, &p->n_keys, sizeof *k);
    uint32_t flags;

    if (!k)
        return;
    header(c, "persistent key", MAGIC_ANY_OBJECT, VERSION_OTHERS);
    flags = get32(c);
    if (c->r == 0 && (!(flags & OBJECT_OCCUPIED) || flags & OBJECT_SEQUENCE))
        wrong(c, -EUCLEAN, "it holds no key", flags);
    header(c, "persistent key", MAGIC_OBJECT, VERSION_OBJECT);
    k->handle = handle;
    k->space = space;
    k->public_only = flags & OBJECT_PUBLIC_ONLY;
    k->type = get16(c);
    k->name_alg = get16(c);
    k->attributes = get32(c);
    skip_sized(c); /* policy */
    read_parameters(k, c);
    flags = get16(c); /* what is secret of it: the type once more, auth value, seed, key */
    skip_sized(c);
    skip_sized(c);
    if (has_sensitive((uint16_t)flags))
        skip_sized(c);
    skip_block(c); /* the RSA key's other numbers */
    skip_sized(c); /* qualified name, handle, name */
    get32(c);
    skip_sized(c);
    skip_block(c);
    skip_block(c);
}

static void
read_nv(struct permall *p, struct cursor *c, const struct ram *ram)
{
    header(c, "NV memory", MAGIC_USER_NV, VERSION_OTHERS);
    p->nv_size = get64(c);
    p->nv_used = NV_END;
    for (uint32_t space; c->r == 0 && (space = get32(c)) != 0;) {
        uint32_t handle = get32(c);

        if (c->r < 0)
            return;
        if (handle >> 24 == HANDLE_INDEX)
            read_index(p, c, ram, handle, space);
        else if (handle >> 24 == HANDLE_PERSISTENT)
            read_key(p, c, handle, space);
        else
            wrong(c, -EPROTONOSUPPORT, "it holds something that is not known", handle);
        c->section = "NV memory";
        p->nv_used += space;
    }
    get64(c); /* the largest value that a counter ever had */
    skip_block(c);
    if (c->r == 0 && p->nv_used > p->nv_size)
        wrong(c, -EUCLEAN, "more is in it than it has room for", (uint32_t)p->nv_used);
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static void
read_profile(struct permall *p, struct cursor *c)
{
    uint16_t n = get16(c);
    const uint8_t *text = take(c, n);

    if (n == 0 || !text)
        return;
    if (text[n - 1] != '\0')
        wrong(c, -EUCLEAN, "its profile does not end", n);
    else
        p->profile = (const char *)text;
}

static void
read_all(struct permall *p, struct cursor *c, struct ram *ram)
{
    p->version = header(c, "permanent state", MAGIC_PERMANENT, VERSION_PERMANENT);
    p->min_version = p->version ? load_be16(c->start + 6) : 0;
    if (p->version >= 4)
        read_profile(p, c);
    read_constants(c);
    read_data(p, c);
    read_orderly(p, c);
    if (p->version < 3 || p->resumable) {
        read_reset(c);
        read_clear(c);
    }
    read_orderly_ram(p, ram, c);
    read_nv(p, c, ram);
    c->section = "permanent state";
    skip_block(c);
    if (get32(c) != MAGIC_PERMANENT)
        wrong(c, -EUCLEAN, "it does not end with its mark", 0);
    if (c->left > 0)
        wrong(c, -EUCLEAN, "it goes on after its end", (uint32_t)c->left);
}

int
permall_parse(struct permall *p, const uint8_t *blob, size_t len, const char *name)
{
    AUTO(permall_fini) struct permall found = {0};
    AUTO(ram_fini) struct ram ram = {0};
    struct cursor c = {.at = blob, .start = blob, .left = len, .section = "permanent state"};

    read_all(&found, &c, &ram);
    if (c.r < 0)
        return report(c.r, "%s: byte %zu, %s of a TPM 2.0: %s (0x%" PRIx32 ")", name,
                      (size_t)(c.at - c.start), c.section, c.why, c.value);
    *p = found;
    found = (struct permall){0};
    return 0;
}

void
permall_fini(struct permall *p)
{
    free(p->indices);
    free(p->keys);
}

enum blob_kind
blob_probe(const uint8_t *blob, size_t len, uint16_t *version, uint16_t *min_version)
{
    /* 1.2: the format's tag; then that of the permanent data, of the parameters that are compiled
     * in, or of the flags that a saved state begins with. */
    if (len >= 4 && load_be16(blob) == 1 && load_be16(blob + 2) <= 0x22)
        return BLOB_TPM12;
    if (len < 8)
        return BLOB_UNKNOWN;
    *version = load_be16(blob);
    *min_version = *version >= 2 ? load_be16(blob + 6) : 0;
    if (load_be32(blob + 2) == MAGIC_PERMANENT)
        return BLOB_TPM2_PERMANENT;
    return load_be32(blob + 2) == MAGIC_VOLATILE ? BLOB_TPM2_VOLATILE : BLOB_UNKNOWN;
}
