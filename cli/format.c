/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/foreign.h"
#include "cli/image.h"
#include "cli/layout.h"
#include "cli/owner.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* The mount's root belongs to whoever formats, and to nobody else. */
static struct file_attr
root_attr(void)
{
    struct file_attr a = {.mode = 0700, .uid = getuid(), .gid = getgid()};

    clock_gettime(CLOCK_REALTIME, &a.mtime);
    a.atime = a.ctime = a.mtime;
    return a;
}

/* Only a blank device is formatted.  What has a name is told by it, and at once: looking through
 * all of a large device may take long. */
static int
may_overwrite(struct dev *d)
{
    AUTO_FREE char *foreign = d->size == 0 ? NULL : foreign_name(d);
    int r = d->size == 0 ? -ENODATA : foreign ? -EMEDIUMTYPE : store_probe(d);

    if (r == -ENODATA)
        return 0;
    if (r == -EMEDIUMTYPE)
        return report(r, "%s: holds %s; nothing was written, --force overwrites it", d->name,
                      foreign ? foreign : "other data");
    if (r == 0 || r == -EUCLEAN)
        return report(-EEXIST,
                      "%s: holds a %svnvram image; nothing was written, --force "
                      "overwrites it and all files in it",
                      d->name, r ? "damaged " : "");
    return r;
}

/* The size of the image on @d, and what it takes for @spec to fit. */
static int
fit(struct dev *d, struct format_spec *spec)
{
    AUTO_FREE struct superblock *sb = calloc(1, sizeof *sb);
    uint64_t need = 0;
    int r;

    if (!sb)
        return report(-ENOMEM, "out of memory");
    r = store_layout(sb, spec, &need);
    if (r == -ERANGE)
        return report(r, "%s: %" PRIu64 " bytes are too small for these slots, which take %" PRIu64,
                      d->name, spec->image_size, need);
    if (r < 0)
        return report(r, "%s: such slots and reservations cannot be laid out: %s", d->name,
                      finding_name(r));
    spec->image_size = sb->image_size;
    return d->size >= sb->image_size ? 0 : dev_file_resize(d, sb->image_size);
}

static int
write_image(struct dev *d, struct format_spec *spec, struct options *o)
{
    AUTO(sealer_freep) struct sealer *sealer = NULL;
    int r = image_new_uuid(spec->uuid);

    if (r < 0)
        return r;
    if (!o->key.given) {
        image_warn_exposed(d);
        return store_format(d, spec, sealer_plain());
    }
    spec->seal_mode = SEAL_AES_CBC_HMAC_SHA256;
    r = keys_new_volume(&o->key, spec->uuid, spec->keyslots, &spec->key_size, &sealer);
    return r < 0 ? r : store_format(d, spec, sealer);
}

/* A new file is there after a power cut only if its directory was synced, too. */
static int
sync_parent(const char *path)
{
    AUTO_FREE char *copy = strdup(path);
    AUTO_FD int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (fd < 0 || fsync(fd) < 0)
        return report(-errno, "%s: cannot sync its directory: %s", path, errno_text(errno));
    return 0;
}

/* 1 when @path was made, 0 when something is there already. */
static int
create_file(const char *path)
{
    AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd >= 0)
        return 1;
    return errno == EEXIST ? 0 : report(-errno, "%s: cannot create: %s", path, errno_text(errno));
}

static int
format_device(const char *path, struct options *o, struct format_spec *spec)
{
    AUTO(dev_closep) struct dev *d = NULL;
    int is_new = dev_is_path(path) ? create_file(path) : 0;
    int r = is_new < 0 ? is_new : dev_open(&d, path, 0, &o->dev);

    if (r == 0 && !o->force)
        r = may_overwrite(d);
    if (r < 0)
        return r; /* not ours to remove: somebody else may have been quicker */
    r = fit(d, spec);
    if (r == 0)
        r = owner_may_take(spec->owner, d);
    if (r == 0 && o->force)
        r = foreign_wipe(d);
    if (r == 0)
        r = write_image(d, spec, o);
    if (is_new)
        r = r < 0 ? (unlink(path), r) : sync_parent(path);
    return r;
}

int
cmd_format(struct options *o)
{
    AUTO_FREE struct format_spec *spec = calloc(1, sizeof *spec);
    int r = spec ? layout_from_options(spec, o) : report(-ENOMEM, "out of memory");

    if (r == 0 && o->key.given)
        r = keys_read(&o->key, true); /* asks, maybe: before the image is held */
    if (r < 0)
        return finding_exit_code(r);
    spec->root = root_attr();
    spec->owner = owner_from_options(o, o->args[0]);
    return finding_exit_code(format_device(o->args[0], o, spec));
}
