/* SPDX-License-Identifier: BSD-3-Clause */
/* options.h - the options of all commands: one table in options.c, from which parsing, --help and
 * --list-options come.  A row is a switch (--json, -v) or a word behind -o (key_file=PATH, ro), and
 * says for which commands it is.  To add one: a field here, a row there, an =item in the commands'
 * man pages (a test looks for it). */
#ifndef VNVRAM_CLI_OPTIONS_H
#define VNVRAM_CLI_OPTIONS_H

#include "core/store.h"
#include "crypt/keys.h"
#include "swtpm/key.h"
#include "tpm/process.h"
#include <stdbool.h>
#include <sys/types.h>

/* Bits, so that a row can be for many commands. */
enum option_where {
    FOR_FORMAT = 1 << 0,
    FOR_MOUNT = 1 << 1,
    FOR_UNMOUNT = 1 << 2,
    FOR_INFO = 1 << 3,
    FOR_CHECK = 1 << 4,
    FOR_SIZE = 1 << 5,
    FOR_KEY = 1 << 6,
    FOR_SNAPSHOT = 1 << 7,
    FOR_GROW = 1 << 8,
    FOR_EXPORT = 1 << 9,
    FOR_IMPORT = 1 << 10,
    FOR_SHOW = 1 << 11,
    FOR_STATUS = 1 << 12,
    FOR_DOCTOR = 1 << 13,
    FOR_RESERVE = 1 << 14,
    FOR_RESTORE = 1 << 15,
    FOR_CLONE = 1 << 16,
    FOR_MOUNT_HELPER = 1 << 24, /* what mount(8) hands to mount.vnvram */
    FOR_FSCK_HELPER = 1 << 25,  /* what fsck(8) hands to fsck.vnvram */
};

enum { OPTIONS_ANSWERED = 1 };

enum swtpm_form { SWTPM_FORM_NONE, SWTPM_FORM_DIR, SWTPM_FORM_LINEAR, SWTPM_FORM_MIGRATION };

struct options {
    struct key_options key;
    struct dev_options dev;

    /* format, size */
    const char *profile;
    struct slot_class classes[MAX_SEGMENTS]; /* --slots */
    size_t n_classes;
    struct reservation *reservations; /* --reserve, names owned */
    size_t n_reservations;
    uint64_t size;
    bool force;

    /* mount */
    bool read_only, degraded, allow_other, foreground, debug, fake, sloppy;
    struct tpm_options tpm;
    bool startup_given, no_sandbox;
    char *ctrl;   /* the control channel's socket, or NULL */
    char *server; /* a socket for TPM commands alone, or NULL */
    char *pcap;   /* a record of the TPM's traffic, or NULL */
    int ctrl_fd;  /* or the socket itself, or -1 */
    mode_t ctrl_mode;
    uid_t ctrl_uid; /* -1: ours */
    gid_t ctrl_gid;
    uid_t uid; /* -1: as stored */
    gid_t gid;
    mode_t umask;
    char *anchor; /* mount and all that write; NULL: none */
    bool anchor_create, accept_rollback, incoming;
    struct owner_options
        owner;     /* mount and all that write; by owner_from_options() (cli/owner.h) */
    char *host_id; /* a name for this host, or NULL */
    char *kernel;  /* for the kernel: "nosuid,noatime,context=...", or NULL */
    bool no_atime; /* is among these, and for us, too */

    /* unmount; .force too */
    bool lazy;

    /* key; .force too */
    struct key_options new_key;
    bool recovery;
    int slot; /* -1: that of the key given */

    const char *name;           /* import: under which name; NULL: the file's own */
    bool replace;               /* import: what is there may be replaced */
    bool swtpm;                 /* import: a TPM's state from swtpm */
    enum swtpm_form swtpm_form; /* export: for swtpm */
    struct swtpm_key_options swtpm_key, swtpm_migration_key;

    bool all;         /* status */
    const char *user; /* doctor: whom the mount is for; NULL: whom libvirt runs swtpm as */
    bool new_identity, same_identity; /* clone; .new_key too */

    bool repair;         /* check */
    const char *salvage; /* check: the directory, argv's own string */
    bool der, plain;     /* export, import */
    bool json, progress;

    /* The rest: argv's own strings. */
    char **args;
    int n_args;
};

/* Fills *@o from argv for a command whose rows have one of the bits of @where.  argv[0] is skipped.
 * Returns 0, -EINVAL or -EPROTONOSUPPORT (reported), -ENOMEM, or OPTIONS_ANSWERED when
 * --list-options or --help stood there: the option list has been printed (for --help, after
 * @usage). */
int options_parse(struct options *o, unsigned where, const char *usage, int argc, char **argv);
void options_fini(struct options *o); /* wipes the key */

/* "64K", "4M", "1G" or plain bytes: 0, or -EINVAL without a report. */
int parse_size(const char *text, uint64_t *size);

#endif
