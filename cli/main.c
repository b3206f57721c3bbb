/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/finding.h"
#include "base/progress.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/guess.h"
#include "cli/where.h"
#include "config.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* fsck(8): 0 clean, 4 errors left uncorrected, 8 operational error, 16 usage.  Nothing is ever
 * corrected: a torn commit is the mount's business, and all else is a person's. */
static int
as_fsck(int code)
{
    switch (code) {
    case EXIT_DONE:
        return 0;
    case EXIT_USAGE:
        return 16;
    case EXIT_DAMAGED:
    case EXIT_TOO_SMALL:
    case EXIT_ROLLED_BACK:
    case EXIT_FORGED:
        return 4;
    default:
        return 8;
    }
}

static const struct command commands[] = {
    {"format", FOR_FORMAT, 1, 1, "IMAGE", "Make an image", cmd_format, NULL},
    {"info", FOR_INFO, 1, 1, "IMAGE", "Show what an image holds, and where", cmd_info, NULL},
    {"show", FOR_SHOW, 2, 2, "IMAGE|DIRECTORY NAME",
     "Explain a stored blob: a TPM's state, UEFI variables", cmd_show, NULL},
    {"check", FOR_CHECK, 1, 1, "IMAGE", "Verify every byte of an image that a checksum covers",
     cmd_check, NULL},
    {"grow", FOR_GROW, 1, 1, "IMAGE", "Add slots to an image", cmd_grow, NULL},
    {"reserve", FOR_RESERVE, 3, 3, "IMAGE|DIRECTORY NAME SIZE", "Keep room for a file", cmd_reserve,
     NULL},
    {"restore", FOR_RESTORE, 1, 2, "IMAGE|DIRECTORY [NAME]",
     "Bring back what a file held before, or a deleted file", cmd_restore, NULL},
    {"clone", FOR_CLONE, 2, 2, "IMAGE|DIRECTORY FILE",
     "Copy an image, for another machine or for the same one", cmd_clone, NULL},
    {"key", FOR_KEY, 2, 2, "add|remove|change|reseal|list|test|destroy IMAGE",
     "Show and change who may open a sealed image", cmd_key, NULL},
    {"size", FOR_SIZE, 0, 0, "", "Tell how large an image must be", cmd_size, NULL},
    {"snapshot", FOR_SNAPSHOT, 2, 2, "DIRECTORY FILE", "Copy the image of a mount to a new file",
     cmd_snapshot, NULL},
    {"import", FOR_IMPORT, 2, INT_MAX, "IMAGE FILE|DIRECTORY...", "Put files into an image",
     cmd_import, NULL},
    {"export", FOR_EXPORT, 2, INT_MAX, "IMAGE [NAME...] FILE|DIRECTORY",
     "Copy files out of an image", cmd_export, NULL},
    {"mount", FOR_MOUNT, 2, 2, "IMAGE DIRECTORY", "Mount an image, and return when it works",
     cmd_mount, NULL},
    {"unmount", FOR_UNMOUNT, 1, 1, "DIRECTORY|IMAGE", "Unmount, and return when the image is free",
     cmd_unmount, NULL},
    {"status", FOR_STATUS, 0, 1, "[DIRECTORY|IMAGE]", "Tell whether mounts are well", cmd_status,
     NULL},
    {"doctor", FOR_DOCTOR, 1, 1, "DIRECTORY|DOMAIN",
     "Look for what usually goes wrong around a mount", cmd_doctor, NULL},
    {0},
};

/* mount(8)'s own: 1 wrong use, 32 the mount failed. */
static int
as_mount(int code)
{
    if (code == EXIT_DONE)
        return 0;
    return code == EXIT_USAGE ? 1 : 32;
}

/* The names that mkfs(8), mount(8) and fsck(8) look for. */
static const struct command helpers[] = {
    {"mkfs.vnvram", FOR_FORMAT, 1, 1, "IMAGE", "Make an image", cmd_format, NULL},
    {"mount.vnvram", FOR_MOUNT | FOR_MOUNT_HELPER, 2, 2, "IMAGE DIRECTORY",
     "Mount an image, and return when it works", cmd_mount, as_mount},
    {"fsck.vnvram", FOR_CHECK | FOR_FSCK_HELPER, 1, 1, "IMAGE",
     "Verify every byte of an image that a checksum covers", cmd_check, as_fsck},
    {0},
};

static const struct command *
find(const struct command *list, const char *name)
{
    for (; list->name; list++) {
        if (strcmp(list->name, name) == 0)
            return list;
    }
    return NULL;
}

static void
print_overview(FILE *out)
{
    fputs("Usage: vnvram COMMAND [OPTIONS] ARGUMENTS\n"
          "Keeps a virtual machine's NVRAM in one small image, and mounts it as a directory.\n\n"
          "Commands:\n",
          out);
    for (const struct command *c = commands; c->name; c++)
        fprintf(out, "  %-10s %s\n", c->name, c->summary);
    fputs("\n\"vnvram COMMAND --help\" tells the options of a command, \"man vnvram-COMMAND\" "
          "more.\n",
          out);
}

/* Mostly a variable of a script that is not set. */
static int
refuse_empty(const struct options *o)
{
    for (int i = 0; i < o->n_args; i++) {
        if (!*o->args[i])
            return report(-EINVAL, "argument %d is empty", i + 1);
    }
    return 0;
}

/* What is to be an image, where a directory will not do. */
static const char *
image_argument(const struct command *c, const struct options *o)
{
    if (c->where == FOR_KEY)
        return o->args[1];
    return strncmp(c->synopsis, "IMAGE", 5) == 0 && c->synopsis[5] != '|' ? o->args[0] : NULL;
}

/* Whoever works on a mount takes its directory for the image. */
static int
refuse_mount_point(const struct command *c, const struct options *o)
{
    const char *path = image_argument(c, o);
    AUTO_FREE char *image = path ? where_image_of(path) : NULL;

    if (!image)
        return 0;
    return report(-EISDIR,
                  "%s: the directory where an image is mounted; what to do: name the image, %s",
                  path, image);
}

/* Parses for @c and runs it. */
static int
run(const struct command *c, bool helper, int argc, char **argv)
{
    AUTO(options_fini) struct options o = {0};
    char usage[512];
    int r;

    snprintf(usage, sizeof usage, "Usage: %s%s [OPTIONS]%s%s\n%s.\n", helper ? "" : "vnvram ",
             c->name, *c->synopsis ? " " : "", c->synopsis, c->summary);
    r = options_parse(&o, c->where, usage, argc, argv);
    if (r != 0)
        return r == OPTIONS_ANSWERED ? EXIT_DONE : finding_exit_code(r);
    if (o.n_args < c->min_args || o.n_args > c->max_args) {
        report(0, "%s%s%s; usage: %s%s%s%s", helper ? "" : c->name, helper ? "" : " ",
               o.n_args < c->min_args ? "needs more arguments" : "takes fewer arguments",
               helper ? "" : "vnvram ", c->name, *c->synopsis ? " " : "", c->synopsis);
        return EXIT_USAGE;
    }
    r = refuse_empty(&o);
    if (r == 0)
        r = refuse_mount_point(c, &o);
    if (r < 0)
        return finding_exit_code(r);
    progress_show(o.progress || isatty(STDERR_FILENO));
    return c->run(&o);
}

static int
unknown_command(const char *name)
{
    struct guess g;

    guess_init(&g, name);
    for (const struct command *c = commands; c->name; c++)
        guess_try(&g, "", c->name);
    guess_try(&g, "", "help");
    if (*g.best)
        report(0,
               "there is no command \"%s\": did you mean \"%s\"? \"vnvram help\" lists those that "
               "are there",
               name, g.best);
    else
        report(0, "there is no command \"%s\"; \"vnvram help\" lists those that are there", name);
    return EXIT_USAGE;
}

/* vnvram's own command line: argv[1] is the command. */
static int
run_vnvram(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    const struct command *c;

    if (!name) {
        print_overview(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        puts("vnvram " PACKAGE_VERSION);
        return EXIT_DONE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 ||
        (strcmp(name, "help") == 0 && argc == 2)) {
        print_overview(stdout);
        return EXIT_DONE;
    }
    if (strcmp(name, "help") == 0) {
        char *asked[] = {argv[2], (char[]){"--help"}, NULL};

        c = find(commands, argv[2]);
        if (c)
            return run(c, false, 2, asked);
        name = argv[2];
    } else {
        c = find(commands, name);
        if (c)
            return run(c, false, argc - 1, argv + 1);
    }
    return unknown_command(name);
}

int
main(int argc, char **argv)
{
    const char *self = argc > 0 ? argv[0] : "vnvram";
    const char *slash = strrchr(self, '/');
    const struct command *helper;
    int code;

    if (crypt_init() < 0 || keys_hide_argv(argc, argv) < 0) /* have reported */
        return EXIT_FAILED;
    helper = find(helpers, slash ? slash + 1 : self);
    if (helper) {
        report_set_prefix(helper->name);
        code = run(helper, true, argc, argv);
        if (helper->exit_code)
            code = helper->exit_code(code);
    } else {
        code = run_vnvram(argc, argv);
    }
    if (fflush(stdout) != 0 && code == EXIT_DONE) {
        report(-errno, "cannot write to standard output: %s", errno_text(errno));
        code = EXIT_FAILED;
    }
    return code;
}
