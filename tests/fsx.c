/* SPDX-License-Identifier: BSD-3-Clause */
/* fsx.c - random operations on files of a directory, each checked against a model in memory.
 *
 *     fsx [-s SEED] [-n OPERATIONS] [-f FILES] [-m MAXIMUM-SIZE] [-p PREFIX] [-r EVERY -c COMMAND]
 * DIR
 *
 * Reads, writes, truncations, shared maps, fsync, reopening; with several files also renames,
 * exchanges and unlinks.  With -r and -c, all files are closed every so many operations and the
 * shell runs COMMAND (which mounts anew); then everything must be as it was.  The seed is printed;
 * the same seed and options give the same operations.  On a difference the last operations are
 * shown; exit status 1. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FILES = 16, LOG = 40, PAGE = 4096 };

struct file {
    char name[16];
    int fd; /* -1: closed */
    bool there;
    unsigned char *data; /* the model: always zero past size */
    size_t size;
};

static struct file files[MAX_FILES];
static unsigned n_files = 1;
static size_t max_size = 200000;
static uint64_t state;
static unsigned long operation, operations = 100000, remount_every, remounts;
static const char *directory, *remount_command, *prefix = "fsx";
static unsigned char *scratch;
static char history[LOG][96];

/* ---- helpers -----------------------------------------------------------------------------------
 */

/* xorshift64*: small, seedable, the same everywhere. */
static uint64_t
draw(uint64_t below)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * UINT64_C(2685821657736338717) >> 11) % below;
}

static void __attribute__((format(printf, 1, 2))) note(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vsnprintf(history[operation % LOG], sizeof history[0], format, ap);
    va_end(ap);
}

static void __attribute__((format(printf, 1, 2), noreturn)) fail(const char *format, ...)
{
    int e = errno;
    va_list ap;

    printf("operation %lu: ", operation);
    va_start(ap, format);
    vprintf(format, ap);
    va_end(ap);
    printf(" (errno %s)\nthe last operations:\n", strerrorname_np(e));
    for (unsigned long i = operation < LOG ? 0 : operation - LOG + 1; i <= operation; i++)
        printf("%8lu %s\n", i, history[i % LOG]);
    exit(1);
}

static void
compare(const struct file *f, const unsigned char *got, size_t off, size_t len, const char *how)
{
    if (!memcmp(got, f->data + off, len))
        return;
    for (size_t i = 0; i < len; i++)
        if (got[i] != f->data[off + i])
            fail("%s of %s: byte %zu is 0x%02x, not 0x%02x", how, f->name, off + i, got[i],
                 f->data[off + i]);
}

static void
open_file(struct file *f)
{
    struct stat st;

    f->fd = open(f->name, O_RDWR | (f->there ? 0 : O_CREAT | O_EXCL), 0644);
    if (f->fd < 0)
        fail("open %s", f->name);
    f->there = true;
    if (fstat(f->fd, &st) < 0 || (size_t)st.st_size != f->size)
        fail("%s is %lld bytes, not %zu", f->name, (long long)st.st_size, f->size);
}

static void
close_file(struct file *f)
{
    if (f->fd >= 0 && close(f->fd) < 0)
        fail("close %s", f->name);
    f->fd = -1;
}

static struct file *
pick(void)
{
    struct file *f = &files[draw(n_files)];

    if (f->fd < 0)
        open_file(f);
    return f;
}

static void
model_resize(struct file *f, size_t size)
{
    if (size < f->size)
        memset(f->data + size, 0, f->size - size);
    f->size = size;
}

/* Bytes that tell which operation wrote them. */
static void
fill(unsigned char *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (unsigned char)(operation * 37 + i + 1);
}

/* Mostly small pieces, sometimes up to all of it. */
static size_t
draw_length(void)
{
    switch (draw(8)) {
    case 0:
        return 1 + draw(max_size);
    case 1:
    case 2:
        return 1 + draw(64);
    default:
        return 1 + draw(max_size < 16384 ? max_size : 16384);
    }
}

/* ---- operations --------------------------------------------------------------------------------
 */

static void
do_write(void)
{
    struct file *f = pick();
    size_t off = draw(max_size), len = draw_length();

    if (len > max_size - off)
        len = max_size - off;
    note("write %s %zu at %zu", f->name, len, off);
    if (off + len > f->size)
        model_resize(f, off + len);
    fill(f->data + off, len);
    if (pwrite(f->fd, f->data + off, len, (off_t)off) != (ssize_t)len)
        fail("pwrite");
}

static void
do_append(void)
{
    struct file *f = pick();
    size_t len = draw_length(), off = f->size;
    int fd;

    if (len > max_size - off)
        len = max_size - off;
    note("append %s %zu at %zu", f->name, len, off);
    model_resize(f, off + len);
    fill(f->data + off, len);
    fd = open(f->name, O_WRONLY | O_APPEND);
    if (fd < 0 || write(fd, f->data + off, len) != (ssize_t)len || close(fd) < 0)
        fail("append");
}

static void
do_read(void)
{
    struct file *f = pick();
    size_t off = draw(max_size), len = draw_length();
    size_t there = off >= f->size ? 0 : len < f->size - off ? len : f->size - off;

    note("read %s %zu at %zu of %zu", f->name, len, off, f->size);
    if (pread(f->fd, scratch, len, (off_t)off) != (ssize_t)there)
        fail("pread");
    compare(f, scratch, off, there, "read");
}

static void
do_truncate(void)
{
    struct file *f = pick();
    size_t size = draw(4) ? draw(f->size + 1) : draw(max_size + 1);
    bool by_name = draw(4) == 0;

    note("%struncate %s %zu to %zu", by_name ? "" : "f", f->name, f->size, size);
    if (by_name ? truncate(f->name, (off_t)size) < 0 : ftruncate(f->fd, (off_t)size) < 0)
        fail("truncate");
    model_resize(f, size);
}

/* A map of whole pages around [off, off + len), inside the file. */
static unsigned char *
map(const struct file *f, size_t off, size_t len, size_t *base)
{
    unsigned char *p;

    *base = off / PAGE * PAGE;
    p = mmap(NULL, off + len - *base, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, (off_t)*base);
    if (p == MAP_FAILED)
        fail("mmap");
    return p;
}

static void
do_map_read(void)
{
    struct file *f = pick();
    size_t off, len, base, end;
    unsigned char *p;

    if (!f->size) {
        note("nothing to map in %s", f->name);
        return;
    }
    off = draw(f->size);
    len = draw_length();
    len = len < f->size - off ? len : f->size - off;
    note("map, read %s %zu at %zu of %zu", f->name, len, off, f->size);
    p = map(f, off, len, &base);
    compare(f, p + off - base, off, len, "map");
    end = (off + len + PAGE - 1) / PAGE * PAGE;
    if (off + len == f->size) /* the rest of the last page reads as zeroes */
        for (size_t i = f->size; i < end; i++)
            if (p[i - base])
                fail("byte %zu past the end of %s is 0x%02x", i - f->size, f->name, p[i - base]);
    munmap(p, off + len - base);
}

static void
do_map_write(void)
{
    struct file *f = pick();
    size_t off = draw(max_size), len = draw_length(), base;
    bool sync = draw(8) == 0;
    unsigned char *p;

    len = len < max_size - off ? len : max_size - off;
    note("map, write %s %zu at %zu of %zu%s", f->name, len, off, f->size, sync ? ", msync" : "");
    if (off + len > f->size) {
        if (ftruncate(f->fd, (off_t)(off + len)) < 0)
            fail("ftruncate");
        model_resize(f, off + len);
    }
    p = map(f, off, len, &base);
    fill(f->data + off, len);
    memcpy(p + off - base, f->data + off, len);
    if (sync && msync(p, off + len - base, MS_SYNC) < 0)
        fail("msync");
    munmap(p, off + len - base);
}

static void
do_fallocate(void)
{
    struct file *f = pick();
    size_t off = draw(max_size), len = 1 + draw(max_size - off);
    int e;

    note("fallocate %s %zu at %zu of %zu", f->name, len, off, f->size);
    if (off + len > f->size)
        model_resize(f, off + len);
    e = posix_fallocate(f->fd, (off_t)off, (off_t)len);
    if (e) {
        errno = e;
        fail("posix_fallocate");
    }
}

/* Zeroes in the middle, by making a hole or not; past the end it grows the file unless told not to.
 */
static void
do_zero(void)
{
    static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_KEEP_SIZE};
    struct file *f = pick();
    size_t off = draw(max_size), len = draw_length(), end;
    int mode = modes[draw(4)];

    len = len < max_size - off ? len : max_size - off;
    end = off + len;
    note("fallocate mode %#x %s %zu at %zu of %zu", mode, f->name, len, off, f->size);
    if (fallocate(f->fd, mode, (off_t)off, (off_t)len) < 0)
        fail("fallocate");
    if (end > f->size && !(mode & FALLOC_FL_KEEP_SIZE))
        model_resize(f, end);
    if (mode != FALLOC_FL_KEEP_SIZE && off < f->size)
        memset(f->data + off, 0, (end < f->size ? end : f->size) - off);
}

/* From one place to another of the same file, without overlap. */
static void
do_copy(void)
{
    struct file *f = pick();
    size_t half = f->size / 2, len = 1 + draw(half + 1), from, to;
    off_t in, out;

    if (half < 2 || len > half) {
        note("nothing to copy in %s", f->name);
        return;
    }
    from = draw(half - len + 1);
    to = half + draw(max_size - half - len + 1);
    note("copy %s %zu from %zu to %zu of %zu", f->name, len, from, to, f->size);
    in = (off_t)from;
    out = (off_t)to;
    for (size_t done = 0; done < len;) {
        ssize_t n = copy_file_range(f->fd, &in, f->fd, &out, len - done, 0);

        if (n <= 0)
            fail("copy_file_range: %zd", n);
        done += (size_t)n;
    }
    if (to + len > f->size)
        model_resize(f, to + len);
    memcpy(f->data + to, f->data + from, len);
}

static void
do_fsync(void)
{
    struct file *f = pick();
    bool data_only = draw(2);

    note("%s %s", data_only ? "fdatasync" : "fsync", f->name);
    if (data_only ? fdatasync(f->fd) < 0 : fsync(f->fd) < 0)
        fail("fsync");
}

static void
do_reopen(void)
{
    struct file *f = pick();

    note("reopen %s", f->name);
    close_file(f);
    open_file(f);
}

static void
do_verify(void)
{
    struct file *f = pick();
    struct stat st;

    note("verify %s of %zu", f->name, f->size);
    if (fstat(f->fd, &st) < 0 || (size_t)st.st_size != f->size)
        fail("%s is %lld bytes, not %zu", f->name, (long long)st.st_size, f->size);
    if (pread(f->fd, scratch, max_size + 1, 0) != (ssize_t)f->size)
        fail("pread");
    compare(f, scratch, 0, f->size, "verify");
}

/* ---- with several files ------------------------------------------------------------------------
 */

static void
swap_models(struct file *a, struct file *b)
{
    struct file t = *a;

    *a = *b;
    *b = t;
    memcpy(b->name, a->name, sizeof b->name);
    memcpy(a->name, t.name, sizeof a->name);
}

static void
forget(struct file *f)
{
    if (!f->there)
        return;
    f->there = false;
    model_resize(f, 0);
}

/* Descriptors stay open over it: a's file goes on under b's name. */
static void
do_rename(void)
{
    struct file *a = pick(), *b = &files[draw(n_files)];

    note("rename %s %s", a->name, b->name);
    if (rename(a->name, b->name) < 0)
        fail("rename");
    if (a == b)
        return;
    close_file(b);
    forget(b);
    swap_models(a, b);
}

static void
do_exchange(void)
{
    struct file *a = pick(), *b = pick();

    note("exchange %s %s", a->name, b->name);
    if (a == b)
        return;
    if (renameat2(AT_FDCWD, a->name, AT_FDCWD, b->name, RENAME_EXCHANGE) < 0)
        fail("renameat2");
    swap_models(a, b);
}

static void
do_unlink(void)
{
    struct file *f = pick();
    bool close_first = draw(2);

    note("unlink %s, %s", f->name, close_first ? "closed" : "open");
    if (close_first)
        close_file(f);
    if (unlink(f->name) < 0)
        fail("unlink");
    if (!close_first) { /* the content must still be there */
        if (pread(f->fd, scratch, max_size + 1, 0) != (ssize_t)f->size)
            fail("pread of an unlinked file");
        compare(f, scratch, 0, f->size, "unlinked");
        close_file(f);
    }
    forget(f);
}

static void
remount(void)
{
    note("remount");
    for (unsigned i = 0; i < n_files; i++)
        close_file(&files[i]);
    if (chdir("/") < 0 || system(remount_command) != 0 || chdir(directory) < 0)
        fail("%s", remount_command);
    remounts++;
    for (unsigned i = 0; i < n_files; i++) {
        struct file *f = &files[i];

        if (!f->there)
            continue;
        open_file(f);
        if (pread(f->fd, scratch, max_size + 1, 0) != (ssize_t)f->size)
            fail("pread of %s after a remount", f->name);
        compare(f, scratch, 0, f->size, "remount");
    }
}

static const struct {
    void (*run)(void);
    unsigned weight;
    bool several;
} table[] = {
    {do_write, 26, false},    {do_append, 2, false},     {do_read, 26, false},
    {do_map_read, 12, false}, {do_map_write, 12, false}, {do_truncate, 10, false},
    {do_fallocate, 2, false}, {do_zero, 2, false},       {do_copy, 2, false},
    {do_fsync, 2, false},     {do_reopen, 3, false},     {do_verify, 3, false},
    {do_rename, 3, true},     {do_exchange, 2, true},    {do_unlink, 1, true},
};

static void
step(void)
{
    unsigned total = 0, at;

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        total += table[i].several && n_files == 1 ? 0 : table[i].weight;
    at = (unsigned)draw(total);
    for (size_t i = 0;; i++) {
        if (table[i].several && n_files == 1)
            continue;
        if (at < table[i].weight) {
            table[i].run();
            return;
        }
        at -= table[i].weight;
    }
}

static int
parse(int argc, char **argv)
{
    int c;

    state = (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid();
    while ((c = getopt(argc, argv, "s:n:f:m:p:r:c:")) != -1)
        switch (c) {
        case 's':
            state = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            operations = strtoul(optarg, NULL, 0);
            break;
        case 'f':
            n_files = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'm':
            max_size = strtoul(optarg, NULL, 0);
            break;
        case 'p':
            prefix = optarg;
            break;
        case 'r':
            remount_every = strtoul(optarg, NULL, 0);
            break;
        case 'c':
            remount_command = optarg;
            break;
        default:
            return -1;
        }
    if (optind + 1 != argc || !state || !n_files || n_files > MAX_FILES || max_size < 2 ||
        !remount_every != !remount_command)
        return -1;
    directory = argv[optind];
    return 0;
}

int
main(int argc, char **argv)
{
    uint64_t seed;

    if (parse(argc, argv) < 0 || chdir(directory) < 0) {
        fprintf(stderr, "usage: fsx [-s SEED] [-n OPERATIONS] [-f FILES] [-m MAXIMUM-SIZE] "
                        "[-r EVERY -c COMMAND] DIR\n");
        return 2;
    }
    seed = state;
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    scratch = malloc(max_size + 1);
    for (unsigned i = 0; i < n_files; i++) {
        snprintf(files[i].name, sizeof files[i].name, "%s-%u", prefix, i);
        files[i].fd = -1;
        files[i].data = calloc(1, max_size);
        if (!scratch || !files[i].data)
            abort();
    }
    for (operation = 1; operation <= operations; operation++)
        if (remount_every && operation % remount_every == 0)
            remount();
        else
            step();
    for (unsigned i = 0; i < n_files; i++)
        close_file(&files[i]);
    printf("%lu operations on %u files, %lu remounts: no difference (seed %llu)\n", operations,
           n_files, remounts, (unsigned long long)seed);
    return 0;
}
