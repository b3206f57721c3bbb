/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram restore: brings the content that a file had before, or a deleted file, back. */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/openimage.h"
#include "cli/parcel.h"
#include "cli/tpmname.h"
#include "fs/node.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int
report_nothing(const char *where, const char *name)
{
    return report(-ENOENT,
                  "%s: nothing is kept of what %s held before: its room has been used again, or it "
                  "never held anything else",
                  where, name);
}

static int
report_no_room(const char *where, const char *name, uint64_t len)
{
    return report(-ENOSPC,
                  "%s: no slot of at least %" PRIu64 " bytes is free for %s, and it is not written "
                  "over what it is brought back from: nothing was changed; delete something, or "
                  "\"vnvram grow\" adds slots",
                  where, len, name);
}

/* After a list of @n. */
static void
tell_if_none(const char *where, size_t n)
{
    if (n == 0)
        report_at(REPORT_NOTICE, 0, "%s: nothing is kept of what files held before", where);
}

static void
print_restored(const char *where, const char *name, uint64_t len)
{
    char text[SIZE_TEXT];

    printf("%s: %s: restored, %s\n", where, name, size_text(text, len));
}

/* ---- an image -----------------------------------------------------------------------------------
 */

static int
read_previous(struct store *s, const char *where, const struct entry *e, struct vault **content)
{
    AUTO(vault_freep) struct vault *v = NULL;
    int r = vault_new(&v, e->previous.length, false);

    if (r == 0)
        r = store_read(s, &e->previous, v->bytes);
    if (r == -ESTALE || r == -EUCLEAN)
        return report_nothing(where, e->name);
    if (r < 0)
        return r;
    *content = steal(&v);
    return 0;
}

/* A slot other than the one where the content before lies, so that it is not lost if power is cut;
 * the file's own if that does as well.  Holds it. */
static int
take_slot(struct store *s, const struct entry *e, uint32_t *slot)
{
    const struct content *c = &e->previous;
    uint32_t first;
    int r = store_slot_take(s, c->length, e->name, slot);

    if (r == 0 && *slot == c->slot) {
        first = *slot;
        r = store_slot_take(s, c->length, e->name, slot);
        store_slot_drop(s, first);
    }
    if (r == -ENOSPC && e->kind == ENTRY_FILE && e->slot != c->slot &&
        store_slot_capacity(s, e->slot) >= c->length) {
        *slot = e->slot;
        store_slot_hold(s, e->slot);
        r = 0;
    }
    return r;
}

static int
restore_entry(struct store *s, const char *where, const struct entry *e)
{
    AUTO(vault_freep) struct vault *v = NULL;
    struct change c = {.op = CHANGE_FILE, .name = e->name, .has_content = true, .attr = e->attr};
    int r = read_previous(s, where, e, &v);

    if (r == 0)
        r = take_slot(s, e, &c.slot);
    if (r == -ENOSPC)
        return report_no_room(where, e->name, e->previous.length);
    if (r < 0)
        return r;
    c.id = e->kind == ENTRY_FILE ? e->id : store_new_id(s);
    c.data = v->bytes;
    c.len = v->len;
    clock_gettime(CLOCK_REALTIME, &c.attr.mtime);
    c.attr.ctime = c.attr.mtime;
    r = store_commit(s, &c, 1, NULL);
    store_slot_drop(s, c.slot);
    if (r == 0)
        r = store_settle(s);
    if (r == 0)
        print_restored(where, e->name, v->len);
    return r;
}

static int
restore_in_image(struct options *o, const char *where, const char *name)
{
    AUTO(image_close) struct open_image image = {0};
    struct entry e;
    int r = image_open_to_change(&image, o, where);

    if (r < 0)
        return r;
    if (store_find(image.store, name, &e) < 0 || e.previous.generation == 0)
        return report_nothing(where, name);
    return restore_entry(image.store, where, &e);
}

static int
list_image(struct options *o, const char *where)
{
    AUTO(image_close) struct open_image image = {0};
    AUTO_FREE struct entry *list = NULL;
    char text[SIZE_TEXT];
    size_t n = 0, shown = 0;
    int r = image_open_to_read(&image, o, where);

    if (r == 0)
        r = store_list(image.store, &list, &n);
    for (size_t i = 0; r == 0 && i < n; i++) {
        const struct entry *e = &list[i];

        if (e->previous.generation == 0 || !store_is_whole(image.store, &e->previous))
            continue;
        print_escaped(e->name);
        printf(": %s%s\n", size_text(text, e->previous.length),
               e->kind == ENTRY_FILE ? ", from before its last change" : ", deleted");
        shown++;
    }
    if (r == 0)
        tell_if_none(where, shown);
    return r;
}

/* ---- a mount ------------------------------------------------------------------------------------
 */

struct site {
    const char *where, *name;
    int root, previous; /* the mount's directories */
};

static void
site_close(struct site *s)
{
    if (s->root >= 0)
        close(s->root);
    if (s->previous >= 0)
        close(s->previous);
}

static int
site_open(struct site *s)
{
    s->root = open(s->where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->root < 0)
        return report(-EIO, "%s: cannot open: %s", s->where, errno_text(-errno));
    s->previous = openat(s->root, ".vnvram/previous", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->previous < 0)
        return report(-ENOENT, "%s: no image is mounted there", s->where);
    return 0;
}

static int
report_running(const struct site *s)
{
    return report(-EBUSY,
                  "%s: a TPM is running on this state, and would not know: end it first (mount "
                  "without tpm=), and restore then",
                  s->where);
}

/* Whoever runs a TPM in the mount (the daemon, or a swtpm) holds this; so do we, for as long as
 * *@fd is open. */
static int
keep_tpm_out(const struct site *s, int *fd)
{
    const struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    if (faccessat(s->root, "tpm0", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return report_running(s);
    *fd = openat(s->root, TPM_LOCK_NAME, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0 && errno == ENOENT)
        return 0;
    if (*fd >= 0 && fcntl(*fd, F_OFD_SETLK, &whole) == 0)
        return 0;
    if (*fd >= 0 && (errno == EAGAIN || errno == EACCES))
        return report_running(s);
    return report(-EIO, "%s/%s: cannot be locked: %s", s->where, TPM_LOCK_NAME, errno_text(-errno));
}

/* As the file that is there, or as the deleted one was, which its owner may write again. */
static int
take_attributes(const struct site *s, int fd, int from)
{
    struct stat st;
    mode_t more = 0;

    if (fstatat(s->root, s->name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno != ENOENT || fstat(from, &st) < 0)
            return -errno;
        more = st.st_mode & 0400 ? 0200 : 0;
    }
    if (fchown(fd, st.st_uid, st.st_gid) < 0 || fchmod(fd, (st.st_mode & 07777) | more) < 0)
        return -errno;
    return 0;
}

/* A draft: what ends us leaves nothing of it.  Its bytes and the name that it takes are stored in
 * one commit, the rename's. */
static int
replace(const struct site *s, int from, const struct vault *v)
{
    char temp[64];
    AUTO_FD int fd = -1;
    ssize_t n = 0;
    int r = 0;

    snprintf(temp, sizeof temp, DRAFT_PREFIX "%d", (int)getpid());
    fd = openat(s->root, temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    for (size_t done = 0; r == 0 && done < v->len; done += (size_t)n) {
        n = write(fd, v->bytes + done, v->len - done);
        r = n < 0 ? -errno : 0;
    }
    if (r == 0)
        r = take_attributes(s, fd, from);
    if (r == 0 && renameat(s->root, temp, s->root, s->name) < 0)
        r = -errno;
    return r;
}

static int
restore_in_mount(const struct site *s, bool is_tpm)
{
    AUTO(vault_freep) struct vault *v = NULL;
    AUTO_FD int lock = -1;
    AUTO_FD int from = openat(s->previous, s->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int r;

    if (from < 0 && errno == ENOENT)
        return report_nothing(s->where, s->name);
    if (from < 0)
        return report(-EIO, "%s: cannot open what it held before: %s", s->name, errno_text(-errno));
    r = is_tpm ? keep_tpm_out(s, &lock) : 0;
    if (r == 0)
        r = parcel_read(from, s->name, &v);
    if (r < 0)
        return r;
    r = replace(s, from, v);
    if (r == -ENOSPC)
        return report_no_room(s->where, s->name, v->len);
    if (r < 0)
        return report(finding_exit_code(r) == EXIT_FAILED ? r : -EIO, "%s: %s: cannot restore: %s",
                      s->where, s->name, errno_text(r));
    print_restored(s->where, s->name, v->len);
    return 0;
}

static int
list_mount(const struct site *s)
{
    AUTO_FREE struct dirent **names = NULL;
    char text[SIZE_TEXT];
    struct stat st, now;
    size_t shown = 0;
    int n = scandirat(s->previous, ".", &names, NULL, alphasort);

    if (n < 0)
        return report(-EIO, "%s: cannot list what is kept: %s", s->where, errno_text(-errno));
    for (int i = 0; i < n; i++) {
        AUTO_FREE struct dirent *d = names[i];

        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 ||
            fstatat(s->previous, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        print_escaped(d->d_name);
        printf(": %s%s\n", size_text(text, (uint64_t)st.st_size),
               fstatat(s->root, d->d_name, &now, AT_SYMLINK_NOFOLLOW) == 0
                   ? ", from before its last change"
                   : ", deleted");
        shown++;
    }
    tell_if_none(s->where, shown);
    return 0;
}

/* ------------------------------------------------------------------------------------------------
 */

/* A TPM's counters, its clock, its lock-outs and what was revoked go back with it. */
static int
judge_name(const char *name, bool force)
{
    if (!name || !name_is_tpm_state(name))
        return 0;
    if (!force)
        return report(-EPERM,
                      "%s: is a TPM's state: with an older one its counters go back, and keys that "
                      "were deleted in it are good again; --force restores it all the same",
                      name);
    report_at(REPORT_WARNING, 0,
              "%s: the TPM goes back to what it was before: its counters too, so what depends on "
              "them cannot be trusted to be new",
              name);
    return 0;
}

static int
restore_at(struct options *o, const char *where, const char *name)
{
    AUTO(site_close) struct site s = {.where = where, .name = name, .root = -1, .previous = -1};
    int r;

    if (o->key.given || o->anchor)
        return report(-EINVAL, "%s: is a mount, which has its key and anchor already", where);
    r = site_open(&s);
    if (r < 0)
        return r;
    return name ? restore_in_mount(&s, name_is_tpm_state(name)) : list_mount(&s);
}

int
cmd_restore(struct options *o)
{
    const char *where = o->args[0], *name = o->n_args > 1 ? o->args[1] : NULL;
    struct stat st;
    int r = name && !entry_name_ok(name, strlen(name))
                ? report(-EINVAL, "\"%s\" cannot be the name of a file in an image", name)
                : judge_name(name, o->force);

    if (r < 0)
        return finding_exit_code(r);
    if (stat(where, &st) == 0 && S_ISDIR(st.st_mode))
        return finding_exit_code(restore_at(o, where, name));
    return image_advise(where, name ? restore_in_image(o, where, name) : list_image(o, where));
}
