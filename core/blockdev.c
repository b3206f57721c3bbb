/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/blockdev.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/dev.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
/* Below: it has a BLOCK_SIZE of its own. */
enum { IMAGE_BLOCK = BLOCK_SIZE };
#include <linux/fs.h>

static char *
sysfs_path(dev_t rdev, const char *what)
{
    char *path;

    return asprintf(&path, "/sys/dev/block/%u:%u/%s", major(rdev), minor(rdev), what) < 0 ? NULL
                                                                                          : path;
}

int
blockdev_claim(dev_t rdev, bool shared)
{
    AUTO_FREE char *path = sysfs_path(rdev, "dev");
    AUTO_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return -ENOENT;
    if (flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -ENOENT;
    return steal_fd(&fd);
}

int
blockdev_stat(dev_t rdev, struct stat *st)
{
    AUTO_FREE char *path = sysfs_path(rdev, "dev");

    return path && stat(path, st) == 0 ? 0 : -ENOENT;
}

/* ---- who uses it ------------------------------------------------------------------------------
 */

/* Another block device over it: a device mapper's, a RAID's. */
static char *
find_holder(dev_t rdev)
{
    AUTO_FREE char *path = sysfs_path(rdev, "holders");
    DIR *d = path ? opendir(path) : NULL;
    const struct dirent *e;
    char *text = NULL;

    while (d && !text && (e = readdir(d)))
        if (e->d_name[0] != '.' && asprintf(&text, "part of %s", e->d_name) < 0)
            text = NULL;
    if (d)
        closedir(d);
    return text;
}

static char *
find_mount(dev_t rdev)
{
    AUTO_FREE char *line = NULL;
    char *text = NULL;
    size_t size = 0;
    FILE *in = fopen("/proc/self/mountinfo", "re");

    while (in && !text && getline(&line, &size, in) >= 0) {
        unsigned maj, min;
        int at = 0;

        if (sscanf(line, "%*d %*d %u:%u %*s %n", &maj, &min, &at) == 2 && at > 0 &&
            makedev(maj, min) == rdev &&
            asprintf(&text, "mounted on %.*s", (int)strcspn(line + at, " "), line + at) < 0)
            text = NULL;
    }
    if (in)
        fclose(in);
    return text;
}

char *
blockdev_user(dev_t rdev)
{
    char *text = find_mount(rdev);

    return text ? text : find_holder(rdev);
}

/* ---- what it is -------------------------------------------------------------------------------
 */

static int
report_read_only(const char *name)
{
    return report(-EROFS, "%s: is a read-only device; what to do: mount it with -o ro", name);
}

static bool
is_read_only(int fd)
{
    int read_only = 0;

    return ioctl(fd, BLKROGET, &read_only) == 0 && read_only;
}

int
blockdev_explain_open(const char *path)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

    return fd >= 0 && is_read_only(fd) ? report_read_only(path) : 0;
}

int
blockdev_check(int fd, const char *name, bool read_only)
{
    int sector = 0;

    if (read_only)
        return 0;
    if (is_read_only(fd))
        return report_read_only(name); /* some drivers let it be opened for writing */
    if (ioctl(fd, BLKSSZGET, &sector) < 0)
        return report(-EIO, "%s: cannot tell its sectors' size: %s", name, errno_text(-errno));
    if (sector > IMAGE_BLOCK)
        return report(
            -EOPNOTSUPP,
            "%s: its sectors of %d bytes are larger than an image's blocks of %d: a write "
            "that a power cut tears would spoil what lies beside it",
            name, sector, IMAGE_BLOCK);
    return 0;
}

int
blockdev_size(int fd, const char *name, uint64_t *size)
{
    if (ioctl(fd, BLKGETSIZE64, size) < 0)
        return report(-EIO, "%s: cannot tell its size: %s", name, errno_text(-errno));
    return 0;
}
