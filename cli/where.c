/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/where.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/dev.h"
#include "core/holder.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct by_image {
    struct stat st;
    char *dir; /* the last one found */
    unsigned n;
};

static int
look_for_image(void *arg, const struct mount_entry *m)
{
    struct by_image *b = arg;
    struct stat st;

    if (!mount_entry_is_ours(m) || stat(m->source, &st) < 0)
        return 0;
    if (S_ISBLK(st.st_mode) && S_ISBLK(b->st.st_mode)
            ? st.st_rdev != b->st.st_rdev
            : st.st_dev != b->st.st_dev || st.st_ino != b->st.st_ino)
        return 0;
    b->n++;
    free(b->dir);
    b->dir = strdup(m->dir);
    return b->dir ? 0 : -ENOMEM;
}

struct by_source {
    char *name, *dir; /* dir: the last one found */
};

static int
look_for_source(void *arg, const struct mount_entry *m)
{
    struct by_source *b = arg;

    if (!mount_entry_is_ours(m) || strcmp(m->source, b->name) != 0)
        return 0;
    free(b->dir);
    b->dir = strdup(m->dir);
    return b->dir ? 0 : -ENOMEM;
}

bool
where_is_only(const struct stat *image)
{
    struct by_image b = {.st = *image};
    int r = mountinfo_each(look_for_image, &b);

    free(b.dir);
    return r == 0 && b.n <= 1;
}

/* Of one that was found otherwise than by its path; -EBUSY is reported. */
static int
find_on_top(struct mount_entry *m, const char *dir)
{
    int r = mountinfo_find(m, dir);

    if (r < 0 || mount_entry_is_ours(m))
        return r;
    mount_entry_fini(m);
    return report(-EBUSY, "%s: something else is mounted over it; what to do: unmount that first",
                  dir);
}

/* -ENOENT where the image is not mounted. */
static int
find_by_image(struct mount_entry *m, const struct stat *image)
{
    struct by_image b = {.st = *image};
    int r = mountinfo_each(look_for_image, &b);

    if (r == 0)
        r = b.dir ? find_on_top(m, b.dir) : -ENOENT;
    free(b.dir);
    return r;
}

/* Detached while in use, it serves whoever uses it, and has the image. */
static int
report_unseen(const char *what, const struct stat *image)
{
    struct holder h;

    if (S_ISDIR(image->st_mode) || !holder_find(&h, image) || strcmp(h.comm, "vnvram") != 0)
        return report(-ENOTCONN, "%s: not mounted by vnvram", what);
    return report(-EBUSY,
                  "%s: mounted nowhere in sight, yet process %d (vnvram) has it: a mount that was "
                  "detached while in use, one in another mount namespace, or a command; what to "
                  "do: end what uses it, or, for a mount, \"kill %d\", and once more to end it "
                  "whoever uses it",
                  what, (int)h.pid, (int)h.pid);
}

static int
find_by_path(struct mount_entry *m, const char *what)
{
    AUTO_FREE char *dir = mountinfo_realpath(what);
    int r = dir ? mountinfo_find(m, dir) : -errno;
    struct stat st;

    if (r == 0 && mount_entry_is_ours(m))
        return 0;
    if (r == 0)
        mount_entry_fini(m);
    if (!dir)
        return report(r, "%s: %s", what, errno_text(r));
    if (stat(dir, &st) < 0)
        return report(-ENOTCONN, "%s: not mounted by vnvram", what);
    r = S_ISDIR(st.st_mode) ? -ENOENT : find_by_image(m, &st);
    return r == 0 || r == -EBUSY ? r : report_unseen(what, &st);
}

/* The mount of an image that no path leads to. */
static int
find_by_uri(struct mount_entry *m, const char *uri)
{
    struct by_source b = {.name = dev_real_name(uri)};
    int r = b.name ? mountinfo_each(look_for_source, &b) : -EINVAL; /* reported there */

    if (r == 0)
        r = b.dir ? find_on_top(m, b.dir) : -ENOENT;
    free(b.name);
    free(b.dir);
    return r == 0 || r == -EINVAL || r == -EBUSY
               ? r
               : report(-ENOTCONN, "%s: not mounted by vnvram", uri);
}

int
where_find(struct mount_entry *m, const char *what)
{
    if (!dev_is_path(what))
        return find_by_uri(m, what);
    return find_by_path(m, what);
}

char *
where_image_of(const char *dir)
{
    AUTO_FREE char *path = dev_is_path(dir) ? mountinfo_realpath(dir) : NULL;
    struct mount_entry m = {0};
    char *image = NULL;

    if (!path || mountinfo_find(&m, path) < 0)
        return NULL;
    if (mount_entry_is_ours(&m))
        image = strdup(m.source);
    mount_entry_fini(&m);
    return image;
}

static char *
of_uri(const char *uri)
{
    struct by_source b = {.name = dev_real_name(uri)};

    if (b.name && mountinfo_each(look_for_source, &b) < 0) {
        free(b.dir);
        b.dir = NULL;
    }
    free(b.name);
    return b.dir;
}

char *
where_of_image(const char *image)
{
    AUTO_FREE char *under = where_image_of(image); /* a mount that hangs is not touched */
    struct by_image b = {0};

    if (under)
        return NULL;
    if (!dev_is_path(image))
        return of_uri(image);
    if (stat(image, &b.st) < 0 || S_ISDIR(b.st.st_mode))
        return NULL;
    if (mountinfo_each(look_for_image, &b) == 0)
        return b.dir;
    free(b.dir);
    return NULL;
}
