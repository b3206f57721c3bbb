/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/salvage.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/salvage.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

enum { NAME_CUT = 200 }; /* leaves room for the label within 255 characters */

struct output {
    const char *dir;
    int fd;
    int failed; /* 0, or why a content could not be written */
};

static int
open_directory(const char *dir)
{
    int fd;

    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return report(-errno, "%s: cannot make the directory: %s", dir, errno_text(-errno));
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? report(-errno, "%s: cannot open: %s", dir, errno_text(-errno)) : fd;
}

static char *
label(const struct salvaged *s)
{
    char *name;

    if (asprintf(&name, "%.*s.g%" PRIu64 ".slot%" PRIu32 ".bank%u", NAME_CUT,
                 s->name ? s->name : "loose", s->generation, s->slot, s->bank) < 0)
        return NULL;
    return name;
}

static int
write_durably(int fd, const uint8_t *data, uint64_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            data += n;
            len -= (uint64_t)n;
        }
    }
    return fsync(fd) < 0 ? -errno : 0;
}

static int
write_content(void *arg, const struct salvaged *s, const uint8_t *data)
{
    static const char *const roles[] = {
        [SALVAGE_CURRENT] = "the current content",
        [SALVAGE_PREVIOUS] = "the content before",
        [SALVAGE_LOOSE] = "of a file that is not known",
    };
    struct output *out = arg;
    AUTO_FREE char *name = label(s);
    AUTO_FD int fd = -1;
    int r;

    if (!name)
        return -ENOMEM;
    fd = openat(out->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    r = fd < 0 ? -errno : write_durably(fd, data, s->length);
    if (r == -EEXIST) {
        out->failed = report(r, "%s/%s: is there already, and is left as it is", out->dir, name);
        return 0; /* the others are worth as much */
    }
    if (r < 0)
        return report(r, "%s/%s: cannot write: %s", out->dir, name, errno_text(r));
    printf("%s/%s: %" PRIu64 " bytes, %s\n", out->dir, name, s->length, roles[s->role]);
    return 0;
}

int
salvage_image(const char *path, const char *dir, struct options *o)
{
    struct key_options *key = &o->key;
    struct output out = {.dir = dir};
    AUTO_FD int fd = -1;
    AUTO(dev_closep) struct dev *d = NULL;
    unsigned n = 0, lost = 0;
    int r = key->given ? keys_read(key, false) : 0; /* asks, maybe: before the image is open */

    if (r == 0)
        r = dev_open(&d, path, DEV_READ_ONLY | DEV_NO_LOCK, &o->dev);
    if (r < 0)
        return r;
    fd = out.fd = open_directory(dir);
    if (fd < 0)
        return fd;
    r = store_salvage(d, keys_unlock, key, write_content, &out, &n, &lost);
    if (r == 0 && fsync(fd) < 0)
        r = report(-errno, "%s: cannot flush: %s", dir, errno_text(-errno));
    printf("%s: %u contents whole, %u damaged beyond saving\n", path, n, lost);
    if (r == 0)
        r = out.failed;
    if (r == 0 && n == 0) {
        r = store_probe(d);
        return r == -EUCLEAN ? 0 : r; /* damaged is why we are here */
    }
    return r;
}
