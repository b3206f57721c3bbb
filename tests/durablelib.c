// SPDX-License-Identifier: BSD-3-Clause
/* durablelib.c - LD_PRELOAD: makes rename() of a program durable, as far as that can be done from
 * outside: fsync of the file before, fsync of its directory after.  scripts/bench gives it to
 * swtpm. */
#include <dlfcn.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

static int
sync_path(const char *path, int flags)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    int r = fd < 0 ? -1 : fsync(fd);

    if (fd >= 0)
        close(fd);
    return r;
}

int
rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *) =
        (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    char copy[PATH_MAX];

    snprintf(copy, sizeof copy, "%s", to);
    if (sync_path(from, 0) < 0 || real(from, to) < 0)
        return -1;
    return sync_path(dirname(copy), O_DIRECTORY);
}
