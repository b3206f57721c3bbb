/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypt/secret.h"
#include "base/report.h"
#include "config.h"
#include <errno.h>
#include <gcrypt.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>
#ifdef WITH_SANITIZERS
#include <sanitizer/lsan_interface.h>
#endif

/* Enough for all keys, and for a cipher and a hash handle of each of some thirty threads. */
enum { POOL_SIZE = 256 * 1024 };
/* For what the library and the heap take beside the scratch memory proper. */
enum { LOCK_ALL_SLACK = 4 * 1024 * 1024 };

/* Where libgcrypt's one pool lies: set once, then constant. */
static void *pool;
/* The process that has locked it: locks do not pass a fork. */
static _Atomic pid_t locked_by;

void
secret_pool_init(void)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    void *first;

    gcry_control(GCRYCTL_DISABLE_SECMEM_WARN); /* secret_new() says it better */
    gcry_control(
        GCRYCTL_DISABLE_LOCKED_SECMEM); /* pool_lock() does it, and only when there are secrets */
    gcry_control(GCRYCTL_INIT_SECMEM, POOL_SIZE, 0);
    /* The library does not tell where its pool is; the first allocation lies at its start. */
    first = gcry_malloc_secure(1);
    if (first) {
        pool = (void *)((uintptr_t)first & ~(page - 1));
        madvise(pool, POOL_SIZE, MADV_DONTDUMP);
#ifdef WITH_SANITIZERS
        __lsan_register_root_region(pool, POOL_SIZE); /* the library keeps pointers there */
#endif
    }
    gcry_free(first);
}

void
secret_pool_wipe_in_children(void)
{
    if (pool)
        madvise(pool, POOL_SIZE, MADV_WIPEONFORK);
}

/* Pages that nobody uses take no memory. */
static int
pool_lock(void)
{
    if (locked_by == getpid())
        return 0;
    if (pool && (mlock2(pool, POOL_SIZE, MLOCK_ONFAULT) == 0 ||
                 ((errno == EINVAL || errno == ENOSYS) &&
                  mlock(pool, POOL_SIZE) == 0))) { /* no such call: valgrind */
        locked_by = getpid();
        return 0;
    }
    return report(
        -EPERM,
        "cannot lock %d KiB of memory for keys, which must not reach swap: raise the limit "
        "(ulimit -l, or LimitMEMLOCK= of the unit) or run with CAP_IPC_LOCK",
        POOL_SIZE / 1024);
}

/* Whether @len bytes more may be mapped; all of a locked process's count against its limit. */
static bool
may_map(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p != MAP_FAILED && munmap(p, len) == 0;
}

bool
secret_lock_all(size_t len)
{
    if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
        return false;
    if (may_map(len + LOCK_ALL_SLACK))
        return true;
    secret_unlock_all(true);
    return false;
}

void
secret_unlock_all(bool locked)
{
    if (!locked)
        return;
    munlockall(); /* the pool, too */
    locked_by = 0;
    pool_lock();
}

int
secret_new(struct secret **out, size_t len)
{
    struct secret *s;
    int r = pool_lock();

    if (r < 0)
        return r;
    s = gcry_calloc_secure(1, sizeof *s + len);
    if (!s)
        return report(-ENOMEM, "no secure memory is left for keys");
    s->len = len;
    *out = s;
    return 0;
}

int
secret_copy(struct secret **out, const void *bytes, size_t len)
{
    int r = secret_new(out, len);

    if (r == 0 && len > 0)
        memcpy((*out)->bytes, bytes, len);
    return r;
}

int
secret_random(struct secret **out, size_t len)
{
    int r = secret_new(out, len);

    if (r == 0)
        gcry_randomize((*out)->bytes, len, GCRY_VERY_STRONG_RANDOM);
    return r;
}

bool
secret_equal(const struct secret *a, const struct secret *b)
{
    uint8_t differ = 0;

    if (a->len != b->len)
        return false;
    for (size_t i = 0; i < a->len; i++)
        differ |= a->bytes[i] ^ b->bytes[i];
    return differ == 0;
}

void
secret_free(struct secret *s)
{
    if (!s)
        return;
    explicit_bzero(s->bytes, s->len);
    gcry_free(s);
}

void
secret_freep(struct secret **s)
{
    secret_free(*s);
}
