/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/root.h"
#include "base/report.h"
#include "base/scope.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

/* glibc 2.36 has it, but its <sys/mount.h> and <linux/mount.h> do not go together. */
static int
clone_tree(const char *path)
{
    return (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

static int
open_tree_or_dir(struct root *r, bool privileged)
{
    if (privileged && r->mounts >= 0)
        r->tree = clone_tree(r->path);
    if (r->tree >= 0)
        r->dir = openat(r->tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    else
        r->dir = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->dir < 0)
        return report(-errno, "%s: the TPM cannot open it: %s", r->path, errno_text(errno));
    if (privileged && r->tree < 0)
        report_at(REPORT_NOTICE, 0, "%s: cannot clone the mount: umount will say busy", r->path);
    return 0;
}

/* Only a FUSE mount comes and goes under the TPM; a plain directory (tests) is there to stay. */
static int
check_root(struct root *r)
{
    struct stat st;
    struct statfs fs;

    if (fstat(r->dir, &st) < 0 || fstatfs(r->dir, &fs) < 0)
        return report(-errno, "%s: %s", r->path, errno_text(errno));
    if (st.st_dev != r->dev)
        return report(-ESTALE, "%s: something else is mounted there now", r->path);
    r->owner = st.st_uid;
    r->group = st.st_gid;
    if (fs.f_type != FUSE_SUPER_MAGIC) {
        scope_close(&r->mounts);
        r->mounts = -1;
    }
    return 0;
}

int
root_open(struct root *r, const char *path, dev_t dev, bool privileged)
{
    int result;

    *r = (struct root){.dir = -1, .tree = -1, .mounts = -1, .dev = dev};
    snprintf(r->path, sizeof r->path, "%s", path);
    r->mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    result = open_tree_or_dir(r, privileged);
    if (result == 0)
        result = check_root(r);
    if (result < 0) {
        root_close(r);
        scope_close(&r->mounts);
        r->mounts = -1;
    }
    return result;
}

void
root_close(struct root *r)
{
    scope_close(&r->dir);
    scope_close(&r->tree);
    r->dir = r->tree = -1;
}

/* A line is "ID PARENT MAJOR:MINOR ROOT MOUNTPOINT ...". */
static bool
line_has_dev(const char *line, dev_t dev)
{
    unsigned int maj, min;

    return sscanf(line, "%*d %*d %u:%u ", &maj, &min) == 2 && makedev(maj, min) == dev;
}

/* Also true when it cannot be read: the TPM does not stop for that.  The watch is read again:
 * nothing outside of the mount can be opened any more.  It tells of a change once, so what is told
 * here must not depend on memory that can be had. */
static bool
is_mounted_anywhere(const struct root *r)
{
    char buf[4096], head[64]; /* of a line, all that is needed */
    size_t len = 0;
    ssize_t n;

    if (lseek(r->mounts, 0, SEEK_SET) < 0)
        return true;
    while ((n = read(r->mounts, buf, sizeof buf)) > 0)
        for (ssize_t i = 0; i < n; i++) {
            head[len] = '\0';
            if (buf[i] == '\n' && line_has_dev(head, r->dev))
                return true;
            if (buf[i] == '\n')
                len = 0;
            else if (len < sizeof head - 1)
                head[len++] = buf[i];
        }
    return n < 0;
}

bool
root_is_gone(const struct root *r)
{
    struct statx st;

    /* Mounts of others come and go, and mountinfo can be long: look at the one place first. */
    if (statx(AT_FDCWD, r->path, AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st) == 0 &&
        makedev(st.stx_dev_major, st.stx_dev_minor) == r->dev)
        return false;
    return !is_mounted_anywhere(r);
}
