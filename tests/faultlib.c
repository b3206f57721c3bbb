/* SPDX-License-Identifier: BSD-3-Clause */
/* Preloaded into the program by the tests (tests/faultkit.py): fails the Nth call of a class, and
 * records what is written to the image.
 *
 * All processes of a run share one mapping of the file $FAULT_CONTROL (its layout is below, and in
 * faultkit.py), so that neither a fork nor a sandbox nor kill -9 comes between.  Calls count in
 * seven classes: reads, writes, flushes and changes of size of the image $FAULT_IMAGE; opens, and
 * what the TPM's process does with files; allocations by the program and the C library, and what
 * libfuse reads requests into.  Each successful write and flush of the image is appended to the log
 * at the end of the mapping. */
#include "config.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <link.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum fault_class { READ, WRITE, FLUSH, SIZE, OPEN, FILES, ALLOC, CLASSES };
enum { SHORT = -1, HEAD = 4096, MAX_FD = 4096 };

struct control {
    uint32_t class, error; /* what fails: its errno, or SHORT */
    uint64_t nth;          /* from 1; 0: nothing fails */
    atomic_uint_fast64_t hits;
    atomic_uint_fast64_t count[CLASSES];
    atomic_uint_fast64_t log_used; /* bytes behind the head */
    uint64_t recording;
};

/* In the log, aligned to 8 bytes; .kind is written last. */
enum record_kind { RECORD_WRITE = 1, RECORD_FLUSH };
struct record {
    atomic_uint_fast32_t kind;
    uint64_t len, off; /* @len bytes follow a write */
};

static struct control *control;
static size_t log_size;
static const char *image;
static atomic_bool is_image[MAX_FD];
enum { PROGRAM, LIBC, LIBFUSE, TEXTS };
static uintptr_t text[TEXTS][2]; /* their addresses */

static int
find_text(struct dl_phdr_info *info, size_t size, void *arg)
{
    unsigned *n = arg;
    unsigned which = *n == 0                                   ? PROGRAM
                     : strstr(info->dlpi_name, "/libc.so")     ? LIBC
                     : strstr(info->dlpi_name, "/libfuse3.so") ? LIBFUSE
                                                               : TEXTS;

    (void)size;
    for (int i = 0; which < TEXTS && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];

        if (p->p_type == PT_LOAD && p->p_flags & PF_X) {
            text[which][0] = info->dlpi_addr + p->p_vaddr;
            text[which][1] = text[which][0] + p->p_memsz;
        }
    }
    ++*n;
    return 0;
}

__attribute__((constructor)) static void
begin(void)
{
    const char *path = getenv("FAULT_CONTROL");
    unsigned n = 0;
    struct stat st;
    int fd;

    image = getenv("FAULT_IMAGE");
    fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0 || fstat(fd, &st) < 0 || !image)
        _exit(99);
    dl_iterate_phdr(find_text, &n);
    log_size = (size_t)st.st_size - HEAD;
    path = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (path == MAP_FAILED)
        _exit(99);
    control = (struct control *)(uintptr_t)path;
}

/* Counts a call; 0: it is to be done, else how it fails. */
static int fault(enum fault_class class)
{
    uint64_t n;

    if (!control)
        return 0;
    n = atomic_fetch_add(&control->count[class], 1) + 1;
    if (control->nth != n || control->class != class)
        return 0;
    atomic_fetch_add(&control->hits, 1);
    return (int)control->error;
}

static void
record(enum record_kind kind, const void *buf, size_t len, uint64_t off)
{
    size_t size = (sizeof(struct record) + len + 7) & ~(size_t)7;
    struct record *r;
    uint64_t at;

    if (!control || !control->recording)
        return;
    at = atomic_fetch_add(&control->log_used, size);
    if (at + size > log_size)
        return; /* the reader sees that there was no room */
    r = (struct record *)((char *)control + HEAD + at);
    r->len = len;
    r->off = off;
    if (len)
        memcpy(r + 1, buf, len);
    atomic_store(&r->kind, kind);
}

static bool
on_image(int fd)
{
    return fd >= 0 && fd < MAX_FD && is_image[fd];
}

#define NEXT(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

/* ---- transfers --------------------------------------------------------------------------------
 */

ssize_t
pread(int fd, void *buf, size_t n, off_t off)
{
    int e = fault(on_image(fd) ? READ : FILES);

    if (e > 0) {
        errno = e;
        return -1;
    }
    return NEXT(pread)(fd, buf, e == SHORT && n > 1 ? n / 2 : n, off);
}

ssize_t
pwrite(int fd, const void *buf, size_t n, off_t off)
{
    int e = fault(on_image(fd) ? WRITE : FILES);
    ssize_t done;

    if (e > 0) {
        errno = e;
        return -1;
    }
    done = NEXT(pwrite)(fd, buf, e == SHORT && n > 1 ? n / 2 : n, off);
    if (done > 0 && on_image(fd))
        record(RECORD_WRITE, buf, (size_t)done, (uint64_t)off);
    return done;
}

ssize_t
pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
    int e = fault(FILES); /* nobody writes to the image so */

    if (e > 0) {
        errno = e;
        return -1;
    }
    return NEXT(pwritev)(fd, iov, e == SHORT ? n - 1 : n, off);
}

/* What is sent to the image to be done later is done at once, so that it counts, fails and is
 * recorded like other writes. */
static struct io_event ended[64];
static int n_ended;

int
io_submit(io_context_t ctx, long n, struct iocb **cbs)
{
    (void)ctx;
    for (long i = 0; i < n; i++) {
        const struct iocb *cb = cbs[i];
        ssize_t r = pwrite(cb->aio_fildes, cb->u.c.buf, cb->u.c.nbytes, cb->u.c.offset);

        if (cb->aio_lio_opcode != IO_CMD_PWRITE || n_ended == sizeof ended / sizeof ended[0])
            abort();
        ended[n_ended++] =
            (struct io_event){.obj = cbs[i], .res = (unsigned long)(r < 0 ? -errno : r)};
    }
    return (int)n;
}

int
io_getevents(io_context_t ctx, long least, long most, struct io_event *events,
             struct timespec *timeout)
{
    int n = n_ended;

    (void)ctx, (void)least, (void)timeout;
    if (n > most)
        abort();
    memcpy(events, ended, (size_t)n * sizeof *events);
    n_ended = 0;
    return n;
}

static int
flush(int fd, int (*next)(int))
{
    int e = fault(on_image(fd) ? FLUSH : FILES), r;

    if (e != 0) {
        errno = e > 0 ? e : EIO;
        return -1;
    }
    r = next(fd);
    if (r == 0 && on_image(fd))
        record(RECORD_FLUSH, NULL, 0, 0);
    return r;
}

int
fsync(int fd)
{
    return flush(fd, NEXT(fsync));
}

int
fdatasync(int fd)
{
    return flush(fd, NEXT(fdatasync));
}

int
ftruncate(int fd, off_t size)
{
    int e = fault(on_image(fd) ? SIZE : FILES);

    if (e != 0) {
        errno = e > 0 ? e : EIO;
        return -1;
    }
    return NEXT(ftruncate)(fd, size);
}

int
fallocate(int fd, int mode, off_t off, off_t len)
{
    int e = fault(SIZE);

    if (e != 0) {
        errno = e > 0 ? e : EIO;
        return -1;
    }
    return NEXT(fallocate)(fd, mode, off, len);
}

int
renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    int e = fault(FILES);

    if (e != 0) {
        errno = e > 0 ? e : EIO;
        return -1;
    }
    return NEXT(renameat)(from_dir, from, to_dir, to);
}

/* ---- descriptors ------------------------------------------------------------------------------
 */

static int
opened(int fd, const char *path)
{
    if (fd >= 0 && fd < MAX_FD)
        is_image[fd] = image && strcmp(path, image) == 0;
    return fd;
}

static bool
open_fails(const char *path)
{
    int e = control && strncmp(path, "/proc/", 6) != 0 ? fault(OPEN) : 0;

    if (e != 0)
        errno = e > 0 ? e : EIO;
    return e != 0;
}

int
open(const char *path, int flags, ...)
{
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return open_fails(path) ? -1 : opened(NEXT(open)(path, flags, mode), path);
}

int
openat(int dir, const char *path, int flags, ...)
{
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return open_fails(path) ? -1 : opened(NEXT(openat)(dir, path, flags, mode), path);
}

int
close(int fd)
{
    if (fd >= 0 && fd < MAX_FD)
        is_image[fd] = false;
    return NEXT(close)(fd);
}

/* ---- memory (a sanitizer brings an allocator of its own) ---------------------------------------
 */

#ifndef WITH_SANITIZERS
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

static bool
is_called_by(const void *caller, unsigned which)
{
    return (uintptr_t)caller >= text[which][0] && (uintptr_t)caller < text[which][1];
}

/* Other libraries have their own way to fail (libgcrypt aborts, for one). */
static bool
alloc_fails(const void *caller)
{
    return (is_called_by(caller, PROGRAM) || is_called_by(caller, LIBC)) && fault(ALLOC) != 0;
}

/* A request that libfuse has no memory for it refuses; not so what it reads them into. */
static bool
buffer_fails(const void *caller, size_t n)
{
    return n >= 1 << 20 && is_called_by(caller, LIBFUSE) && fault(ALLOC) != 0;
}

static void *
no_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

void *
malloc(size_t n)
{
    const void *caller = __builtin_return_address(0);

    return alloc_fails(caller) || buffer_fails(caller, n) ? no_memory() : __libc_malloc(n);
}

void *
calloc(size_t n, size_t size)
{
    return alloc_fails(__builtin_return_address(0)) ? no_memory() : __libc_calloc(n, size);
}

void *
realloc(void *p, size_t n)
{
    return alloc_fails(__builtin_return_address(0)) ? no_memory() : __libc_realloc(p, n);
}

void *
reallocarray(void *p, size_t n, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes) || alloc_fails(__builtin_return_address(0)))
        return no_memory();
    return __libc_realloc(p, bytes);
}

int
posix_memalign(void **p, size_t alignment, size_t n)
{
    void *got = alloc_fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, n);

    if (!got)
        return ENOMEM;
    *p = got;
    return 0;
}
#endif
