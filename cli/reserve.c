/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram reserve: promises a file room before it is written, in an image or in a mount. */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/openimage.h"
#include "fs/virt.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct promise {
    const char *where, *name;
    uint64_t size; /* 0: none any more */
};

static int
explain(const struct promise *p, int r)
{
    switch (r) {
    case -ENOSPC:
        return report(r,
                      "%s: no slot of at least %" PRIu64
                      " bytes is free: \"vnvram info\" shows what "
                      "they hold, \"vnvram grow\" adds some",
                      p->where, p->size);
    case -EFBIG:
        return report(r, "%s: no slot holds %" PRIu64 " bytes: \"vnvram grow\" adds larger ones",
                      p->where, p->size);
    case -ENOENT:
        return report(r, "%s: nothing is reserved for %s", p->where, p->name);
    default:
        return report(r, "%s: cannot reserve room for %s: %s", p->where, p->name, errno_text(r));
    }
}

static int
reserve_in_image(const struct promise *p, struct options *o)
{
    AUTO(image_close) struct open_image image = {0};
    const struct change c = {.op = CHANGE_RESERVE, .name = p->name, .len = (size_t)p->size};
    int r = image_open_to_change(&image, o, p->where);

    if (r < 0)
        return r;
    if (p->size > MAX_CAPACITY)
        return explain(p, -EFBIG);
    r = store_commit(image.store, &c, 1, NULL);
    if (r < 0)
        return r == -EIO || r == -EROFS ? r : explain(p, r);
    return store_settle(image.store);
}

/* One write(2) is one order: all of it, or an error. */
static int
reserve_in_mount(const struct promise *p)
{
    char path[4096], order[NAME_MAX_LEN + 64];
    int n = snprintf(order, sizeof order, "reserve %" PRIu64 " %s\n", p->size, p->name);
    AUTO_FD int fd = -1;

    if (isspace((unsigned char)p->name[strlen(p->name) - 1])) /* which is cut off an order */
        return report(-EINVAL, "\"%s\" ends in a blank: unmount the image, and reserve there",
                      p->name);
    if ((size_t)snprintf(path, sizeof path, "%s/.vnvram/control", p->where) >= sizeof path)
        return explain(p, -ENAMETOOLONG);
    fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return report(-ENOENT, "%s: no image is mounted there", p->where);
    if (fd < 0)
        return report(-errno, "%s: cannot open: %s", path, errno_text(-errno));
    return write(fd, order, (size_t)n) < 0 ? explain(p, -errno) : 0;
}

static int
check_name(const char *name)
{
    size_t len = strlen(name);

    if (!entry_name_ok(name, len) || virt_name_is_reserved(name))
        return report(-EINVAL, "\"%s\" cannot be the name of a file in an image", name);
    return 0;
}

int
cmd_reserve(struct options *o)
{
    struct promise p = {.where = o->args[0], .name = o->args[1]};
    struct stat st;
    int r = check_name(p.name);

    if (r == 0 && parse_size(o->args[2], &p.size) < 0)
        r = report(-EINVAL, "\"%s\" is not a size such as 180K", o->args[2]);
    if (r < 0)
        return EXIT_USAGE;
    if (stat(p.where, &st) == 0 && S_ISDIR(st.st_mode)) {
        r = o->key.given || o->anchor
                ? report(-EINVAL, "%s: is a mount, which has its key and anchor already", p.where)
                : reserve_in_mount(&p);
        return finding_exit_code(r);
    }
    return image_advise(p.where, reserve_in_image(&p, o));
}
