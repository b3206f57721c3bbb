/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram import: files into an unmounted image, all in one commit or none. */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/der.h"
#include "cli/image.h"
#include "cli/interchange.h"
#include "cli/parcel.h"
#include "swtpm/state.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int
gather_fd(struct parcels *p, int fd, const char *name, const char *source)
{
    AUTO(vault_freep) struct vault *v = NULL;
    int r = parcel_read(fd, source, &v);

    return r < 0 ? r : parcels_add(p, name, &v, source);
}

/* ---- directories --------------------------------------------------------------------------------
 */

static int
gather_member(struct parcels *p, int dir, const char *path, const char *name)
{
    AUTO_FD int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    char source[PATH_MAX];
    struct stat st;
    int r;

    snprintf(source, sizeof source, "%s/%s", path, name);
    if (fd < 0 && errno != ELOOP)
        return parcel_report_errno(source, "open");
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return report(-EINVAL,
                      "%s: is not a regular file, and an image holds nothing else: nothing was "
                      "written",
                      source);
    r = gather_fd(p, fd, name, source);
    if (r == 0)
        p->list[p->n - 1].source = path;
    return r;
}

static int
visible(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static void
names_free(struct dirent **names, int n)
{
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

/* As "import DIRECTORY/ *" would: hidden files, such as swtpm's lock, are left where they are. */
static int
gather_directory(struct parcels *p, int dir, const char *path)
{
    struct dirent **names = NULL;
    int n = scandirat(dir, ".", &names, visible, alphasort), r = 0;

    if (n < 0)
        return parcel_report_errno(path, "read the directory");
    if (n == 0)
        r = report(-ENOENT, "%s: has no files", path);
    for (int i = 0; r == 0 && i < n; i++)
        r = gather_member(p, dir, path, names[i]->d_name);
    names_free(names, n);
    return r;
}

/* ---- the arguments ------------------------------------------------------------------------------
 */

static int
gather_path(struct parcels *p, const char *path, const char *name)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    const char *slash = strrchr(path, '/');
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return parcel_report_errno(path, "open");
    if (!S_ISDIR(st.st_mode))
        return gather_fd(p, fd, name ? name : slash ? slash + 1 : path, path);
    if (name)
        return report(-EINVAL, "%s: is a directory, whose files have names: --name is for one file",
                      path);
    return gather_directory(p, fd, path);
}

static int
gather(struct parcels *p, const struct options *o)
{
    int r = 0;

    if (o->name && o->n_args != 2)
        return report(-EINVAL, "--name is for one file");
    for (int i = 1; r == 0 && i < o->n_args; i++) {
        if (strcmp(o->args[i], "-") != 0)
            r = gather_path(p, o->args[i], o->name);
        else if (!o->name)
            r = report(-EINVAL, "what comes from the standard input needs a name: --name NAME");
        else
            r = gather_fd(p, STDIN_FILENO, o->name, "standard input");
    }
    return r;
}

int
cmd_import(struct options *o)
{
    AUTO(parcels_fini) struct parcels p = PARCELS_INIT;
    const char *removed[2 * SWTPM_ITEMS];
    struct parcel_commit how = {.replace = o->replace, .remove = removed};
    int r = der_check(o);

    if (r == 0 && o->der)
        return der_import(o);
    if (r == 0)
        r = interchange_check(o);
    if (r == 0)
        r = o->swtpm ? interchange_gather(&p, o, &how) : gather(&p, o);

    if (r < 0)
        return finding_exit_code(r);
    return image_advise(o->args[0], parcels_commit(&p, o, o->args[0], &how));
}
