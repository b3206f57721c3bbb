/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/mountstatus.h"
#include "cli/where.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

static void
print_text(const struct mount_status *s)
{
    const char *tpm = mount_status_tpm(s, "version"), *why = mount_status_text(s, "read_only_why");
    const char *owner = mount_status_owner(s, "host");

    printf("%-10s  ", mount_health_name(s->health));
    print_escaped(s->mount.dir);
    fputs("  ", stdout);
    print_escaped(s->mount.source);
    if (s->answer) {
        printf("  generation %" PRIu64 ", committed ", mount_status_number(s, "generation"));
        print_escaped(mount_status_text(s, "last_commit") ?: "?");
    }
    if (tpm) {
        fputs(", TPM ", stdout);
        print_escaped(tpm);
        putchar(' ');
        print_escaped(mount_status_tpm(s, "state") ?: "?");
    }
    if (owner) {
        printf(", owner \"");
        print_escaped(owner);
        printf("\" of epoch %s", mount_status_owner(s, "epoch"));
    }
    if (why) {
        fputs(", ", stdout);
        print_escaped(why);
    }
    putchar('\n');
}

/* What a program wants to know of each, and all that the mount says beside it. */
static struct json_object *
json_status(const struct mount_status *s)
{
    struct json_object *o = json_object_new_object(), *v;
    static const char *const lifted[] = {"generation", "last_commit"};

    json_add_text(o, "directory", s->mount.dir);
    json_add_text(o, "image", s->mount.source);
    json_add_text(o, "health", mount_health_name(s->health));
    for (size_t i = 0; i < sizeof lifted / sizeof *lifted; i++) {
        v = NULL;
        json_object_object_get_ex(s->answer, lifted[i], &v);
        json_object_object_add(o, lifted[i], json_object_get(v));
    }
    json_object_object_add(o, "status", json_object_get(s->answer));
    return o;
}

static void
print_json(const struct mount_status *list, size_t n)
{
    struct json_object *o = json_object_new_object(), *mounts = json_object_new_array();

    for (size_t i = 0; i < n; i++)
        json_object_array_add(mounts, json_status(&list[i]));
    json_object_object_add(o, "mounts", mounts);
    puts(json_object_to_json_string_ext(o,
                                        JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(o);
}

static bool
is_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int
status_one(struct mount_status **list, size_t *n, const char *what)
{
    AUTO_FREE char *mounted_on = where_of_image(what);
    AUTO_FREE char *dir = mountinfo_realpath(mounted_on ?: what);
    int r;

    if (!dir)
        return report(-EIO, "%s: %s", what, errno_text(errno));
    *list = calloc(1, sizeof **list);
    if (!*list)
        return report(-ENOMEM, "out of memory");
    r = mount_status_one(*list, dir);
    if (r == -ENOENT && !is_directory(dir))
        return report(-EIO, "%s: not mounted by vnvram", what);
    if (r == -ENOENT)
        return report(-EIO, "%s: not mounted by vnvram; \"vnvram doctor %s\" tells more", what,
                      what);
    if (r < 0)
        return report(r, "%s: %s", what, errno_text(r));
    *n = 1;
    return 0;
}

int
cmd_status(struct options *o)
{
    struct mount_status *list = NULL;
    size_t n = 0;
    int r;

    if (o->all == (o->n_args == 1)) {
        report(0, "status needs a directory or an image, or --all");
        return EXIT_USAGE;
    }
    r = o->all ? mount_status_all(&list, &n) : status_one(&list, &n, o->args[0]);
    if (r == 0 && o->json)
        print_json(list, n);
    for (size_t i = 0; i < n; i++) {
        if (!o->json)
            print_text(&list[i]);
        if (list[i].health != MOUNT_OK)
            r = -EIO; /* said above */
    }
    mount_status_free(list, n);
    return finding_exit_code(r);
}
