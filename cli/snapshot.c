/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram snapshot: .vnvram/image of a mount, under a name that only a whole, durable copy ever
 * gets. */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "core/check.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK = 1024 * 1024 };

/* The file that is to come: written without a name, or under a temporary one, beside its place. */
struct target {
    const char *path; /* as the user wrote it */
    const char *name; /* its last part */
    char *temp;       /* the temporary name in .dir; NULL: none */
    int dir, fd;
};

static void
target_fini(struct target *t)
{
    if (t->temp)
        unlinkat(t->dir, t->temp, 0);
    free(t->temp);
    if (t->fd >= 0)
        close(t->fd);
    if (t->dir >= 0)
        close(t->dir);
}

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

/* ---- the source -------------------------------------------------------------------------------
 */

static int
open_source(const char *mountpoint, char **name, uint64_t *size)
{
    AUTO_FREE char *path = NULL;
    AUTO_FD int fd = -1;
    struct stat st;

    if (asprintf(&path, "%s/.vnvram/image", mountpoint) < 0)
        return -ENOMEM;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return report(-errno, "%s: no image is mounted there", mountpoint);
    if (fd < 0 || fstat(fd, &st) < 0)
        return report(-errno, "%s: cannot open: %s", path, errno_text(-errno));
    *size = (uint64_t)st.st_size;
    *name = steal(&path);
    return steal_fd(&fd);
}

static int
write_all(int fd, const uint8_t *buf, size_t n)
{
    while (n > 0) {
        ssize_t put = write(fd, buf, n);

        if (put < 0 && errno != EINTR)
            return -errno;
        if (put > 0) {
            buf += put;
            n -= (size_t)put;
        }
    }
    return 0;
}

/* What is open is fixed: the state at open(2), whatever is committed meanwhile. */
static int
copy(int from, const char *source, uint64_t size, int to, const char *path)
{
    AUTO_FREE uint8_t *buf = malloc(CHUNK);
    uint64_t done = 0;

    if (!buf)
        return report(-ENOMEM, "%s: %s", path, errno_text(-ENOMEM));
    while (done < size) {
        size_t want = size - done < CHUNK ? (size_t)(size - done) : (size_t)CHUNK;
        ssize_t n = read(from, buf, want);
        int r;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return report(-EIO, "%s: cannot read at %" PRIu64 " of %" PRIu64 " bytes: %s", source,
                          done, size, n < 0 ? errno_text(-errno) : "it ends there");
        r = write_all(to, buf, (size_t)n);
        if (r < 0)
            return report(r, "%s: cannot write: %s", path, errno_text(r));
        done += (uint64_t)n;
    }
    return 0;
}

/* ---- the target -------------------------------------------------------------------------------
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

static int
open_target(struct target *t)
{
    int r = open_directory(t);

    if (r < 0)
        return r;
    t->fd = openat(t->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (t->fd >= 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL)
        return report_target(t, "make it", -errno);
    return open_temporary(t);
}

/* Allocated, not sparse: who mounts the copy must not find the host's file system full. */
static int
reserve(const struct target *t, uint64_t size)
{
    if (fallocate(t->fd, 0, 0, (off_t)size) < 0 && errno != EOPNOTSUPP)
        return report_target(t, "keep room for it", -errno);
    return 0;
}

/* ---- publishing --------------------------------------------------------------------------------
 */

static void
report_finding(void *path, int r, const char *where, const char *text)
{
    if (r < 0)
        report(r, "%s: %s: %s", (const char *)path, where, text);
}

/* Reads back from the medium what has been written, and checks every sum in it. */
static int
verify(const struct target *t)
{
    AUTO(dev_closep) struct dev *d = NULL;
    struct check_result res;
    char proc[32];
    int r;

    snprintf(proc, sizeof proc, "/proc/self/fd/%d", t->fd);
    r = dev_file_open(&d, proc, DEV_READ_ONLY | DEV_NO_LOCK);
    if (r == 0)
        r = check_image(d, NULL, NULL, report_finding, (void *)t->path, &res);
    return r < 0 ? report(r, "%s: the copy does not verify, and is dropped", t->path) : 0;
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
        if (r == 0) {
            free(t->temp);
            t->temp = NULL;
        } else if (r == -EINVAL || r == -ENOSYS) {
            r = linkat(t->dir, t->temp, t->dir, t->name, 0) < 0 ? -errno : 0;
        }
    }
    if (r == -EEXIST)
        return report_exists(t);
    return r < 0 ? report_target(t, "give it its name", r) : 0;
}

static int
publish(struct target *t)
{
    int r;

    if (fsync(t->fd) < 0)
        return report_target(t, "flush it", -errno);
    r = verify(t);
    if (r == 0)
        r = give_name(t);
    if (r < 0)
        return r;
    if (t->temp && unlinkat(t->dir, t->temp, 0) == 0) {
        free(t->temp);
        t->temp = NULL;
    }
    if (fsync(t->dir) == 0)
        return 0;
    r = report_target(t, "flush its directory", -errno);
    unlinkat(t->dir, t->name, 0); /* what may be gone after a crash shall not pass for a backup */
    return r;
}

static int
snapshot_to_file(int from, const char *source, uint64_t size, const char *path)
{
    AUTO(target_fini) struct target t = {.path = path, .dir = -1, .fd = -1};
    int r = open_target(&t);

    if (r == 0)
        r = reserve(&t, size);
    if (r == 0)
        r = copy(from, source, size, t.fd, path);
    return r < 0 ? r : publish(&t);
}

static int
snapshot_to_stdout(int from, const char *source, uint64_t size)
{
    if (isatty(STDOUT_FILENO))
        return report(-EINVAL, "an image does not belong on a terminal");
    return copy(from, source, size, STDOUT_FILENO, "stdout");
}

int
cmd_snapshot(struct options *o)
{
    AUTO_FREE char *source = NULL;
    uint64_t size = 0;
    AUTO_FD int from = open_source(o->args[0], &source, &size);

    if (from < 0)
        return finding_exit_code(from);
    if (strcmp(o->args[1], "-") == 0)
        return finding_exit_code(snapshot_to_stdout(from, source, size));
    return finding_exit_code(snapshot_to_file(from, source, size, o->args[1]));
}
