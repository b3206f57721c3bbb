/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram import --swtpm: a TPM's state from swtpm's directory, linear file or migration blobs. */
#include "base/report.h"
#include "base/scope.h"
#include "cli/interchange.h"
#include "cli/tpmroom.h"
#include "swtpm/blob.h"
#include "swtpm/linear.h"
#include "swtpm/state.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Several times what any version of libtpms writes: whatever is longer is something else. */
enum { STATE_MOST = 4 << 20 };

struct intake {
    struct parcels *parcels;
    struct options *o;
    struct secret *state_key, *migration_key;
    bool encrypted; /* something was */
};

static void
intake_fini(struct intake *in)
{
    secret_free(in->state_key);
    secret_free(in->migration_key);
}

/* ---- one state ----------------------------------------------------------------------------------
 */

static const char *
version_name(enum tpm_version v)
{
    return v == TPM_VERSION_1_2 ? "1.2" : "2.0";
}

static int
check_version(const struct vault *blob, enum swtpm_item item, enum tpm_version version,
              const char *source)
{
    enum tpm_version found = swtpm_state_version(blob->bytes, blob->len, item);

    if (found == version || item == SWTPM_SAVESTATE)
        return 0;
    if (found == TPM_VERSION_NONE)
        return report(-EMEDIUMTYPE, "%s: holds no state of a TPM %s", source,
                      version_name(version));
    return report(-EINVAL, "%s: holds the state of a TPM %s, not %s", source, version_name(found),
                  version_name(version));
}

static int
add_blob(struct intake *in, const struct vault *blob, enum tpm_version version,
         enum swtpm_item item, const char *source)
{
    AUTO(vault_freep) struct vault *plain = NULL;
    int r = check_version(blob, item, version, source);

    if (r == 0)
        r = swtpm_blob_seal(blob, false, &(struct swtpm_keys){NULL, NULL}, &plain);
    if (r == 0)
        r = parcels_add(in->parcels, swtpm_state_name(version, item), &plain, source);
    if (r == 0 && item == SWTPM_PERMALL)
        in->parcels->list[in->parcels->n - 1].room = tpm_room(version);
    return r;
}

static int
report_too_long(const char *source)
{
    return report(-EMEDIUMTYPE, "%s: is longer than any TPM's state", source);
}

static int
read_blob(int fd, const char *source, struct vault **raw)
{
    struct stat st;
    int r;

    if (fstat(fd, &st) == 0 && st.st_size > STATE_MOST)
        return report_too_long(source);
    r = parcel_read(fd, source, raw);
    return r == 0 && (*raw)->len > STATE_MOST ? report_too_long(source) : r;
}

static int
open_blob(struct intake *in, const struct vault *raw, const char *source, struct vault **blob)
{
    const struct swtpm_keys keys = {.state = in->state_key, .migration = in->migration_key};

    in->encrypted |= swtpm_blob_is_encrypted(raw->bytes, raw->len);
    return swtpm_blob_open(raw->bytes, raw->len, source, &keys, blob);
}

/* ---- swtpm's locks ------------------------------------------------------------------------------
 */

/* Held until @fd is closed, so that no swtpm starts meanwhile; one that takes no locks is not seen.
 */
static int
lock_against_swtpm(int fd, const char *source)
{
    struct flock whole = {.l_type = F_RDLCK, .l_whence = SEEK_SET};

    if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return report(-EBUSY, "%s: an swtpm runs on it: stop it first", source);
    return parcel_report_errno(source, "lock");
}

/* -1: there is no lock, so no swtpm has been there, or an old one. */
static int
lock_directory(int dir, const char *path, int *lock)
{
    *lock = openat(dir, ".lock", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (*lock < 0)
        return errno == ENOENT ? 0 : parcel_report_errno(path, "open its .lock");
    return lock_against_swtpm(*lock, path);
}

/* ---- a directory --------------------------------------------------------------------------------
 */

/* 1: gathered; 0: it is not there. */
static int
gather_item(struct intake *in, int dir, const char *path, enum tpm_version version,
            enum swtpm_item item)
{
    const char *name = swtpm_state_name(version, item);
    AUTO_FD int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    AUTO(vault_freep) struct vault *raw = NULL, *blob = NULL;
    char source[PATH_MAX];
    struct stat st;
    int r;

    snprintf(source, sizeof source, "%s/%s", path, name);
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || fstat(fd, &st) < 0)
        return parcel_report_errno(source, "open");
    if (!S_ISREG(st.st_mode))
        return report(-EMEDIUMTYPE, "%s: is not a regular file", source);
    r = read_blob(fd, source, &raw);
    if (r == 0)
        r = open_blob(in, raw, source, &blob);
    if (r == 0)
        r = add_blob(in, blob, version, item, source);
    return r < 0 ? r : 1;
}

/* Without the permanent state the others are worth nothing, and would become a new TPM. */
static int
report_no_permall(int dir, const char *path, enum tpm_version version)
{
    const char *name = swtpm_state_name(version, SWTPM_PERMALL);
    char bak[64];
    struct stat st;

    snprintf(bak, sizeof bak, "%s.bak", name);
    if (fstatat(dir, bak, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return report(-ENOENT,
                      "%s: %s is missing, but %s is there: start swtpm once, which restores it",
                      path, name, bak);
    return report(-ENOENT, "%s: %s is missing", path, name);
}

static int
gather_version(struct intake *in, int dir, const char *path, enum tpm_version version, bool *any)
{
    int r = gather_item(in, dir, path, version, SWTPM_PERMALL);
    const bool permall = r == 1;

    for (enum swtpm_item i = SWTPM_VOLATILE; r >= 0 && i < SWTPM_ITEMS; i++) {
        r = gather_item(in, dir, path, version, i);
        if (r == 1 && !permall)
            return report_no_permall(dir, path, version);
    }
    *any |= permall;
    return r < 0 ? r : 0;
}

static int
gather_directory(struct intake *in, int dir, const char *path)
{
    const enum tpm_version only = in->o->tpm.version;
    AUTO_FD int lock = -1;
    bool any = false;
    int r = lock_directory(dir, path, &lock);

    if (r == 0 && only != TPM_VERSION_1_2)
        r = gather_version(in, dir, path, TPM_VERSION_2_0, &any);
    if (r == 0 && only != TPM_VERSION_2_0)
        r = gather_version(in, dir, path, TPM_VERSION_1_2, &any);
    if (r == 0 && !any)
        r = report_no_permall(dir, path, only == TPM_VERSION_1_2 ? only : TPM_VERSION_2_0);
    return r;
}

/* ---- a linear file ------------------------------------------------------------------------------
 */

static int
read_at(int fd, const char *source, uint64_t off, uint8_t *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pread(fd, buf + done, len - done, (off_t)(off + done));

        if (n < 0 && errno != EINTR)
            return parcel_report_errno(source, "read");
        if (n == 0)
            return report(-ERANGE, "%s: became shorter while it was read", source);
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int
read_linear_item(struct intake *in, int fd, const struct swtpm_linear *l, enum swtpm_item item,
                 const char *path, struct vault **blob)
{
    AUTO(vault_freep) struct vault *raw = NULL;
    char source[PATH_MAX + 32];
    int r;

    snprintf(source, sizeof source, "%s: item %d", path, item);
    if (l->items[item].len > STATE_MOST)
        return report_too_long(source);
    r = vault_new(&raw, l->items[item].len, true);
    if (r == 0)
        r = read_at(fd, path, l->items[item].off, raw->bytes, raw->len);
    return r < 0 ? r : open_blob(in, raw, source, blob);
}

/* A linear file does not tell whose state it holds; the state does. */
static int
choose_version(const struct intake *in, const struct vault *permall, const char *path,
               enum tpm_version *version)
{
    enum tpm_version found = swtpm_state_version(permall->bytes, permall->len, SWTPM_PERMALL);

    *version = in->o->tpm.version != TPM_VERSION_NONE ? in->o->tpm.version : found;
    if (*version != TPM_VERSION_NONE)
        return 0;
    return report(-EMEDIUMTYPE, "%s: its first item is no permanent state of a TPM", path);
}

static int
gather_linear(struct intake *in, int fd, const char *path, const uint8_t *head, size_t head_len)
{
    struct swtpm_linear l;
    enum tpm_version version = TPM_VERSION_NONE;
    const off_t size = lseek(fd, 0, SEEK_END);
    int r = size < 0 ? parcel_report_errno(path, "find the end") : lock_against_swtpm(fd, path);

    if (r == 0)
        r = swtpm_linear_decode(&l, head, head_len, (uint64_t)size, path);
    if (r == 0 && l.items[SWTPM_PERMALL].off == 0)
        r = report(-ENOENT, "%s: its permanent state is missing", path);
    for (enum swtpm_item i = 0; r == 0 && i < SWTPM_ITEMS; i++) {
        AUTO(vault_freep) struct vault *blob = NULL;

        if (l.items[i].off == 0)
            continue;
        r = read_linear_item(in, fd, &l, i, path, &blob);
        if (r == 0 && i == SWTPM_PERMALL)
            r = choose_version(in, blob, path, &version);
        if (r == 0)
            r = add_blob(in, blob, version, i, path);
    }
    return r;
}

/* ---- a single blob ------------------------------------------------------------------------------
 */

static int
gather_blob(struct intake *in, int fd, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = in->o->name ? in->o->name : slash ? slash + 1 : path;
    AUTO(vault_freep) struct vault *raw = NULL, *blob = NULL;
    enum tpm_version version = TPM_VERSION_NONE;
    enum swtpm_item item = SWTPM_ITEMS;
    int r = read_blob(fd, path, &raw);

    if (r == 0)
        r = open_blob(in, raw, path, &blob);
    if (r == 0 && !swtpm_state_by_name(name, &version, &item))
        r = report(-EINVAL,
                   "%s: which state is it? say it with --name tpm2-00.permall, "
                   "tpm2-00.volatilestate, or tpm-00. and so on for a TPM 1.2",
                   path);
    return r < 0 ? r : add_blob(in, blob, version, item, path);
}

/* ---- the arguments ------------------------------------------------------------------------------
 */

/* swtpm's own way to name them. */
static const char *
without_scheme(const char *uri)
{
    if (strncmp(uri, "dir://", 6) == 0)
        return uri + 6;
    return strncmp(uri, "file://", 7) == 0 ? uri + 7 : uri;
}

static int
gather_file(struct intake *in, int fd, const char *path)
{
    uint8_t head[SWTPM_LINEAR_HEADER];
    ssize_t n = pread(fd, head, sizeof head, 0);
    bool blank = n > 0;

    if (n < 0 && errno != ESPIPE)
        return parcel_report_errno(path, "read");
    for (ssize_t i = 0; i < n; i++)
        blank &= head[i] == 0;
    if (n < 0 || (!blank && !swtpm_linear_probe(head, (size_t)n)))
        return gather_blob(in, fd, path);
    if (in->o->name)
        return report(-EINVAL,
                      "%s: is a linear file, whose states have names: --name is for a blob", path);
    return gather_linear(in, fd, path, head, (size_t)n);
}

static int
gather_argument(struct intake *in, const char *arg)
{
    const char *path = without_scheme(arg);
    AUTO_FD int fd = -1;
    struct stat st;

    if (strcmp(arg, "-") == 0)
        return gather_blob(in, STDIN_FILENO, "standard input");
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0)
        return parcel_report_errno(path, "open");
    if (!S_ISDIR(st.st_mode))
        return gather_file(in, fd, path);
    if (in->o->name)
        return report(-EINVAL, "%s: is a directory, whose files have names: --name is for a blob",
                      path);
    return gather_directory(in, fd, path);
}

/* A permanent state and another one's volatile state make no TPM. */
static void
remove_others(const struct parcels *p, struct parcel_commit *how)
{
    static const enum tpm_version versions[] = {TPM_VERSION_2_0, TPM_VERSION_1_2};

    for (size_t v = 0; v < sizeof versions / sizeof versions[0]; v++) {
        if (!parcels_find(p, swtpm_state_name(versions[v], SWTPM_PERMALL)))
            continue;
        for (enum swtpm_item i = SWTPM_VOLATILE; i < SWTPM_ITEMS; i++) {
            const char *name = swtpm_state_name(versions[v], i);

            if (!parcels_find(p, name))
                how->remove[how->n_remove++] = name;
        }
    }
}

int
interchange_gather(struct parcels *p, struct options *o, struct parcel_commit *how)
{
    AUTO(intake_fini) struct intake in = {.parcels = p, .o = o};
    int r = swtpm_key_read(&o->swtpm_key, &in.state_key);

    if (r == 0)
        r = swtpm_key_read(&o->swtpm_migration_key, &in.migration_key);
    if (r == 0 && o->name && o->n_args != 2)
        r = report(-EINVAL, "--name is for one file");
    for (int i = 1; r == 0 && i < o->n_args; i++)
        r = gather_argument(&in, o->args[i]);
    for (size_t i = 0; i < p->n; i++)
        p->list[i].source = NULL;
    how->was_encrypted = in.encrypted;
    if (r == 0)
        remove_others(p, how);
    return r;
}
