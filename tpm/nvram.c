/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/nvram.h"
#include "base/report.h"
#include "base/scope.h"
#include "tpm/envelope.h"
#include <errno.h>
#include <fcntl.h>
#include <libtpms/tpm_nvfilename.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define LOCK_NAME ".lock" /* swtpm's */

enum { FILE_MAX = 4 << 20, NAME_SIZE = 32 };

static const char *const item_names[NVRAM_ITEMS] = {
    [NVRAM_PERMALL] = TPM_PERMANENT_ALL_NAME,
    [NVRAM_VOLATILE] = TPM_VOLATILESTATE_NAME,
    [NVRAM_SAVESTATE] = TPM_SAVESTATE_NAME,
};

struct nvram {
    int dir;
    int lock;
    struct nvram_options opt;
    int failure;
    struct item {
        char name[NAME_SIZE];
        char temp[NAME_SIZE];
        int fd; /* -1: there is none */
        bool is_known;
        struct statx is; /* which file that is, if known */
        /* The same file with O_DSYNC; -1: not opened yet.  On a vnvram mount it takes nothing but a
         * write of the whole content, at the size that it has, which is one request, and commits.
         */
        int overwrite;
    } items[NVRAM_ITEMS];
};

enum nvram_item
nvram_item_by_name(const char *name)
{
    enum nvram_item i = 0;

    while (i < NVRAM_ITEMS && strcmp(name, item_names[i]) != 0)
        i++;
    return i;
}

int
nvram_failure(const struct nvram *n)
{
    return n->failure;
}

/* -ENOENT is not reported. */
static int
open_regular(int dir, const char *name, int *out)
{
    AUTO_FD int fd = openat(dir, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;

    if (fd < 0 && errno == ENOENT)
        return -ENOENT;
    if (fd < 0 || fstat(fd, &st) < 0)
        return report(-errno, "%s: cannot open: %s", name, errno_text(errno));
    if (!S_ISREG(st.st_mode))
        return report(-EUCLEAN, "%s: is not a regular file", name);
    *out = steal_fd(&fd);
    return 0;
}

static void
close_item(struct item *it)
{
    scope_close(&it->fd);
    scope_close(&it->overwrite);
    it->fd = it->overwrite = -1;
    it->is_known = false;
}

static void
nvram_closep(struct nvram **n)
{
    nvram_close(*n);
}

int
nvram_open(struct nvram **out, int dir, const struct nvram_options *opt)
{
    bool two = opt->version == TPM_VERSION_2_0;
    AUTO(nvram_closep) struct nvram *n = calloc(1, sizeof *n);
    int r;

    if (!n)
        return report(-ENOMEM, "no memory for the TPM's state");
    n->dir = dir;
    n->opt = *opt;
    n->lock = -1;
    for (int i = 0; i < NVRAM_ITEMS; i++) {
        snprintf(n->items[i].name, NAME_SIZE, "%s-00.%s", two ? "tpm2" : "tpm", item_names[i]);
        snprintf(n->items[i].temp, NAME_SIZE, "%s-00.%s", two ? "TMP2" : "TMP", item_names[i]);
        n->items[i].fd = n->items[i].overwrite = -1;
    }
    r = opt->detached ? 0 : nvram_attach(n);
    if (r < 0)
        return r;
    *out = steal(&n);
    return 0;
}

int
nvram_attach(struct nvram *n)
{
    int r = open_regular(n->dir, LOCK_NAME, &n->lock);

    for (int i = 0; i < NVRAM_ITEMS && (r == 0 || r == -ENOENT); i++)
        r = open_regular(n->dir, n->items[i].name, &n->items[i].fd);
    return r == -ENOENT ? 0 : r;
}

void
nvram_detach(struct nvram *n)
{
    for (int i = 0; i < NVRAM_ITEMS; i++)
        close_item(&n->items[i]);
    scope_close(&n->lock);
    n->lock = -1;
}

void
nvram_close(struct nvram *n)
{
    if (!n)
        return;
    nvram_detach(n);
    free(n);
}

int
nvram_lock(struct nvram *n)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    if (n->lock < 0)
        n->lock = openat(n->dir, LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (n->lock < 0 && errno == ENOSPC)
        return report_at(REPORT_WARNING, 0,
                         "no room for " LOCK_NAME ": no swtpm must run on this "
                         "directory now");
    if (n->lock < 0)
        return report(-errno, LOCK_NAME ": cannot create: %s", errno_text(errno));
    if (fcntl(n->lock, F_SETLK, &whole) == 0)
        return 0;
    if (errno != EAGAIN && errno != EACCES)
        return report(-errno, LOCK_NAME ": cannot lock: %s", errno_text(errno));
    return report(-EBUSY, LOCK_NAME ": locked: another TPM runs on this directory");
}

/* A newer swtpm keeps a second copy while it replaces the first; that one's loss is for a person.
 */
static int
check_no_backup(struct nvram *n)
{
    char bak[NAME_SIZE + 4];
    struct stat st;

    snprintf(bak, sizeof bak, "%s.bak", n->items[NVRAM_PERMALL].name);
    if (fstatat(n->dir, bak, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return report(-EUCLEAN,
                      "%s is missing, but %s is there: rename it if it is the TPM's state",
                      n->items[NVRAM_PERMALL].name, bak);
    return errno == ENOENT ? 0 : report(-errno, "%s: %s", bak, errno_text(errno));
}

static int
check_may_be_absent(struct nvram *n, enum nvram_item item)
{
    if (item != NVRAM_PERMALL || n->opt.manufacture)
        return 0;
    if (n->opt.held)
        return report(
            -EUCLEAN,
            "%s is missing, though there was a TPM here; what to do: \"vnvram restore "
            "--force\" while no TPM runs, or a backup; -o tpm_manufacture makes a new one",
            n->items[item].name);
    return check_no_backup(n);
}

/* What the kernel knows, which is true: all changes go through it. */
static int
look(int dir, const char *name, struct statx *st)
{
    int flags = AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);

    return statx(dir, name, flags, STATX_INO | STATX_SIZE, st);
}

static bool
is_same(const struct statx *a, const struct statx *b)
{
    return a->stx_dev_major == b->stx_dev_major && a->stx_dev_minor == b->stx_dev_minor &&
           a->stx_ino == b->stx_ino;
}

/* 0: the open file still has its name; @size: what it holds. */
static int
check_in_place(struct nvram *n, struct item *it, uint64_t *size)
{
    struct statx named;

    if (!it->is_known && look(it->fd, "", &it->is) < 0)
        return report(-errno, "%s: %s", it->name, errno_text(errno));
    it->is_known = true;
    if (look(n->dir, it->name, &named) < 0) {
        if (errno != ENOENT)
            return report(-errno, "%s: %s", it->name, errno_text(errno));
        return report(-ESTALE, "%s was removed while the TPM ran", it->name);
    }
    if (!is_same(&it->is, &named))
        return report(-ESTALE, "%s was replaced while the TPM ran", it->name);
    *size = named.stx_size;
    return 0;
}

static int
read_whole(int fd, const char *name, uint8_t **out, size_t *out_len)
{
    struct stat st;
    AUTO_FREE uint8_t *buf = NULL;
    size_t len = 0;

    if (fstat(fd, &st) < 0)
        return report(-errno, "%s: %s", name, errno_text(errno));
    if (st.st_size == 0)
        return report(-EUCLEAN, "%s: is empty: damaged", name);
    if (st.st_size > FILE_MAX)
        return report(-EUCLEAN, "%s: is too large for a TPM's state", name);
    buf = malloc((size_t)st.st_size);
    if (!buf)
        return report(-ENOMEM, "%s: no memory to read it", name);
    while (len < (size_t)st.st_size) {
        ssize_t got = pread(fd, buf + len, (size_t)st.st_size - len, (off_t)len);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return report(-errno, "%s: cannot read: %s", name, errno_text(errno));
        if (got == 0)
            return report(-EUCLEAN, "%s: became shorter while it was read", name);
        len += (size_t)got;
    }
    *out = steal(&buf);
    *out_len = len;
    return 0;
}

int
nvram_has(struct nvram *n, enum nvram_item item)
{
    struct item *it = &n->items[item];
    int r = it->fd < 0 ? open_regular(n->dir, it->name, &it->fd) : 0;

    return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

int
nvram_load(struct nvram *n, enum nvram_item item, uint8_t **blob, size_t *len)
{
    struct item *it = &n->items[item];
    AUTO_FREE uint8_t *buf = NULL;
    const uint8_t *data;
    size_t buf_len = 0, data_len;
    uint64_t size;
    int r = 0;

    if (it->fd < 0)
        r = open_regular(n->dir, it->name, &it->fd);
    if (r == -ENOENT) {
        r = check_may_be_absent(n, item);
        return r < 0 ? r : -ENOENT;
    }
    if (r == 0)
        r = check_in_place(n, it, &size);
    if (r == 0)
        r = read_whole(it->fd, it->name, &buf, &buf_len);
    if (r == 0)
        r = envelope_decode(buf, buf_len, it->name, &data, &data_len);
    if (r < 0)
        return r;
    memmove(buf, data, data_len); /* one buffer, as libtpms wants to free it */
    *blob = steal(&buf);
    *len = data_len;
    return 0;
}

/* One system call, so that a file system that takes it whole has old or new.  A second call only
 * when the first came back short. */
static int
write_whole(int fd, const char *name, const uint8_t *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t put = pwrite(fd, buf + done, len - done, (off_t)done);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return report(put < 0 ? -errno : -EIO, "%s: cannot write: %s", name,
                          errno_text(put < 0 ? errno : EIO));
        done += (size_t)put;
    }
    return 0;
}

static int
sync_fd(int fd, const char *name)
{
    if (fsync(fd) < 0)
        return report(-errno, "%s: cannot make it durable: %s", name, errno_text(errno));
    return 0;
}

static int
store_new(struct nvram *n, struct item *it, const uint8_t *buf, size_t len)
{
    AUTO_FD int fd =
        openat(n->dir, it->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int r;

    if (fd < 0)
        return report(-errno, "%s: cannot create: %s", it->name, errno_text(errno));
    r = write_whole(fd, it->name, buf, len);
    if (r == 0)
        r = sync_fd(fd, it->name);
    if (r == 0)
        r = sync_fd(n->dir, "the TPM's directory");
    if (r < 0) {
        unlinkat(n->dir, it->name, 0); /* part of a new state is worse than none */
        return r;
    }
    it->fd = steal_fd(&fd);
    return 0;
}

static bool
open_overwrite(struct nvram *n, struct item *it)
{
    AUTO_FD int fd = openat(n->dir, it->name, O_WRONLY | O_DSYNC | O_NOFOLLOW | O_CLOEXEC);
    struct statx other;

    if (fd < 0 || look(fd, "", &other) < 0 || !is_same(&it->is, &other))
        return false;
    it->overwrite = steal_fd(&fd);
    return true;
}

/* Over an open file that stays as long.  -EOPNOTSUPP, unreported: it does not go in one step. */
static int
store_at_once(struct nvram *n, struct item *it, const uint8_t *blob, size_t len)
{
    uint8_t head[ENVELOPE_SIZE];
    const struct iovec iov[2] = {{head, sizeof head}, {(void *)(uintptr_t)blob, len}};
    uint64_t size;
    ssize_t put;
    int r = check_in_place(n, it, &size);

    if (r < 0)
        return r;
    if (size != sizeof head + len || (it->overwrite < 0 && !open_overwrite(n, it)))
        return -EOPNOTSUPP;
    envelope_encode(head, (uint32_t)len);
    do
        put = pwritev(it->overwrite, iov, 2, 0);
    while (put < 0 && errno == EINTR);
    if (put < 0 && errno != EOPNOTSUPP)
        return report(-errno, "%s: cannot write: %s", it->name, errno_text(errno));
    return put == (ssize_t)size ? 0 : -EOPNOTSUPP;
}

static int
store_in_place(const struct item *it, const uint8_t *buf, size_t len, size_t old_len)
{
    int r = write_whole(it->fd, it->name, buf, len);

    if (r == 0 && len < old_len && ftruncate(it->fd, (off_t)len) < 0)
        r = report(-errno, "%s: cannot cut to %zu bytes: %s", it->name, len, errno_text(errno));
    return r < 0 ? r : sync_fd(it->fd, it->name);
}

/* A file with the owner, mode and name to be of the one it will replace; -1 where that cannot be
 * had. */
static int
open_replacement(struct nvram *n, const struct item *it, const struct stat *old, size_t len)
{
    AUTO_FD int fd = -1;

    if (unlinkat(n->dir, it->temp, 0) < 0 && errno != ENOENT)
        return -1;
    fd = openat(n->dir, it->temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)len) == 0 && fchown(fd, old->st_uid, old->st_gid) == 0 &&
        fchmod(fd, old->st_mode & 07777) == 0)
        return steal_fd(&fd);
    unlinkat(n->dir, it->temp, 0);
    return -1;
}

static int
store_by_rename(struct nvram *n, struct item *it, int fd, const uint8_t *buf, size_t len)
{
    int r = write_whole(fd, it->temp, buf, len);

    if (r == 0)
        r = sync_fd(fd, it->temp);
    if (r == 0 && renameat(n->dir, it->temp, n->dir, it->name) < 0)
        r = report(-errno, "%s: cannot rename to %s: %s", it->temp, it->name, errno_text(errno));
    if (r == 0)
        r = sync_fd(n->dir, "the TPM's directory");
    if (r < 0)
        unlinkat(n->dir, it->temp, 0);
    return r;
}

static int
store_over(struct nvram *n, struct item *it, const uint8_t *buf, size_t len)
{
    AUTO_FD int fd = -1;
    struct stat old;
    int r;

    if (fstat(it->fd, &old) < 0)
        return report(-errno, "%s: %s", it->name, errno_text(errno));
    if (len < (size_t)old.st_size)
        fd = open_replacement(n, it, &old, len);
    if (fd < 0)
        return store_in_place(it, buf, len, (size_t)old.st_size);
    r = store_by_rename(n, it, fd, buf, len);
    if (r < 0)
        return r;
    close_item(it);
    it->fd = steal_fd(&fd);
    return 0;
}

static int
store_in_steps(struct nvram *n, struct item *it, const uint8_t *blob, size_t len)
{
    AUTO_FREE uint8_t *buf = malloc(ENVELOPE_SIZE + len);
    int r;

    if (!buf)
        return report(-ENOMEM, "%s: no memory to write it", it->name);
    envelope_encode(buf, (uint32_t)len);
    memcpy(buf + ENVELOPE_SIZE, blob, len);
    if (it->fd < 0)
        r = store_new(n, it, buf, ENVELOPE_SIZE + len);
    else
        r = store_over(n, it, buf, ENVELOPE_SIZE + len);
    explicit_bzero(buf, ENVELOPE_SIZE + len);
    return r;
}

int
nvram_store(struct nvram *n, enum nvram_item item, const uint8_t *blob, size_t len)
{
    struct item *it = &n->items[item];
    int r;

    if (n->failure)
        return n->failure;
    if (len == 0 || len > FILE_MAX - ENVELOPE_SIZE)
        return n->failure = report(-EFBIG, "%s: %zu bytes are no TPM's state", it->name, len);
    r = it->fd < 0 ? -EOPNOTSUPP : store_at_once(n, it, blob, len);
    if (r == -EOPNOTSUPP)
        r = store_in_steps(n, it, blob, len);
    n->failure = r;
    return r;
}

int
nvram_delete(struct nvram *n, enum nvram_item item)
{
    struct item *it = &n->items[item];

    if (n->failure)
        return n->failure;
    close_item(it);
    if (unlinkat(n->dir, it->name, 0) == 0)
        return 1;
    if (errno == ENOENT)
        return 0;
    return n->failure = report(-errno, "%s: cannot remove: %s", it->name, errno_text(errno));
}
