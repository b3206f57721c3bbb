/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram export: files of one generation of an image, which may be mounted, to new files. */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/der.h"
#include "cli/image.h"
#include "cli/interchange.h"
#include "cli/parcel.h"
#include "cli/target.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Where it goes: the last argument. */
struct place {
    const char *path;
    bool is_stdout, is_directory;
    bool make_directory; /* where there is none */
};

/* A TPM's state goes as a whole, and may be named in swtpm's own way. */
static int
find_state_place(struct place *p, const struct options *o)
{
    const bool dir = o->swtpm_form == SWTPM_FORM_DIR;
    const char *scheme = dir ? "dir://" : "file://";

    if (o->n_args != 2)
        return report(-EINVAL, "the state of a TPM goes as a whole: name no files");
    if (strncmp(p->path, scheme, strlen(scheme)) == 0)
        p->path += strlen(scheme);
    if (!dir && p->is_directory)
        return report(-EINVAL, "%s: is a directory, and a linear file is to be made", p->path);
    if (dir && p->is_stdout)
        return report(-EINVAL, "a directory cannot go to the standard output");
    p->is_directory = dir;
    p->make_directory = dir;
    return 0;
}

static int
find_place(struct place *p, const struct options *o)
{
    int n_names = o->n_args - 2;
    size_t len;
    struct stat st;

    *p = (struct place){.path = o->args[o->n_args - 1]};
    len = strlen(p->path);
    p->is_stdout = strcmp(p->path, "-") == 0;
    p->is_directory =
        len > 0 && (p->path[len - 1] == '/' || (stat(p->path, &st) == 0 && S_ISDIR(st.st_mode)));
    if (o->swtpm_form == SWTPM_FORM_DIR || o->swtpm_form == SWTPM_FORM_LINEAR)
        return find_state_place(p, o);
    if (n_names != 1 && !p->is_directory)
        return report(
            -EINVAL, "%s: is not a directory, and can take one file only: name one, or a directory",
            p->path);
    return 0;
}

static int
write_target(struct target *t, const char *path, const struct vault *v)
{
    int r = target_open(t, path);

    if (r == 0)
        r = target_write(t, v->bytes, v->len);
    return r < 0 ? r : target_flush(t);
}

static int
write_stdout(const struct vault *v)
{
    AUTO(target_fini) struct target t = TARGET_INIT;
    int r = target_stdout(&t, "the content of a file");

    return r < 0 ? r : target_write(&t, v->bytes, v->len);
}

/* The files that are to come, and their paths. */
struct outputs {
    struct target *targets;
    char **paths;
    size_t n;
};

static void
outputs_fini(struct outputs *out)
{
    for (size_t i = 0; i < out->n; i++) {
        target_fini(&out->targets[i]);
        free(out->paths[i]);
    }
    free(out->targets);
    free(out->paths);
}

static int
outputs_init(struct outputs *out, const struct parcels *p, const struct place *place)
{
    out->targets = calloc(p->n + 1, sizeof *out->targets);
    out->paths = calloc(p->n + 1, sizeof *out->paths);
    if (!out->targets || !out->paths)
        return -ENOMEM;
    for (; out->n < p->n; out->n++) {
        out->targets[out->n] = (struct target)TARGET_INIT;
        if (asprintf(&out->paths[out->n], "%s%s%s", place->path, place->is_directory ? "/" : "",
                     place->is_directory ? p->list[out->n].name : "") < 0) {
            out->paths[out->n] = NULL;
            return -ENOMEM;
        }
    }
    return 0;
}

static int
write_files(const struct parcels *p, const struct place *place)
{
    AUTO(outputs_fini) struct outputs out = {0};
    int r = outputs_init(&out, p, place);

    if (r < 0)
        return report(r, "out of memory");
    for (size_t i = 0; r == 0 && i < p->n; i++)
        r = write_target(&out.targets[i], out.paths[i], p->list[i].content);
    return r < 0 ? r : target_publish(out.targets, p->n);
}

/* 1: made, 0: it is there. */
static int
make_directory(const char *path)
{
    AUTO_FREE char *copy = strdup(path);
    AUTO_FD int parent = -1;

    if (!copy)
        return report(-ENOMEM, "out of memory");
    if (mkdir(path, 0700) < 0)
        return errno == EEXIST
                   ? 0
                   : report(-errno, "%s: cannot make the directory: %s", path, errno_text(-errno));
    parent = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent >= 0 && fsync(parent) == 0)
        return 1;
    rmdir(path);
    return report(-EIO, "%s: cannot flush its directory: %s", path, errno_text(-errno));
}

static int
write_place(const struct parcels *p, const struct place *place)
{
    int made = 0, r;

    if (place->is_stdout)
        return write_stdout(p->list[0].content);
    if (place->make_directory)
        made = make_directory(place->path);
    if (made < 0)
        return made;
    r = write_files(p, place);
    if (r < 0 && made)
        rmdir(place->path);
    return r;
}

int
cmd_export(struct options *o)
{
    AUTO(parcels_fini) struct parcels p = PARCELS_INIT;
    const bool swtpm = o->swtpm_form != SWTPM_FORM_NONE;
    const struct parcel_take what = {
        .names = o->args + 1,
        .n = (size_t)(o->n_args - 2),
        .want = swtpm ? interchange_wants : NULL,
        .secret = swtpm,
    };
    struct place place = {0};
    int r = der_check(o);

    if (r == 0 && o->der)
        return der_export(o);
    if (r == 0)
        r = interchange_check(o);
    if (r == 0)
        r = find_place(&place, o);
    if (r < 0)
        return finding_exit_code(r);
    r = parcels_take(&p, o, o->args[0], &what);
    if (r < 0)
        return image_advise(o->args[0], r);
    if (swtpm)
        r = interchange_convert(&p, o);
    else if (p.n == 0)
        r = report(-ENOENT, "%s: holds no files", o->args[0]);
    return finding_exit_code(r < 0 ? r : write_place(&p, &place));
}
