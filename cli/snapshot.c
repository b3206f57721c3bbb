/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram snapshot: .vnvram/image of a mount, under a name that only a whole, durable copy ever
 * gets. */
#include "base/finding.h"
#include "base/progress.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/target.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK = 1024 * 1024 };

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

/* What is open is fixed: the state at open(2), whatever is committed meanwhile. */
static int
copy(int from, const char *source, uint64_t size, const struct target *to)
{
    AUTO_PROGRESS bool shown = progress_started("copying", size);
    AUTO_FREE uint8_t *buf = malloc(CHUNK);
    uint64_t done = 0;

    if (!buf)
        return report(-ENOMEM, "%s: %s", to->path, errno_text(-ENOMEM));
    while (done < size) {
        size_t want = size - done < CHUNK ? (size_t)(size - done) : (size_t)CHUNK;
        ssize_t n = read(from, buf, want);
        int r;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return report(-EIO, "%s: cannot read at %" PRIu64 " of %" PRIu64 " bytes: %s", source,
                          done, size, n < 0 ? errno_text(-errno) : "it ends there");
        r = target_write(to, buf, (size_t)n);
        if (r < 0)
            return r;
        done += (uint64_t)n;
        progress_add((uint64_t)n);
    }
    return 0;
}

/* ---- the copy ----------------------------------------------------------------------------------
 */

static int
snapshot_to_file(int from, const char *source, uint64_t size, const char *path)
{
    AUTO(target_fini) struct target t = TARGET_INIT;
    int r = target_open(&t, path);

    if (r == 0) /* not sparse: who mounts the copy must not find the host's file system full */
        r = target_reserve(&t, size);
    if (r == 0)
        r = copy(from, source, size, &t);
    if (r == 0)
        r = target_flush(&t);
    if (r == 0)
        r = image_verify_copy(t.fd, t.path);
    return r < 0 ? r : target_publish(&t, 1);
}

static int
snapshot_to_stdout(int from, const char *source, uint64_t size)
{
    AUTO(target_fini) struct target t = TARGET_INIT;
    int r = target_stdout(&t, "an image");

    return r < 0 ? r : copy(from, source, size, &t);
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
