/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypt/vault.h"
#include "base/report.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int
lock(const void *p, size_t len, bool must)
{
    if (mlock2(p, len, 0) == 0 || !must) /* sanitizers make a jest of mlock(2) */
        return 0;
    return report(-EPERM,
                  "cannot lock %zu KiB of memory for secrets, which must not reach swap: raise the "
                  "limit (ulimit -l) or run with CAP_IPC_LOCK",
                  len / 1024);
}

/* Whole pages, of its own: what shares a page with a lock would be unlocked with it. */
static int
map(size_t len, bool must_lock, uint8_t **bytes, size_t *mapped)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *p;

    if (len > SIZE_MAX / 2)
        return report(-ENOMEM, "no memory for %zu bytes", len);
    *mapped = (len / page + 1) * page;
    p = mmap(NULL, *mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return report(-ENOMEM, "no memory for %zu bytes", len);
    madvise(p, *mapped, MADV_DONTDUMP);
    if (lock(p, *mapped, must_lock) < 0) {
        munmap(p, *mapped);
        return -EPERM;
    }
    *bytes = p;
    return 0;
}

static void
unmap(uint8_t *bytes, size_t mapped)
{
    explicit_bzero(bytes, mapped);
    munmap(bytes, mapped);
}

int
vault_new(struct vault **out, size_t len, bool must_lock)
{
    struct vault *v = malloc(sizeof *v);
    int r;

    if (!v)
        return report(-ENOMEM, "out of memory");
    *v = (struct vault){.len = len, .must_lock = must_lock};
    r = map(len, must_lock, &v->bytes, &v->mapped);
    if (r < 0) {
        free(v);
        return r;
    }
    *out = v;
    return 0;
}

int
vault_grow(struct vault *v, size_t len)
{
    uint8_t *bytes;
    size_t mapped;
    int r;

    if (len >= v->mapped) {
        r = map(len, v->must_lock, &bytes, &mapped);
        if (r < 0)
            return r;
        memcpy(bytes, v->bytes, v->len);
        unmap(v->bytes, v->mapped);
        v->bytes = bytes;
        v->mapped = mapped;
    }
    if (len > v->len)
        v->len = len;
    return 0;
}

int
vault_lock(const struct vault *v)
{
    return lock(v->bytes, v->mapped, v->must_lock);
}

void
vault_free(struct vault *v)
{
    if (!v)
        return;
    unmap(v->bytes, v->mapped);
    free(v);
}

void
vault_freep(struct vault **v)
{
    vault_free(*v);
}
