/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/options.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/guess.h"
#include <assert.h>
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
    FOR_KEYED = FOR_FORMAT | FOR_MOUNT | FOR_INFO | FOR_CHECK | FOR_KEY | FOR_GROW | FOR_EXPORT |
                FOR_IMPORT | FOR_SHOW | FOR_RESERVE | FOR_RESTORE | FOR_CLONE,
    FOR_ANCHORED = FOR_MOUNT | FOR_INFO | FOR_CHECK | FOR_KEY | FOR_EXPORT | FOR_IMPORT | FOR_GROW |
                   FOR_SHOW | FOR_RESERVE | FOR_RESTORE | FOR_CLONE,
    FOR_PROGRESS = FOR_FORMAT | FOR_KEY | FOR_SNAPSHOT | FOR_GROW | FOR_CLONE,
    FOR_WRITERS = FOR_FORMAT | FOR_CHECK | FOR_KEY | FOR_GROW | FOR_IMPORT | FOR_RESERVE |
                  FOR_RESTORE, /* unmounted images */
    FOR_JSON = FOR_INFO | FOR_CHECK | FOR_SIZE | FOR_KEY | FOR_SHOW | FOR_STATUS | FOR_DOCTOR,
    FOR_ALL = 0xffffff,
};

struct option_row;
/* @name is what was written (for rows of many names), @value NULL for rows without an argument. */
typedef int option_set(struct options *o, const struct option_row *row, const char *name,
                       const char *value);

struct option_row {
    const char
        *name; /* alternatives divided by '|', each a pattern; "" for a letter without a name */
    const char *arg;  /* what its argument is called; NULL: has none */
    const char *help; /* NULL: taken and not shown in --help */
    unsigned where;
    char letter;       /* a switch's short form, or 0 */
    bool word;         /* stands behind -o */
    bool optional_arg; /* of a letter, as in -C[FD] */
    option_set *set;
    size_t field; /* for the plain setters: offset in struct options */
};

#define FIELD(name) offsetof(struct options, name)

/* ---- setters -----------------------------------------------------------------------------------
 */

static int
bad_value(const char *name, const char *value, const char *expected)
{
    return report(-EINVAL, "option %s: \"%s\" is not %s", name, value, expected);
}

static int
set_true(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    (void)name, (void)value;
    *(bool *)((char *)o + row->field) = true;
    return 0;
}

static int
set_false(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    (void)name, (void)value;
    *(bool *)((char *)o + row->field) = false;
    return 0;
}

/* Of a word behind -o: they are cut out of a copy. */
static int
set_copy(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    char **field = (char **)((char *)o + row->field);

    (void)name;
    free(*field);
    *field = strdup(value);
    return *field ? 0 : -ENOMEM;
}

/* Of a switch: argv's own. */
static int
set_string(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    (void)name;
    *(const char **)((char *)o + row->field) = value;
    return 0;
}

static int
swallow(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    (void)o, (void)row, (void)name, (void)value;
    return 0;
}

static int
refuse_remount(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    (void)o, (void)row, (void)name, (void)value;
    return report(-EINVAL,
                  "a mount keeps the options that it was made with; what to do: unmount it, "
                  "and mount it again with others");
}

/* Libfuse splits again: a comma inside quotes (SELinux categories) takes a backslash. */
static int
set_kernel(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    AUTO_FREE char *joined = NULL;
    size_t len;
    FILE *f = open_memstream(&joined, &len);

    (void)row;
    if (!f)
        return -ENOMEM;
    if (strcmp(name, "noatime") == 0 || strcmp(name, "atime") == 0)
        o->no_atime = *name == 'n';
    fprintf(f, "%s%s%s%s", o->kernel ? o->kernel : "", o->kernel ? "," : "", name,
            value ? "=" : "");
    for (const char *p = value ? value : ""; *p; p++)
        fprintf(f, "%s%c", *p == ',' ? "\\" : "", *p);
    if (fclose(f) != 0 || !joined) /* it may say nothing when memory is short */
        return -ENOMEM;
    free(o->kernel);
    o->kernel = steal(&joined);
    return 0;
}

static int
set_number(const char *name, const char *value, int base, unsigned long max, const char *expected,
           unsigned long *out)
{
    char *end;

    errno = 0;
    *out = strtoul(value, &end, base);
    if (errno != 0 || *end != '\0' || *value < '0' || *value > '9' || *out > max)
        return bad_value(name, value, expected);
    return 0;
}

static int
set_uid(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    const struct passwd *pw = getpwnam(value);
    unsigned long n;
    uid_t *uid = (uid_t *)((char *)o + row->field);

    if (pw) {
        *uid = pw->pw_uid;
        return 0;
    }
    if (set_number(name, value, 10, UINT32_MAX - 1UL, "a user of this system or a number", &n) < 0)
        return -EINVAL;
    *uid = (uid_t)n;
    return 0;
}

static int
set_gid(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    const struct group *gr = getgrnam(value);
    unsigned long n;
    gid_t *gid = (gid_t *)((char *)o + row->field);

    if (gr) {
        *gid = gr->gr_gid;
        return 0;
    }
    if (set_number(name, value, 10, UINT32_MAX - 1UL, "a group of this system or a number", &n) < 0)
        return -EINVAL;
    *gid = (gid_t)n;
    return 0;
}

static int
set_umask(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    unsigned long n;

    if (set_number(name, value, 8, 0777, "an octal mode", &n) < 0)
        return -EINVAL;
    *(mode_t *)((char *)o + row->field) = (mode_t)n;
    return 0;
}

static int
set_ctrl_fd(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    unsigned long n;

    (void)row;
    if (set_number(name, value, 10, INT32_MAX, "a descriptor above 2", &n) < 0)
        return -EINVAL;
    if (n <= 2)
        return bad_value(name, value, "a descriptor above 2");
    o->ctrl_fd = (int)n;
    return 0;
}

static int
set_reconnect(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    unsigned long n;

    (void)row;
    if (set_number(name, value, 10, 24 * 60 * 60, "a number of seconds, a day at most", &n) < 0)
        return -EINVAL;
    o->dev.reconnect_s = (unsigned)n;
    return 0;
}

static int
set_tpm(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    (void)row;
    if (strcmp(value, "2.0") == 0 || strcmp(value, "2") == 0)
        o->tpm.version = TPM_VERSION_2_0;
    else if (strcmp(value, "1.2") == 0)
        o->tpm.version = TPM_VERSION_1_2;
    else
        return bad_value(name, value, "a version of TPM: 2.0 or 1.2");
    return 0;
}

static int
set_sandbox(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    (void)row;
    if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
        return bad_value(name, value, "on or off");
    o->no_sandbox = strcmp(value, "off") == 0;
    return 0;
}

static int
set_owner_record(struct options *o, const struct option_row *row, const char *name,
                 const char *value)
{
    (void)row;
    if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
        return bad_value(name, value, "on or off");
    o->owner.use = strcmp(value, "on") == 0 ? OWNER_ALWAYS : OWNER_NEVER;
    return 0;
}

static int
set_startup(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    (void)row;
    if (strcmp(value, "clear") == 0)
        o->tpm.startup = TPM_STARTUP_CLEAR;
    else if (strcmp(value, "state") == 0)
        o->tpm.startup = TPM_STARTUP_STATE;
    else if (strcmp(value, "none") == 0)
        o->tpm.startup = TPM_STARTUP_NONE;
    else
        return bad_value(name, value, "clear, state or none");
    o->startup_given = true;
    return 0;
}

int
parse_size(const char *text, uint64_t *size)
{
    static const char units[] = "KMG";
    uint64_t n;
    char *end;

    if (*text < '0' || *text > '9')
        return -EINVAL;
    errno = 0;
    n = strtoull(text, &end, 10);
    if (errno != 0)
        return -EINVAL;
    if (*end != '\0') {
        const char *unit = strchr(units, *end & ~0x20);
        unsigned shift;

        if (!unit || *unit == '\0')
            return -EINVAL;
        shift = 10 * (unsigned)(unit - units + 1);
        if (n > UINT64_MAX >> shift)
            return -EINVAL;
        n <<= shift;
        end++;
        if (strcasecmp(end, "iB") == 0)
            end += 2;
        if (*end != '\0')
            return -EINVAL;
    }
    *size = n;
    return 0;
}

static int
set_size(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    (void)row;
    if (parse_size(value, &o->size) < 0 || o->size == 0)
        return bad_value(name, value, "a size such as 4M");
    return 0;
}

/* "4x256K,8x64K" */
static int
set_slots(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    AUTO_FREE char *copy = strdup(value);
    char *rest = copy;

    (void)row;
    if (!copy)
        return -ENOMEM;
    for (char *part; (part = strsep(&rest, ",")) != NULL;) {
        unsigned long count;
        uint64_t capacity;
        char *x;

        if (o->n_classes == MAX_SEGMENTS)
            return report(-EINVAL, "option %s: more than %d classes", name, MAX_SEGMENTS);
        count = strtoul(part, &x, 10);
        if (*part < '0' || *part > '9' || *x != 'x' || count == 0 || count > MAX_SLOTS ||
            parse_size(x + 1, &capacity) < 0 || capacity == 0 || capacity > MAX_CAPACITY)
            return report(-EINVAL,
                          "option %s: \"%s\" is not COUNTxSIZE, such as 8x64K, with at most %d "
                          "slots of at most %d MiB",
                          name, part, MAX_SLOTS, MAX_CAPACITY >> 20);
        o->classes[o->n_classes++] =
            (struct slot_class){.count = (uint32_t)count, .capacity = (uint32_t)capacity};
    }
    return 0;
}

/* "NAME:SIZE" */
static int
set_reserve(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    const char *colon = strrchr(value, ':');
    struct reservation *grown;
    uint64_t size;

    (void)row;
    if (!colon || colon == value || parse_size(colon + 1, &size) < 0 || size == 0)
        return bad_value(name, value, "NAME:SIZE, such as tpm2-00.permall:177K");
    grown = reallocarray(o->reservations, o->n_reservations + 1, sizeof *grown);
    if (!grown)
        return -ENOMEM;
    o->reservations = grown;
    grown[o->n_reservations].size = size;
    grown[o->n_reservations].name = strndup(value, (size_t)(colon - value));
    return grown[o->n_reservations++].name ? 0 : -ENOMEM;
}

static int
set_profile(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    (void)row;
    if (strcmp(value, "tpm") != 0 && strcmp(value, "vm") != 0)
        return bad_value(name, value, "a profile: tpm or vm");
    free((char *)o->profile);
    o->profile = strdup(value);
    return o->profile ? 0 : -ENOMEM;
}

/* ---- keys --------------------------------------------------------------------------------------
 */

/* The words of a key, for that of the image (the row's field is .key) or a new one. */
static int
set_key_word(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    return key_options_set((struct key_options *)((char *)o + row->field), name, value);
}

/* --key-size: the same as -o key_size. */
static int
set_key_switch(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    char word[32];

    snprintf(word, sizeof word, "%s", name);
    for (char *p = word; *p; p++)
        *p = *p == '-' ? '_' : *p;
    return key_options_set((struct key_options *)((char *)o + row->field), word, value);
}

static int
set_swtpm_form(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    (void)row;
    if (strcmp(value, "dir") == 0)
        o->swtpm_form = SWTPM_FORM_DIR;
    else if (strcmp(value, "linear") == 0)
        o->swtpm_form = SWTPM_FORM_LINEAR;
    else if (strcmp(value, "migration") == 0)
        o->swtpm_form = SWTPM_FORM_MIGRATION;
    else
        return bad_value(name, value, "dir, linear or migration");
    return 0;
}

/* swtpm's own words, in one argument. */
static int
set_swtpm_key(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    char option[64];

    snprintf(option, sizeof option, "option %s", name);
    return swtpm_key_options_set((struct swtpm_key_options *)((char *)o + row->field), option,
                                 value);
}

static int
set_slot(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    unsigned long n;

    (void)row;
    if (set_number(name, value, 10, KEYSLOT_COUNT - 1, "a key slot, 0 to 7", &n) < 0)
        return -EINVAL;
    o->slot = (int)n;
    return 0;
}

static option_set set_new_key;

/* ---- the table ---------------------------------------------------------------------------------
 */

static const struct option_row rows[] = {
    /* switches */
    {"help", NULL, "show this help", FOR_ALL, .letter = 'h'},
    {"list-options", NULL, "list all options, one a line", FOR_ALL, .set = NULL},
    {"json", NULL, "answer in JSON, for programs", FOR_JSON & ~FOR_KEY, .set = set_true,
     .field = FIELD(json)},
    {"json", NULL, "key list: answer in JSON, for programs", FOR_KEY, .set = set_true,
     .field = FIELD(json)},
    {"progress", NULL, "show progress even if stderr is no terminal", FOR_PROGRESS, .set = set_true,
     .field = FIELD(progress)},
    {"profile", "tpm|vm",
     "slots for a TPM (4 MiB, the default), or for a TPM and UEFI variables (8 MiB)",
     FOR_FORMAT | FOR_SIZE, .set = set_profile},
    {"slots", "COUNTxSIZE,...", "slots of your own, such as 4x256K,16x4K; may be repeated",
     FOR_FORMAT | FOR_SIZE, .set = set_slots},
    {"slots", "COUNTxSIZE,...", "the slots to add, such as 2x640K; may be repeated", FOR_GROW,
     .set = set_slots},
    {"reserve", "NAME:SIZE", "keep room for a file of that name; may be repeated", FOR_FORMAT,
     .set = set_reserve},
    {"name", "NAME", "name that the file gets in the image", FOR_IMPORT, .set = set_string,
     .field = FIELD(name)},
    {"replace", NULL, "replace files of the same name", FOR_IMPORT, .set = set_true,
     .field = FIELD(replace)},
    {"swtpm", NULL, "a TPM's state: swtpm's directory, linear file or migration blobs", FOR_IMPORT,
     .set = set_true, .field = FIELD(swtpm)},
    {"swtpm", "dir|linear|migration", "write the TPM's state in this form of swtpm's", FOR_EXPORT,
     .set = set_swtpm_form},
    {"swtpm-key", "WORD,...", "swtpm's own key, in the words of its --key", FOR_IMPORT | FOR_EXPORT,
     .set = set_swtpm_key, .field = FIELD(swtpm_key)},
    {"swtpm-migration-key", "WORD,...", "the same for its --migration-key", FOR_IMPORT | FOR_EXPORT,
     .set = set_swtpm_key, .field = FIELD(swtpm_migration_key)},
    {"tpm", "2.0|1.2", "with --swtpm: only the state of this version", FOR_IMPORT | FOR_EXPORT,
     .set = set_tpm},
    {"user", "USER", "who works on the mount; default: you, or libvirt's user", FOR_DOCTOR,
     .set = set_string, .field = FIELD(user)},
    {"all", NULL, "every mount of vnvram on this host", FOR_STATUS, .letter = 'a', .set = set_true,
     .field = FIELD(all)},
    {"der", NULL, "the whole store, as one DER stream", FOR_IMPORT | FOR_EXPORT, .set = set_true,
     .field = FIELD(der)},
    {"plain", NULL, "with --der: in the clear, though the image is sealed", FOR_IMPORT | FOR_EXPORT,
     .set = set_true, .field = FIELD(plain)},
    {"", "WORD,...", "with --der: the stream's own key, in the same words as -o",
     FOR_IMPORT | FOR_EXPORT, .letter = 'n', .set = set_new_key},
    {"repair", NULL, "mend what has a good copy: a superblock, a torn commit", FOR_CHECK,
     .set = set_true, .field = FIELD(repair)},
    {"salvage", "DIRECTORY", "save each content that is still whole to a file there", FOR_CHECK,
     .set = set_string, .field = FIELD(salvage)},
    {"takeover", NULL, "take the image from another host, if that is certainly dead", FOR_WRITERS,
     .set = set_true, .field = FIELD(owner.takeover)},
    {"host-id", "NAME", "name that tells this host from others; default: its machine-id",
     FOR_WRITERS, .set = set_copy, .field = FIELD(host_id)},
    {"owner-record", "on|off", "note which host writes; default: on devices, not in files",
     FOR_WRITERS, .set = set_owner_record},
    {"size", "SIZE", "size of the image; default: what the slots take", FOR_FORMAT,
     .set = set_size},
    {"force", NULL, "overwrite what IMAGE holds", FOR_FORMAT, .letter = 'f', .set = set_true,
     .field = FIELD(force)},
    {"force", NULL, "end the daemon though files are open", FOR_UNMOUNT, .letter = 'f',
     .set = set_true, .field = FIELD(force)},
    {"lazy", NULL, "detach now, do not wait for those who use the mount", FOR_UNMOUNT,
     .letter = 'l', .set = set_true, .field = FIELD(lazy)},
    {"force", NULL, "restore a TPM's state, too, though its counters go back", FOR_RESTORE,
     .letter = 'f', .set = set_true, .field = FIELD(force)},
    {"key-size", "128|192|256", "as -o key_size", FOR_FORMAT, .set = set_key_switch,
     .field = FIELD(key)},
    {"kdf-memory", "KIB", "as -o kdf_memory", FOR_FORMAT, .set = set_key_switch,
     .field = FIELD(key)},
    {"kdf-time", "PASSES", "as -o kdf_time", FOR_FORMAT, .set = set_key_switch,
     .field = FIELD(key)},
    {"", "WORD,...", "key add, change, reseal: the new key, in the same words as -o", FOR_KEY,
     .letter = 'n', .set = set_new_key},
    {"new-identity", NULL, "another machine: new UUID, new volume key, no TPM state", FOR_CLONE,
     .set = set_true, .field = FIELD(new_identity)},
    {"same-identity", NULL, "the same machine elsewhere: everything, its TPM too", FOR_CLONE,
     .set = set_true, .field = FIELD(same_identity)},
    {"", "WORD,...", "seal the new identity with this key, in the same words as -o", FOR_CLONE,
     .letter = 'n', .set = set_new_key},
    {"recovery", NULL, "key add: make a random recovery key and show it once", FOR_KEY,
     .set = set_true, .field = FIELD(recovery)},
    {"slot", "0-7", "key remove: this key slot; default: that of the key given", FOR_KEY,
     .set = set_slot},
    {"force", NULL, "remove the last key, drop others in a reseal, destroy without a key", FOR_KEY,
     .letter = 'f', .set = set_true, .field = FIELD(force)},
    {"tpm", "2.0|1.2", "size for the state of a TPM of this version", FOR_SIZE, .set = set_tpm},

    /* what mount(8) and fsck(8) hand to their helpers */
    {"", NULL, NULL, FOR_MOUNT_HELPER, .letter = 'f', .set = set_true, .field = FIELD(fake)},
    {"", NULL, NULL, FOR_MOUNT_HELPER, .letter = 's', .set = set_true, .field = FIELD(sloppy)},
    {"", NULL, NULL, FOR_MOUNT_HELPER, .letter = 'n', .set = swallow},
    {"", NULL, NULL, FOR_MOUNT_HELPER, .letter = 'v', .set = swallow},
    {"", "TYPE", NULL, FOR_MOUNT_HELPER, .letter = 't', .set = swallow},
    {"", NULL, NULL, FOR_FSCK_HELPER, .letter = 'a', .set = swallow},
    {"", NULL, NULL, FOR_FSCK_HELPER, .letter = 'p', .set = swallow},
    {"", NULL, NULL, FOR_FSCK_HELPER, .letter = 'y', .set = swallow},
    {"", NULL, NULL, FOR_FSCK_HELPER, .letter = 'n', .set = swallow},
    {"", NULL, NULL, FOR_FSCK_HELPER, .letter = 'f', .set = swallow},
    {"", NULL, NULL, FOR_FSCK_HELPER, .letter = 'T', .set = swallow},
    {"", NULL, NULL, FOR_FSCK_HELPER, .letter = 'V', .set = swallow},
    {"", NULL, NULL, FOR_FSCK_HELPER, .letter = 'v', .set = swallow},
    {"", "FD", NULL, FOR_FSCK_HELPER, .letter = 'C', .optional_arg = true, .set = swallow},

    /* words behind -o: the mount */
    {"ro", NULL, "read-only: nothing is written, not even a recovery", FOR_MOUNT, .word = true,
     .set = set_true, .field = FIELD(read_only)},
    {"rw", NULL, "read and write (the default)", FOR_MOUNT, .word = true, .set = set_false,
     .field = FIELD(read_only)},
    {"tpm", "2.0|1.2", "run a TPM on the mount and show it as the file tpm0", FOR_MOUNT,
     .word = true, .set = set_tpm},
    {"startup", "clear|state|none", "how the TPM is started (default clear; none with ctrl)",
     FOR_MOUNT, .word = true, .set = set_startup},
    {"ctrl", "PATH", "serve the TPM to QEMU or swtpm_ioctl on this socket", FOR_MOUNT, .word = true,
     .set = set_copy, .field = FIELD(ctrl)},
    {"ctrl_fd", "FD", "the same on a socket that is open already", FOR_MOUNT, .word = true,
     .set = set_ctrl_fd},
    {"server", "PATH",
     "take TPM commands on this socket, as tpm2-tools' swtpm:path=PATH sends them", FOR_MOUNT,
     .word = true, .set = set_copy, .field = FIELD(server)},
    {"ctrl_mode", "OCTAL", "who may use the sockets (default 600)", FOR_MOUNT, .word = true,
     .set = set_umask, .field = FIELD(ctrl_mode)},
    {"ctrl_uid", "USER", "owner of the sockets", FOR_MOUNT, .word = true, .set = set_uid,
     .field = FIELD(ctrl_uid)},
    {"ctrl_gid", "GROUP", "group of the sockets", FOR_MOUNT, .word = true, .set = set_gid,
     .field = FIELD(ctrl_gid)},
    {"incoming", NULL, "another daemon has the image: read it, and take it when a machine comes",
     FOR_MOUNT, .word = true, .set = set_true, .field = FIELD(incoming)},
    {"terminate", NULL, "end when the client of the socket leaves", FOR_MOUNT, .word = true,
     .set = set_true, .field = FIELD(tpm.terminate)},
    {"reject_locality_4", NULL, "no commands at locality 4, which is the hardware's", FOR_MOUNT,
     .word = true, .set = set_true, .field = FIELD(tpm.reject_locality_4)},
    {"tpm_manufacture", NULL, "make a new TPM even where the image has held one", FOR_MOUNT,
     .word = true, .set = set_true, .field = FIELD(tpm.manufacture)},
    {"pcap", "FILE", "record the TPM's commands and responses for wireshark", FOR_MOUNT,
     .word = true, .set = set_copy, .field = FIELD(pcap)},
    {"degraded", NULL, "serve what is intact of a damaged image, read-only", FOR_MOUNT,
     .word = true, .set = set_true, .field = FIELD(degraded)},
    {"anchor", "FILE", "file that tells the newest state of the image from older ones",
     FOR_ANCHORED, .word = true, .set = set_copy, .field = FIELD(anchor)},
    {"anchor_create", NULL, "make that file; the first time only", FOR_MOUNT, .word = true,
     .set = set_true, .field = FIELD(anchor_create)},
    {"accept_rollback", NULL, "take the image as it is, whatever its anchor says", FOR_MOUNT,
     .word = true, .set = set_true, .field = FIELD(accept_rollback)},
    {"takeover", NULL, "take the image from another host, if that is certainly dead", FOR_MOUNT,
     .word = true, .set = set_true, .field = FIELD(owner.takeover)},
    {"fenced", NULL, "no former owner can write to the image any more", FOR_MOUNT, .word = true,
     .set = set_true, .field = FIELD(owner.fenced)},
    {"host_id", "NAME", "name that tells this host from others; default: its machine-id", FOR_MOUNT,
     .word = true, .set = set_copy, .field = FIELD(host_id)},
    {"owner_record", "on|off", "note which host writes; default: on devices, not in files",
     FOR_MOUNT, .word = true, .set = set_owner_record},
    {"sandbox", "on|off", "off: the daemon and the TPM keep all rights, for debugging", FOR_MOUNT,
     .word = true, .set = set_sandbox},
    {"uid", "USER", "show all files as this user's", FOR_MOUNT, .word = true, .set = set_uid,
     .field = FIELD(uid)},
    {"gid", "GROUP", "show all files as this group's", FOR_MOUNT, .word = true, .set = set_gid,
     .field = FIELD(gid)},
    {"umask", "OCTAL", "take these bits from all modes", FOR_MOUNT, .word = true, .set = set_umask,
     .field = FIELD(umask)},
    {"allow_other", NULL, "other users may enter, as the modes allow", FOR_MOUNT, .word = true,
     .set = set_true, .field = FIELD(allow_other)},
    {"default_permissions", NULL, "the kernel checks modes: it always does here", FOR_MOUNT,
     .word = true, .set = swallow},
    {"foreground", NULL, "stay in front; for service managers and debugging", FOR_MOUNT,
     .word = true, .set = set_true, .field = FIELD(foreground)},
    {"debug", NULL, "show each FUSE request; implies foreground", FOR_MOUNT, .word = true,
     .set = set_true, .field = FIELD(debug)},

    /* words behind -o: NBD */
    {"reconnect", "SECONDS", "how long to wait for an NBD server that does not answer; default: 60",
     FOR_KEYED, .word = true, .set = set_reconnect},
    {"unsafe_cache", NULL, "write to an NBD server though it cannot flush", FOR_KEYED, .word = true,
     .set = set_true, .field = FIELD(dev.unsafe_cache)},

    /* words behind -o: keys */
    {"key_file", "PATH", "read the key from a file", FOR_KEYED | FOR_DOCTOR, .word = true,
     .set = set_key_word, .field = FIELD(key)},
    {"key_fd", "FD", "read the key from a descriptor", FOR_KEYED, .word = true, .set = set_key_word,
     .field = FIELD(key)},
    {"key", "TEXT", "the key itself; others can see it for a moment", FOR_KEYED, .word = true,
     .set = set_key_word, .field = FIELD(key)},
    {"key_format", "hex|binary|passphrase", "what the key is", FOR_KEYED | FOR_DOCTOR, .word = true,
     .set = set_key_word, .field = FIELD(key)},
    {"enc_mode", "aes-cbc", "the cipher; there is one", FOR_KEYED, .word = true,
     .set = set_key_word, .field = FIELD(key)},
    {"key_size", "128|192|256", "bits for a passphrase; a raw key has its own size",
     FOR_FORMAT | FOR_KEY | FOR_CLONE, .word = true, .set = set_key_word, .field = FIELD(key)},
    {"kdf_memory", "KIB", "memory for each try of a passphrase; default: half a second's worth",
     FOR_FORMAT | FOR_KEY | FOR_CLONE, .word = true, .set = set_key_word, .field = FIELD(key)},
    {"kdf_time", "PASSES", "the same, in passes over that memory", FOR_FORMAT | FOR_KEY | FOR_CLONE,
     .word = true, .set = set_key_word, .field = FIELD(key)},

    /* words behind -o: the kernel's, and those that only mount(8), systemd and others read */
    {"suid|nosuid|dev|nodev|exec|noexec|atime|noatime|sync|async|dirsync", NULL, "as in mount(8)",
     FOR_MOUNT, .word = true, .set = set_kernel},
    {"context|fscontext|defcontext|rootcontext", "CONTEXT", "SELinux labels, as in mount(8)",
     FOR_MOUNT, .word = true, .set = set_kernel},
    {"defaults|auto|noauto|fail|nofail|_netdev|user|nouser|users|owner|group|silent|loud|relatime|"
     "norelatime|strictatime|nostrictatime|lazytime|nolazytime|diratime|nodiratime|mand|nomand|"
     "iversion|noiversion|x-*|X-*",
     NULL, "taken and not used here", FOR_MOUNT, .word = true, .set = swallow},
    {"remount", NULL, NULL, FOR_MOUNT, .word = true, .set = refuse_remount},
    {"comment|x-*|X-*|uhelper|helper|user", "TEXT", NULL, FOR_MOUNT, .word = true, .set = swallow},
};

enum { N_ROWS = sizeof rows / sizeof rows[0], LONG_BASE = 256, SHOWN_NAMES = 76 };

/* ---- --help and --list-options ------------------------------------------------------------------
 */

/* How much of alternatives fits into SHOWN_NAMES, none of them cut. */
static int
whole_names(const char *names)
{
    int n = SHOWN_NAMES;

    while (n > 0 && names[n - 1] != '|')
        n--;
    return n;
}

static void
print_help_row(const struct option_row *row)
{
    char left[96];
    int n;

    if (strlen(row->name) > SHOWN_NAMES) /* what nobody looks for one by one */
        n = snprintf(left, sizeof left, "%.*s...", whole_names(row->name), row->name);
    else if (row->word)
        n = snprintf(left, sizeof left, "%s", row->name);
    else if (row->letter && !*row->name)
        n = snprintf(left, sizeof left, "-%c", row->letter);
    else if (row->letter)
        n = snprintf(left, sizeof left, "-%c, --%s", row->letter, row->name);
    else
        n = snprintf(left, sizeof left, "--%s", row->name);
    if (row->arg && n > 0 && (size_t)n < sizeof left)
        snprintf(left + n, sizeof left - (size_t)n, "%s%s", *row->name ? "=" : " ", row->arg);
    if (strlen(left) > 28)
        printf("  %s\n  %-28s %s\n", left, "", row->help);
    else
        printf("  %-28s %s\n", left, row->help);
}

static void
print_help(unsigned where)
{
    for (int word = 0; word < 2; word++) {
        bool any = false;

        for (size_t i = 0; i < N_ROWS; i++) {
            if (rows[i].word != (word == 1) || !(rows[i].where & where) || !rows[i].help)
                continue;
            if (!any)
                printf("\n%s:\n", word ? "Words of -o WORD[,WORD...]" : "Options");
            any = true;
            print_help_row(&rows[i]);
        }
    }
}

static void
print_list(unsigned where)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        AUTO_FREE char *copy = strdup(rows[i].name);
        char *rest = copy;

        if (!(rows[i].where & where) || !rows[i].help)
            continue;
        if (!*rows[i].name) {
            printf("-%c\n", rows[i].letter);
            continue;
        }
        for (const char *name; (name = strsep(&rest, "|")) != NULL;)
            printf("%s%s%s\n", rows[i].word ? "-o " : "--", name, rows[i].arg ? "=" : "");
    }
}

/* ---- parsing ------------------------------------------------------------------------------------
 */

/* Whether @name is one of the row's alternatives. */
static bool
row_has(const struct option_row *row, const char *name)
{
    /* Without the heap: an option that is not known for want of memory might be passed over. */
    for (const char *p = row->name; *p; p += strspn(p, "|")) {
        size_t n = strcspn(p, "|");
        char pattern[32];

        assert(n < sizeof pattern);
        memcpy(pattern, p, n);
        pattern[n] = '\0';
        if (fnmatch(pattern, name, 0) == 0)
            return true;
        p += n;
    }
    return false;
}

/* Of what was mistyped, the option that it comes nearest to, switch or word. */
static int
unknown_option(unsigned where, const char *shown, const char *typed)
{
    struct guess g;

    guess_init(&g, typed);
    for (size_t i = 0; i < N_ROWS; i++) {
        AUTO_FREE char *copy = rows[i].help && rows[i].where & where ? strdup(rows[i].name) : NULL;
        char *rest = copy;

        for (const char *name; (name = strsep(&rest, "|")) != NULL;)
            guess_try(&g, rows[i].word ? "-o " : "--", name);
    }
    if (*g.best)
        return report(-EINVAL,
                      "unknown option %s: did you mean %s? --help lists those that are there",
                      shown, g.best);
    return report(-EINVAL, "unknown option %s; --help lists those that are there", shown);
}

static int
parse_word(struct options *o, unsigned where, char *word)
{
    char *value = strchr(word, '=');
    const struct option_row *other = NULL;
    char shown[64];

    if (value)
        *value++ = '\0';
    for (size_t i = 0; i < N_ROWS; i++) {
        const struct option_row *row = &rows[i];

        if (!row->word || !(row->where & where) || !row_has(row, word))
            continue;
        if (!value == !row->arg)
            return row->set(o, row, word, value);
        other = row;
    }
    if (other && other->arg)
        return report(-EINVAL, "option %s: an argument is missing: %s=%s", word, word, other->arg);
    if (other)
        return report(-EINVAL, "option %s: takes no argument", word);
    if (o->sloppy)
        return 0;
    snprintf(shown, sizeof shown, "-o %s", word);
    return unknown_option(where, shown, word);
}

/* Splits at commas, but for those between double quotes (SELinux contexts).  Words with a key lie
 * in secure memory (keys_hide_argv()): those are split there, the others in a copy, for ps. */
typedef int parse_each(struct options *o, unsigned where, char *word);

static int
parse_words(struct options *o, unsigned where, char *words, parse_each *each)
{
    bool secret = strstr(words, "key=") != NULL, quoted = false;
    AUTO_FREE char *copy = secret ? NULL : strdup(words);
    char *start = secret ? words : copy;
    int r = start ? 0 : -ENOMEM;

    for (char *p = start; r == 0; p++) {
        bool end = *p == '\0';

        if (*p == '"')
            quoted = !quoted;
        if (!end && (*p != ',' || quoted))
            continue;
        *p = '\0';
        if (*start)
            r = each(o, where, start);
        start = p + 1;
        if (end)
            break;
    }
    return r;
}

static int
parse_new_key_word(struct options *o, unsigned where, char *word)
{
    char *value = strchr(word, '=');
    int r;

    (void)where;
    if (value)
        *value++ = '\0';
    r = key_options_set(&o->new_key, word, value);
    return r == -ENOENT ? report(-EINVAL, "unknown option -n %s: it takes the words of a key", word)
                        : r;
}

static int
set_new_key(struct options *o, const struct option_row *row, const char *name, const char *value)
{
    (void)name;
    return parse_words(o, row->where, (char *)(uintptr_t)value, parse_new_key_word);
}

/* getopt's two lists, for the rows that apply; a long option's value is LONG_BASE + its row. */
static void
getopt_tables(unsigned where, char letters[2 + 3 * N_ROWS + 3], struct option longs[N_ROWS + 1])
{
    char *s = letters;
    struct option *l = longs;
    bool words = false;

    *s++ = ':'; /* tell a missing argument from an unknown option; report nothing */
    for (size_t i = 0; i < N_ROWS; i++) {
        if (!(rows[i].where & where))
            continue;
        if (rows[i].word) {
            words = true;
            continue;
        }
        if (rows[i].letter) {
            *s++ = rows[i].letter;
            if (rows[i].arg)
                *s++ = ':';
            if (rows[i].optional_arg)
                *s++ = ':';
        }
        if (*rows[i].name)
            *l++ = (struct option){rows[i].name, rows[i].arg ? required_argument : no_argument,
                                   NULL, LONG_BASE + (int)i};
    }
    if (words) {
        *s++ = 'o';
        *s++ = ':';
    }
    *s = '\0';
    *l = (struct option){0};
}

static const struct option_row *
row_of(unsigned where, int c)
{
    if (c >= LONG_BASE)
        return &rows[c - LONG_BASE];
    for (size_t i = 0; i < N_ROWS; i++) {
        /* a helper's own letters go before the command's */
        if (!rows[i].word && (rows[i].where & where) && rows[i].letter == c)
            return &rows[i];
    }
    return NULL;
}

static int
unknown_switch(unsigned where, int c, const char *arg)
{
    if (optopt > 0 && optopt < LONG_BASE)
        return report(-EINVAL,
                      c == ':' ? "option -%c: an argument is missing"
                               : "unknown option -%c; --help lists those that are there",
                      optopt);
    if (c == ':')
        return report(-EINVAL, "option %s: an argument is missing", arg);
    if (optopt >= LONG_BASE)
        return report(-EINVAL, "option %s: takes no argument", arg);
    return unknown_option(where, arg, arg);
}

int
options_parse(struct options *o, unsigned where, const char *usage, int argc, char **argv)
{
    char letters[2 + 3 * N_ROWS + 3];
    struct option longs[N_ROWS + 1];
    int r = 0, c;

    *o = (struct options){.key.fd = -1,
                          .dev = DEV_OPTIONS_INIT,
                          .new_key.fd = -1,
                          .swtpm_key.fd = -1,
                          .swtpm_migration_key.fd = -1,
                          .slot = -1,
                          .ctrl_fd = -1,
                          .ctrl_mode = 0600,
                          .ctrl_uid = (uid_t)-1,
                          .ctrl_gid = (gid_t)-1,
                          .uid = (uid_t)-1,
                          .gid = (gid_t)-1,
                          .umask = (mode_t)-1};
    o->tpm.startup = TPM_STARTUP_CLEAR;
    getopt_tables(where, letters, longs);
    optind = 0;
    while (r == 0 && (c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        const struct option_row *row = row_of(where, c);

        if (c == 'o')
            r = parse_words(o, where, optarg, parse_word);
        else if (!row)
            r = unknown_switch(where, c, argv[optind - 1]);
        else if (row->set)
            r = row->set(o, row, row->name, optarg);
        else if (strcmp(row->name, "help") == 0)
            r = (printf("%s", usage), print_help(where), OPTIONS_ANSWERED);
        else
            r = (print_list(where), OPTIONS_ANSWERED);
    }
    if (r == -ENOMEM)
        report(r, "out of memory");
    o->args = argv + optind;
    o->n_args = argc - optind;
    o->key.of = o->new_key.of = o->n_args > 0 ? o->args[0] : NULL;
    return r;
}

void
options_fini(struct options *o)
{
    for (size_t i = 0; i < o->n_reservations; i++)
        free((char *)o->reservations[i].name);
    free(o->reservations);
    free((char *)o->profile);
    free(o->kernel);
    free(o->anchor);
    free(o->host_id);
    free(o->ctrl);
    free(o->server);
    free(o->pcap);
    key_options_fini(&o->key);
    key_options_fini(&o->new_key);
    swtpm_key_options_fini(&o->swtpm_key);
    swtpm_key_options_fini(&o->swtpm_migration_key);
}
