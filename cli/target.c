/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/target.h"
#include "base/report.h"
#include "base/scope.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int
report_target(const struct target *t, const char *what, int r)
{
    return report(r, "%s: cannot %s: %s", t->path, what, errno_text(r));
}

static int
report_exists(const struct target *t)
{
    return report(-EEXIST, "%s: is there already; nothing was written", t->path);
}

/* ---- the file that is to come -------------------------------------------------------------------
 */

static int
open_directory(struct target *t)
{
    const char *slash = strrchr(t->path, '/');
    AUTO_FREE char *dir = slash ? strndup(t->path, (size_t)(slash - t->path) + 1) : strdup(".");
    struct stat st;

    t->name = slash ? slash + 1 : t->path;
    if (!dir)
        return -ENOMEM;
    if (*t->name == '\0')
        return report(-EINVAL, "\"%s\" does not name a file", t->path);
    t->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->dir < 0)
        return report_target(t, "open its directory", -errno);
    return fstatat(t->dir, t->name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? report_exists(t) : 0;
}

/* Where a file system has no files without a name, one that tells what it is. */
static int
open_temporary(struct target *t)
{
    for (unsigned i = 0; i < 100; i++) {
        free(t->temp);
        t->temp = NULL;
        if (asprintf(&t->temp, ".%.200s.%d.%u.tmp", t->name, (int)getpid(), i) < 0) {
            t->temp = NULL;
            return -ENOMEM;
        }
        t->fd = openat(t->dir, t->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (t->fd >= 0)
            return 0;
        if (errno != EEXIST)
            break;
    }
    free(t->temp); /* not ours to remove */
    t->temp = NULL;
    return report_target(t, "make it", -errno);
}

int
target_open(struct target *t, const char *path)
{
    int r;

    t->path = path;
    r = open_directory(t);
    if (r < 0)
        return r;
    t->fd = openat(t->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (t->fd >= 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL)
        return report_target(t, "make it", -errno);
    return open_temporary(t);
}

int
target_stdout(struct target *t, const char *what)
{
    t->path = "standard output";
    if (isatty(STDOUT_FILENO))
        return report(-EINVAL, "%s does not belong on a terminal", what);
    t->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    return t->fd < 0 ? report_target(t, "open", -errno) : 0;
}

int
target_reserve(const struct target *t, uint64_t size)
{
    if (fallocate(t->fd, 0, 0, (off_t)size) < 0 && errno != EOPNOTSUPP)
        return report_target(t, "keep room for it", -errno);
    return 0;
}

int
target_write(const struct target *t, const void *buf, size_t n)
{
    const uint8_t *p = buf;

    while (n > 0) {
        ssize_t put = write(t->fd, p, n);

        if (put < 0 && errno != EINTR)
            return report_target(t, "write", -errno);
        if (put > 0) {
            p += put;
            n -= (size_t)put;
        }
    }
    return 0;
}

int
target_flush(const struct target *t)
{
    return fsync(t->fd) < 0 ? report_target(t, "flush it", -errno) : 0;
}

/* ---- publishing ---------------------------------------------------------------------------------
 */

static void
drop_temporary(struct target *t)
{
    free(t->temp);
    t->temp = NULL;
}

/* Not rename(2): an existing file is never replaced. */
static int
give_name(struct target *t)
{
    char proc[32];
    int r;

    snprintf(proc, sizeof proc, "/proc/self/fd/%d", t->fd);
    if (!t->temp) {
        r = linkat(AT_FDCWD, proc, t->dir, t->name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
    } else {
        r = renameat2(t->dir, t->temp, t->dir, t->name, RENAME_NOREPLACE) < 0 ? -errno : 0;
        if (r == 0)
            drop_temporary(t);
        else if (r == -EINVAL || r == -ENOSYS)
            r = linkat(t->dir, t->temp, t->dir, t->name, 0) < 0 ? -errno : 0;
    }
    t->named = r == 0;
    if (r == -EEXIST)
        return report_exists(t);
    return r < 0 ? report_target(t, "give it its name", r) : 0;
}

static int
make_name_durable(struct target *t)
{
    if (t->temp && unlinkat(t->dir, t->temp, 0) == 0)
        drop_temporary(t);
    return fsync(t->dir) < 0 ? report_target(t, "flush its directory", -errno) : 0;
}

int
target_publish(struct target *t, size_t n)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++)
        r = give_name(&t[i]);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = make_name_durable(&t[i]);
    if (r == 0)
        return 0;
    for (size_t i = 0; i < n; i++) { /* what may be gone after a crash shall not pass for whole */
        if (t[i].named && unlinkat(t[i].dir, t[i].name, 0) == 0)
            t[i].named = false;
    }
    return r;
}

void
target_fini(struct target *t)
{
    if (t->temp)
        unlinkat(t->dir, t->temp, 0);
    free(t->temp);
    if (t->fd >= 0)
        close(t->fd);
    if (t->dir >= 0)
        close(t->dir);
    *t = (struct target)TARGET_INIT;
}
