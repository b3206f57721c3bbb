/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram export: files of one generation of an image, which may be mounted, to new files. */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/parcel.h"
#include "cli/target.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Where it goes: the last argument. */
struct place {
    const char *path;
    bool is_stdout, is_directory;
};

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
    if (n_names != 1 && !p->is_directory)
        return report(-EINVAL, "%s: is not a directory, and takes one file: name it", p->path);
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

int
cmd_export(struct options *o)
{
    AUTO(parcels_fini) struct parcels p = PARCELS_INIT;
    struct place place;
    int r = find_place(&place, o);

    if (r < 0)
        return finding_exit_code(r);
    r = parcels_take(&p, o, o->args[0], o->args + 1, (size_t)(o->n_args - 2), false);
    if (r < 0)
        return image_advise(o->args[0], r);
    if (p.n == 0)
        return finding_exit_code(report(-ENOENT, "%s: holds no files", o->args[0]));
    r = place.is_stdout ? write_stdout(p.list[0].content) : write_files(&p, &place);
    return finding_exit_code(r);
}
