/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/posix_run.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WORDS = 8, MAX_FDS = 10, MAX_NAME = 4200, DIFFERS = -1 };

struct bytes {
    char *p;
    size_t n;
};

static char why[1024];
static int fds[MAX_FDS] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
static struct stat marked;
static char *mapped; /* the one shared map */
static size_t mapped_size;

const char *
run_why(void)
{
    return why;
}

bool
run_differs(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vsnprintf(why, sizeof why, format, ap);
    va_end(ap);
    return false;
}

/* ---- words -------------------------------------------------------------------------------------
 */

static const char *
name_of(const char *word)
{
    static char names[4][MAX_NAME];
    static unsigned turn;
    char *end, *name = names[turn++ % 4];
    unsigned long n = strtoul(word, &end, 10);

    if (end == word || *end != '*')
        return word;
    if (n >= MAX_NAME)
        n = MAX_NAME - 1;
    memset(name, end[1] ? end[1] : 'n', n);
    name[n] = 0;
    return name;
}

static long long
number(const char *word)
{
    return strtoll(word, NULL, 0);
}

static struct bytes
content_of(const char *word)
{
    struct bytes b = {calloc(1, 1 << 21), 0};

    if (!b.p)
        abort();
    if (!strcmp(word, "''"))
        return b;
    while (*word) {
        char c = *word == '.' ? 0 : *word;

        if (word[1] == '*') {
            char *end;
            size_t n = strtoul(word + 2, &end, 0);

            memset(b.p + b.n, c, n);
            b.n += n;
            word = end;
        } else if (*word == '+') {
            word++;
        } else {
            b.p[b.n++] = c;
            word++;
        }
    }
    return b;
}

static int
errno_of(const char *word)
{
    for (int e = 1; e < 134; e++)
        if (strerrorname_np(e) && !strcmp(strerrorname_np(e), word))
            return e;
    fprintf(stderr, "no such errno: %s\n", word);
    abort();
}

static int
flags_of(const char *words)
{
    static const struct {
        const char *word;
        int flag;
    } table[] = {
        {"rdonly", O_RDONLY},       {"wronly", O_WRONLY},     {"rdwr", O_RDWR},
        {"creat", O_CREAT},         {"excl", O_EXCL},         {"trunc", O_TRUNC},
        {"append", O_APPEND},       {"sync", O_SYNC},         {"dsync", O_DSYNC},
        {"directory", O_DIRECTORY}, {"nofollow", O_NOFOLLOW}, {"nonblock", O_NONBLOCK},
        {"path", O_PATH},           {"noatime", O_NOATIME},   {"tmpfile", O_TMPFILE},
        {"cloexec", O_CLOEXEC},
    };
    int flags = 0;

    while (*words) {
        size_t n = strcspn(words, ","), i = 0;

        while (i < sizeof table / sizeof table[0] &&
               !(strlen(table[i].word) == n && !strncmp(table[i].word, words, n)))
            i++;
        if (i == sizeof table / sizeof table[0])
            abort();
        flags |= table[i].flag;
        words += n + (words[n] == ',');
    }
    return flags;
}

static struct timespec
time_of(const char *word)
{
    struct timespec t = {0, 0};
    char *end;

    if (!strcmp(word, "now"))
        t.tv_nsec = UTIME_NOW;
    else if (!strcmp(word, "omit"))
        t.tv_nsec = UTIME_OMIT;
    else {
        t.tv_sec = strtoll(word, &end, 10);
        if (*end == ':')
            t.tv_nsec = strtol(end + 1, NULL, 10);
    }
    return t;
}

static int *
fd_of(const char *word)
{
    if (!isdigit((unsigned char)word[0]) || word[1])
        abort();
    return &fds[word[0] - '0'];
}

static int
result(long r)
{
    return r < 0 ? errno : 0;
}

/* ---- operations: 0, an errno, or DIFFERS -------------------------------------------------------
 */

static int
op_create(char **w)
{
    int fd = open(name_of(w[0]), O_WRONLY | O_CREAT | O_EXCL, (mode_t)number(w[1]));

    return fd < 0 ? errno : result(close(fd));
}

static int
write_whole(int fd, const char *word)
{
    struct bytes b = content_of(word);
    ssize_t n = write(fd, b.p, b.n);
    int e = errno;

    free(b.p);
    if (n < 0)
        return e;
    return (size_t)n == b.n ? 0 : (run_differs("write took %zd of %zu", n, b.n), DIFFERS);
}

static int
op_put(char **w)
{
    int fd = open(name_of(w[0]), O_WRONLY | O_CREAT | O_TRUNC, 0644), e;

    if (fd < 0)
        return errno;
    e = write_whole(fd, w[1]);
    if (close(fd) < 0 && !e)
        e = errno;
    return e;
}

static int
op_open(char **w)
{
    int *fd = fd_of(w[0]);

    if (*fd >= 0)
        abort();
    *fd = open(name_of(w[1]), flags_of(w[2]), w[3] ? (mode_t)number(w[3]) : 0);
    return result(*fd);
}

static int
op_close(char **w)
{
    int *fd = fd_of(w[0]), r = close(*fd);

    *fd = -1;
    return result(r);
}

static int
op_write(char **w)
{
    return write_whole(*fd_of(w[0]), w[1]);
}

static int
op_pwrite(char **w)
{
    struct bytes b = content_of(w[2]);
    ssize_t n = pwrite(*fd_of(w[0]), b.p, b.n, number(w[1]));
    int e = errno;

    free(b.p);
    if (n < 0)
        return e;
    return (size_t)n == b.n ? 0 : (run_differs("pwrite took %zd of %zu", n, b.n), DIFFERS);
}

static int
compare(const char *got, size_t n, const struct bytes *want)
{
    if (n != want->n)
        return run_differs("%zu bytes, not %zu", n, want->n), DIFFERS;
    for (size_t i = 0; i < n; i++)
        if (got[i] != want->p[i])
            return run_differs("byte %zu is 0x%02x, not 0x%02x", i, (unsigned char)got[i],
                               (unsigned char)want->p[i]),
                   DIFFERS;
    return 0;
}

/* Reads up to one byte more than is wanted, at @off or (-1) at the file position. */
static int
read_and_compare(int fd, long long off, const char *word)
{
    struct bytes want = content_of(word);
    char *got = malloc(want.n + 1);
    ssize_t n;
    int r;

    if (!got)
        abort();
    n = off < 0 ? read(fd, got, want.n + 1) : pread(fd, got, want.n + 1, off);
    r = n < 0 ? errno : compare(got, (size_t)n, &want);
    free(got);
    free(want.p);
    return r;
}

static int
op_has(char **w)
{
    int fd = open(name_of(w[0]), O_RDONLY), r;

    if (fd < 0)
        return errno;
    r = read_and_compare(fd, 0, w[1]);
    close(fd);
    return r;
}

static int
op_fhas(char **w)
{
    return read_and_compare(*fd_of(w[0]), 0, w[1]);
}

static int
op_read(char **w) /* to the end of the file */
{
    return read_and_compare(*fd_of(w[0]), -1, w[1]);
}

static int
op_lseek(char **w)
{
    static const char *const names[] = {"set", "cur", "end", "data", "hole"};
    int whence = 0;
    off_t at;

    while (strcmp(names[whence], w[2]))
        whence++;
    at = lseek(*fd_of(w[0]), number(w[1]), whence);
    if (at < 0)
        return errno;
    return at == number(w[3]) ? 0 : (run_differs("position %lld", (long long)at), DIFFERS);
}

static int
op_chmod(char **w)
{
    return result(chmod(name_of(w[0]), (mode_t)number(w[1])));
}

static int
op_fchmod(char **w)
{
    return result(fchmod(*fd_of(w[0]), (mode_t)number(w[1])));
}

static int
op_chown(char **w)
{
    return result(chown(name_of(w[0]), (uid_t)number(w[1]), (gid_t)number(w[2])));
}

static int
op_lchown(char **w)
{
    return result(lchown(name_of(w[0]), (uid_t)number(w[1]), (gid_t)number(w[2])));
}

static int
op_fchown(char **w)
{
    return result(fchown(*fd_of(w[0]), (uid_t)number(w[1]), (gid_t)number(w[2])));
}

static int
op_truncate(char **w)
{
    return result(truncate(name_of(w[0]), number(w[1])));
}

static int
op_ftruncate(char **w)
{
    return result(ftruncate(*fd_of(w[0]), number(w[1])));
}

static int
op_fallocate(char **w)
{
    return posix_fallocate(*fd_of(w[0]), number(w[1]), number(w[2]));
}

static int
op_rename(char **w)
{
    unsigned flags = 0;

    if (w[2] && !strcmp(w[2], "noreplace"))
        flags = RENAME_NOREPLACE;
    else if (w[2] && !strcmp(w[2], "exchange"))
        flags = RENAME_EXCHANGE;
    else if (w[2] && !strcmp(w[2], "whiteout"))
        flags = RENAME_WHITEOUT;
    else if (w[2] && !strcmp(w[2], "both"))
        flags = RENAME_EXCHANGE | RENAME_NOREPLACE;
    else if (w[2])
        abort();
    if (flags)
        return result(renameat2(AT_FDCWD, name_of(w[0]), AT_FDCWD, name_of(w[1]), flags));
    return result(rename(name_of(w[0]), name_of(w[1])));
}

static int
op_unlink(char **w)
{
    return result(unlink(name_of(w[0])));
}

static int
op_rmdir(char **w)
{
    return result(rmdir(name_of(w[0])));
}

static int
op_mkdir(char **w)
{
    return result(mkdir(name_of(w[0]), 0755));
}

static int
op_link(char **w)
{
    return result(link(name_of(w[0]), name_of(w[1])));
}

static int
op_symlink(char **w)
{
    return result(symlink(w[0], name_of(w[1])));
}

static int
op_mknod(char **w)
{
    mode_t type = !strcmp(w[1], "fifo")   ? S_IFIFO
                  : !strcmp(w[1], "sock") ? S_IFSOCK
                  : !strcmp(w[1], "chr")  ? S_IFCHR
                  : !strcmp(w[1], "blk")  ? S_IFBLK
                                          : S_IFREG;

    return result(mknod(name_of(w[0]), type | (mode_t)number(w[2]), makedev(1, 3)));
}

static int
op_utimens(char **w)
{
    struct timespec t[2] = {time_of(w[1]), time_of(w[2])};

    return result(utimensat(AT_FDCWD, name_of(w[0]), t, w[3] ? AT_SYMLINK_NOFOLLOW : 0));
}

static int
op_futimens(char **w)
{
    struct timespec t[2] = {time_of(w[1]), time_of(w[2])};

    return result(futimens(*fd_of(w[0]), t));
}

static int
op_utimes_null(char **w)
{
    return result(utimensat(AT_FDCWD, name_of(w[0]), NULL, 0));
}

static int
op_access(char **w)
{
    return result(access(name_of(w[0]), (int)number(w[1])));
}

static int
op_fsync(char **w)
{
    return result(fsync(*fd_of(w[0])));
}

static int
op_fdatasync(char **w)
{
    return result(fdatasync(*fd_of(w[0])));
}

static int
op_umask(char **w)
{
    umask((mode_t)number(w[0]));
    return 0;
}

static int
op_count(char **w)
{
    int n = run_count();

    return n == number(w[0]) ? 0 : (run_differs("%d files listed", n), DIFFERS);
}

/* Becomes another user, for this and the real user id, and can come back: the saved id stays
 * root's. */
static int
op_as(char **w)
{
    gid_t groups[MAX_WORDS];
    int n = 0;

    if (setresuid(0, 0, 0) < 0 || setresgid(0, 0, 0) < 0)
        return errno;
    for (; w[2 + n]; n++)
        groups[n] = (gid_t)number(w[2 + n]);
    if (setgroups((size_t)n, groups) < 0 ||
        setresgid((gid_t)number(w[1]), (gid_t)number(w[1]), 0) < 0 ||
        setresuid((uid_t)number(w[0]), (uid_t)number(w[0]), 0) < 0)
        return errno;
    return 0;
}

static int
op_map(char **w)
{
    mapped_size = (size_t)number(w[1]);
    mapped = mmap(NULL, mapped_size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd_of(w[0]), 0);
    return mapped == MAP_FAILED ? errno : 0;
}

static int
op_poke(char **w)
{
    struct bytes b = content_of(w[1]);

    memcpy(mapped + number(w[0]), b.p, b.n);
    free(b.p);
    return 0;
}

static int
op_msync(char **w)
{
    (void)w;
    return result(msync(mapped, mapped_size, MS_SYNC));
}

static int
op_unmap(char **w)
{
    (void)w;
    return result(munmap(mapped, mapped_size));
}

/* ---- attributes --------------------------------------------------------------------------------
 */

static struct timespec
stat_time(const struct stat *st, const char *field)
{
    return *field == 'a' ? st->st_atim : *field == 'm' ? st->st_mtim : st->st_ctim;
}

static int
later(struct timespec a, struct timespec b)
{
    if (a.tv_sec != b.tv_sec)
        return a.tv_sec > b.tv_sec ? 1 : -1;
    return a.tv_nsec == b.tv_nsec ? 0 : a.tv_nsec > b.tv_nsec ? 1 : -1;
}

static int
check_number(const struct stat *st, const char *field, const char *want)
{
    long long got = !strcmp(field, "mode")    ? st->st_mode & 07777
                    : !strcmp(field, "uid")   ? (long long)st->st_uid
                    : !strcmp(field, "gid")   ? (long long)st->st_gid
                    : !strcmp(field, "size")  ? (long long)st->st_size
                    : !strcmp(field, "nlink") ? (long long)st->st_nlink
                    : !strcmp(field, "type")  ? (long long)(st->st_mode & S_IFMT)
                                              : -1;

    if (got == number(want))
        return 0;
    if (!strcmp(field, "mode"))
        run_differs("mode is %#llo, not %s", got, want);
    else
        run_differs("%s is %lld, not %s", field, got, want);
    return DIFFERS;
}

static int
check_field(const struct stat *st, const char *field, const char *want)
{
    struct timespec t, now;

    if (!strstr(field, "time"))
        return check_number(st, field, want);
    t = stat_time(st, field);
    clock_gettime(CLOCK_REALTIME, &now);
    if (!strcmp(want, "recent")) {
        if (llabs((long long)now.tv_sec - t.tv_sec) <= 60)
            return 0;
    } else if (!later(t, time_of(want)))
        return 0;
    run_differs("%s is %lld.%09ld, not %s", field, (long long)t.tv_sec, t.tv_nsec, want);
    return DIFFERS;
}

static int
op_is(char **w)
{
    struct stat st;

    return lstat(name_of(w[0]), &st) < 0 ? errno : check_field(&st, w[1], w[2]);
}

static int
op_fis(char **w)
{
    struct stat st;

    return fstat(*fd_of(w[0]), &st) < 0 ? errno : check_field(&st, w[1], w[2]);
}

/* Remembers the attributes of a name and waits until the file system's clock has moved on: the
 * kernel's coarse clock may stand up to a tick behind the one that a daemon reads. */
static int
op_mark(char **w)
{
    struct timespec now, coarse;

    if (lstat(name_of(w[0]), &marked) < 0)
        return errno;
    clock_gettime(CLOCK_REALTIME, &now);
    do {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
        clock_gettime(CLOCK_REALTIME_COARSE, &coarse);
    } while (later(coarse, now) <= 0 || later(coarse, marked.st_ctim) <= 0);
    return 0;
}

static int
compare_with_mark(const struct stat *st, const char *fields, int want)
{
    for (; *fields; fields++) {
        int way = later(stat_time(st, fields), stat_time(&marked, fields));

        if (way != want)
            return run_differs("%ctime %s", *fields,
                               way > 0   ? "moved on"
                               : way < 0 ? "went back"
                                         : "did not move"),
                   DIFFERS;
    }
    return 0;
}

static int
op_later(char **w) /* each of the times named (a, m, c) has moved on since mark */
{
    struct stat st;

    return lstat(name_of(w[0]), &st) < 0 ? errno : compare_with_mark(&st, w[1], 1);
}

static int
op_flater(char **w)
{
    struct stat st;

    return fstat(*fd_of(w[0]), &st) < 0 ? errno : compare_with_mark(&st, w[1], 1);
}

static int
op_same(char **w)
{
    struct stat st;

    return lstat(name_of(w[0]), &st) < 0 ? errno : compare_with_mark(&st, w[1], 0);
}

static int
op_sameino(char **w)
{
    struct stat a, b;

    if (lstat(name_of(w[0]), &a) < 0)
        return errno;
    if (fstat(*fd_of(w[1]), &b) < 0)
        return errno;
    return a.st_ino == b.st_ino ? 0 : (run_differs("another inode"), DIFFERS);
}

static int
op_statvfs(char **w)
{
    struct statvfs v;

    if (statvfs(w[0], &v) < 0)
        return errno;
    if (v.f_namemax != 255 || !v.f_blocks || v.f_bfree > v.f_blocks || v.f_bavail > v.f_bfree ||
        !v.f_bsize || !v.f_frsize || v.f_ffree > v.f_files)
        return run_differs("statvfs: namemax %lu, blocks %llu of %llu free, files %llu of %llu",
                           v.f_namemax, (unsigned long long)v.f_bfree,
                           (unsigned long long)v.f_blocks, (unsigned long long)v.f_ffree,
                           (unsigned long long)v.f_files),
               DIFFERS;
    return 0;
}

/* ---- steps -------------------------------------------------------------------------------------
 */

static const struct operation {
    const char *name;
    int (*run)(char **w);
    int min, max; /* words */
} operations[] = {
    {"access", op_access, 2, 2},
    {"as", op_as, 2, 6},
    {"chmod", op_chmod, 2, 2},
    {"chown", op_chown, 3, 3},
    {"close", op_close, 1, 1},
    {"count", op_count, 1, 1},
    {"create", op_create, 2, 2},
    {"fallocate", op_fallocate, 3, 3},
    {"fchmod", op_fchmod, 2, 2},
    {"fchown", op_fchown, 3, 3},
    {"fdatasync", op_fdatasync, 1, 1},
    {"fhas", op_fhas, 2, 2},
    {"fis", op_fis, 3, 3},
    {"flater", op_flater, 2, 2},
    {"fsync", op_fsync, 1, 1},
    {"ftruncate", op_ftruncate, 2, 2},
    {"futimens", op_futimens, 3, 3},
    {"has", op_has, 2, 2},
    {"is", op_is, 3, 3},
    {"later", op_later, 2, 2},
    {"lchown", op_lchown, 3, 3},
    {"link", op_link, 2, 2},
    {"lseek", op_lseek, 4, 4},
    {"map", op_map, 2, 2},
    {"mark", op_mark, 1, 1},
    {"mkdir", op_mkdir, 1, 1},
    {"mknod", op_mknod, 3, 3},
    {"msync", op_msync, 0, 0},
    {"open", op_open, 3, 4},
    {"poke", op_poke, 2, 2},
    {"put", op_put, 2, 2},
    {"pwrite", op_pwrite, 3, 3},
    {"read", op_read, 2, 2},
    {"rename", op_rename, 2, 3},
    {"rmdir", op_rmdir, 1, 1},
    {"same", op_same, 2, 2},
    {"sameino", op_sameino, 2, 2},
    {"statvfs", op_statvfs, 1, 1},
    {"symlink", op_symlink, 2, 2},
    {"truncate", op_truncate, 2, 2},
    {"umask", op_umask, 1, 1},
    {"unlink", op_unlink, 1, 1},
    {"unmap", op_unmap, 0, 0},
    {"utimens", op_utimens, 3, 4},
    {"utimes_null", op_utimes_null, 1, 1},
    {"write", op_write, 2, 2},
};

static const struct operation *
operation_of(const char *name)
{
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
        if (!strcmp(operations[i].name, name))
            return &operations[i];
    fprintf(stderr, "no such operation: %s\n", name);
    abort();
}

static bool
run_step(char *step)
{
    char *words[MAX_WORDS + 2] = {NULL}, *save, *copy = strdup(step), detail[512];
    int n = 0, want = 0, got;
    const struct operation *op;

    for (char *t = strtok_r(step, " ", &save); t && n <= MAX_WORDS;
         t = strtok_r(NULL, " ", &save)) {
        if (*t == '=')
            want = errno_of(t + 1);
        else
            words[n++] = t;
    }
    op = operation_of(words[0]);
    if (n - 1 < op->min || n - 1 > op->max) {
        fprintf(stderr, "wrong number of words: %s\n", copy);
        abort();
    }
    got = op->run(words + 1);
    if (got == DIFFERS) {
        snprintf(detail, sizeof detail, "%.500s", why);
        run_differs("%.200s: %s", copy, detail);
    } else if (got != want)
        run_differs("%.200s: %s, not %s", copy, got ? strerrorname_np(got) : "success",
                    want ? strerrorname_np(want) : "success");
    free(copy);
    return got == want;
}

bool
run_steps(const char *steps)
{
    char *line = strdup(steps), *save;
    bool good = true;

    for (char *s = strtok_r(line, ";", &save); s && good; s = strtok_r(NULL, ";", &save)) {
        s += strspn(s, " ");
        if (*s)
            good = run_step(s);
    }
    free(line);
    return good;
}

/* ---- between cases -----------------------------------------------------------------------------
 */

int
run_count(void)
{
    DIR *d = opendir(".");
    struct dirent *e;
    int n = 0;

    if (!d)
        return -1;
    while ((e = readdir(d)))
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n;
}

static void
empty_directory(void)
{
    DIR *d = opendir(".");
    struct dirent *e;

    if (!d)
        return;
    while ((e = readdir(d)))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && unlink(e->d_name) < 0)
            rmdir(e->d_name);
    closedir(d);
}

void
run_reset(void)
{
    uid_t real, effective, saved;

    getresuid(&real, &effective, &saved);
    if (!saved && (setresuid(0, 0, 0) < 0 || setresgid(0, 0, 0) < 0 || setgroups(0, NULL) < 0))
        abort();
    for (int i = 0; i < MAX_FDS; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
    umask(022);
    empty_directory();
    if (chown(".", geteuid(), getegid()) < 0 || chmod(".", 0755) < 0)
        perror("the directory's owner and mode");
}
