/* SPDX-License-Identifier: BSD-3-Clause */
/* A store as one DER stream: the input is what its sums cover. */
#include "base/bytes.h"
#include "base/crc32.h"
#include "base/report.h"
#include "base/scope.h"
#include "crypt/keys.h"
#include "der/node.h"
#include "der/store.h"
#include "tests/fuzz/fuzz.h"
#include <errno.h>
#include <string.h>

enum { FILES = 64 };

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
    MUST(crypt_init() == 0);
    return 0;
}

struct files {
    struct der_entry entries[FILES];
    struct vault *contents[FILES];
    size_t n;
};

static int
collect(void *arg, const struct der_entry *e, struct vault **content)
{
    struct files *f = arg;

    if (f->n == FILES)
        return -ENOSPC;
    MUST(entry_name_ok(e->name, strlen(e->name)) && file_attr_ok(&e->attr));
    MUST(e->len == (*content)->len && e->len <= e->capacity);
    f->entries[f->n] = *e;
    f->contents[f->n++] = steal(content);
    return 0;
}

/* The sums behind a body that may be anything. */
static struct vault *
make_stream(const uint8_t *data, size_t size)
{
    const struct iovec iov = {(void *)(uintptr_t)data, size};
    uint8_t crc[5] = {0};
    struct vault *v;
    size_t used = size, skip = 0;

    MUST(vault_new(&v, size + 128, false) == 0);
    if (size)
        memcpy(v->bytes, data, size);
    store_be32(crc + 1, crc32_of(data, size));
    while (skip < 4 && crc[skip] == 0 && !(crc[skip + 1] & 0x80))
        skip++;
    memcpy(v->bytes + used, crc + skip, 5 - skip);
    used += 5 - skip;
    MUST(der_wrap(v, &used, 5 - skip, DER_INTEGER) == 0);
    MUST(sealer_plain()->ops->tag(sealer_plain(), SEAL_DIRECTORY, &iov, 1, v->bytes + used) == 0);
    used += SEAL_TAG_SIZE;
    MUST(der_wrap(v, &used, SEAL_TAG_SIZE, DER_OCTETS) == 0);
    MUST(der_wrap(v, &used, used, DER_SEQUENCE) == 0);
    v->len = used;
    return v;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vault *v = make_stream(data, size), *again = NULL;
    struct files *f = calloc(1, sizeof *f);
    struct der_head h = {0};
    int r = der_read_head(&h, v->bytes, v->len, "x");

    MUST(f &&
         (r == 0 || r == -EMEDIUMTYPE || r == -ERANGE || r == -EUCLEAN || r == -EPROTONOSUPPORT));
    if (r == 0 && !h.sealed) {
        r = der_read(v->bytes, v->len, "x", sealer_plain(), collect, f);
        MUST(r == 0 || r == -EUCLEAN || r == -ENOSPC);
    }
    if (r == 0 && !h.sealed) { /* there is one encoding */
        for (size_t i = 0; i < f->n; i++)
            f->entries[i].data = f->contents[i]->bytes;
        MUST(der_write(&again, &h, f->entries, f->n, sealer_plain()) == 0);
        MUST(again->len == v->len && memcmp(again->bytes, v->bytes, v->len) == 0);
    }
    for (size_t i = 0; i < f->n; i++)
        vault_free(f->contents[i]);
    free(f);
    vault_free(again);
    vault_free(v);
    return 0;
}
