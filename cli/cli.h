/* SPDX-License-Identifier: BSD-3-Clause */
/* cli.h - the commands.  cli/main.c has the table of them: it parses (options.h), calls, and turns
 * the exit code into what mount(8) or fsck(8) expect where the program was called by such a name.
 *
 * A command returns one of enum exit_code (base/finding.h), mostly through finding_exit_code().
 * What went wrong has been reported on stderr by then; stdout carries only what was asked for. */
#ifndef VNVRAM_CLI_CLI_H
#define VNVRAM_CLI_CLI_H

#include "cli/options.h"

struct command {
    const char *name; /* "format", or the name of a helper, "mkfs.vnvram" */
    unsigned where;   /* which rows of the option table apply */
    int min_args, max_args;
    const char *synopsis; /* of the arguments that are not options */
    const char *summary;
    int (*run)(struct options *o);
    int (*exit_code)(int code); /* NULL: as it is */
};

int cmd_check(struct options *o);
int cmd_clone(struct options *o);
int cmd_doctor(struct options *o);
int cmd_export(struct options *o);
int cmd_format(struct options *o);
int cmd_grow(struct options *o);
int cmd_import(struct options *o);
int cmd_info(struct options *o);
int cmd_key(struct options *o);
int cmd_mount(struct options *o);
int cmd_reserve(struct options *o);
int cmd_restore(struct options *o);
int cmd_show(struct options *o);
int cmd_size(struct options *o);
int cmd_snapshot(struct options *o);
int cmd_status(struct options *o);
int cmd_unmount(struct options *o);

#endif
