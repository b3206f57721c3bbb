/* SPDX-License-Identifier: BSD-3-Clause */
/* The device in a regular file or on a block device.
 *
 * The lock of an image is an OFD write lock on its inode.  A block device is more than the node
 * that leads to it, and is claimed besides (blockdev.h).  A loop device's backing file is locked as
 * well, all the way down, so that the file and the loop device over it are one image.
 *
 * A block device is read and written past its page cache (O_DIRECT): that cache is shared with all
 * who have the device open, keeps what another host has replaced meanwhile, and after a failed
 * write shows what is not on the medium. */
#include "base/clock.h"
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/blockdev.h"
#include "core/dev.h"
#include "core/holder.h"
#include "core/lease.h"
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

enum {
    LOCK_POLL_MS = 10,
    SENT_MAX = 8,
    BACKING_MAX = DEV_FILES_MAX - 2, /* as deep as the kernel stacks loop devices */
};

struct file_dev {
    struct dev dev;
    int fd;
    int claim; /* holds the block device, by whatever node it is reached; or -1 */
    bool block;
    bool direct;              /* O_DIRECT is on */
    int backing[BACKING_MAX]; /* files beneath a loop device, locked too */
    unsigned n_backing;
    io_context_t aio; /* NULL: not yet there, or not to be had */
    bool no_aio;
    struct iocb sent[SENT_MAX]; /* what the kernel has, and we do not know to have ended */
    unsigned n_sent;
    struct lease *lease; /* NULL: commits are not a matter of others */
    dev_file_reopen *reopen;
    void *reopen_arg;
};

static struct file_dev *
file_of(struct dev *d)
{
    return (struct file_dev *)d;
}

/* ---- transfers ------------------------------------------------------------------------------ */

/* Drops clean cached pages of a range (@n 0: to the end). */
static int
forget_pages(int fd, uint64_t off, uint64_t n)
{
    int r = posix_fadvise(fd, (off_t)off, (off_t)n, POSIX_FADV_DONTNEED);

    return r == EINVAL || r == ENOSYS ? 0 : -r;
}

/* Drops all; dirty ones are written first, and then they are clean. */
static int
drop_cache(int fd)
{
    if (fdatasync(fd) < 0 && errno != EROFS && errno != EINVAL)
        return -errno;
    return forget_pages(fd, 0, 0);
}

static int
set_direct(struct file_dev *f, bool on)
{
    int flags = fcntl(f->fd, F_GETFL);

    if (flags < 0 || fcntl(f->fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) < 0)
        return -errno;
    f->direct = on;
    return 0;
}

/* Some file systems accept O_DIRECT and refuse the transfer. */
static int
leave_direct(struct file_dev *f)
{
    int r = set_direct(f, false);

    return r < 0 ? r : drop_cache(f->fd);
}

/* Of a transfer, in errno: 0, it is to be tried again. */
static int
after_failure(struct file_dev *f)
{
    if (errno == EINVAL && f->direct)
        return leave_direct(f);
    return errno == EINTR ? 0 : -errno;
}

/* What was read is in our memory now, and not needed twice.  And a write goes to pages as large as
 * itself where none are yet (Linux 6.x), but where reading has left small ones it goes to those,
 * which are written out one by one. */
static int
file_pread(struct dev *d, void *buf, size_t n, uint64_t off)
{
    struct file_dev *f = file_of(d);

    for (size_t done = 0; done < n;) {
        ssize_t got = pread(f->fd, (char *)buf + done, n - done, (off_t)(off + done));
        int r = 0;

        if (got > 0)
            done += (size_t)got;
        else if (got == 0)
            return -ERANGE;
        else
            r = after_failure(f);
        if (r < 0)
            return r;
    }
    if (!f->direct && n > BLOCK_SIZE)
        (void)forget_pages(f->fd, off, n);
    return 0;
}

static int
file_pwrite(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    struct file_dev *f = file_of(d);

    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(f->fd, (const char *)buf + done, n - done, (off_t)(off + done));
        int r = 0;

        if (put > 0)
            done += (size_t)put;
        else if (put == 0)
            return -EIO;
        else
            r = after_failure(f);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The contexts of a host are numbered: who gets none writes one after the other. */
static bool
can_send(struct file_dev *f)
{
    if (f->direct && !f->aio && !f->no_aio)
        f->no_aio = io_setup(SENT_MAX, &f->aio) < 0;
    return f->direct && f->aio;
}

static void
sending_ends(struct file_dev *f)
{
    if (f->aio)
        io_destroy(f->aio); /* waits for what is on its way */
    f->aio = NULL;
    f->n_sent = 0;
}

/* What came of one write: what is missing of it is written, or tells why not. */
static int
ended(struct file_dev *f, const struct iocb *cb, long result)
{
    size_t done = result > 0 ? (size_t)result : 0;

    if (result == (long)cb->u.c.nbytes)
        return 0;
    if (result < 0 && result != -EINVAL && result != -EINTR)
        return (int)result;
    return file_pwrite(&f->dev, (const char *)cb->u.c.buf + done, cb->u.c.nbytes - done,
                       (uint64_t)cb->u.c.offset + done);
}

static int
file_wait(struct dev *d)
{
    struct file_dev *f = file_of(d);
    int r = 0;

    while (f->n_sent > 0) {
        struct io_event events[SENT_MAX];
        int n = io_getevents(f->aio, 1, SENT_MAX, events, NULL);

        if (n == -EINTR)
            continue;
        if (n <= 0) {
            sending_ends(f);
            return n < 0 ? n : -EIO;
        }
        for (int i = 0; i < n; i++) {
            int e = ended(f, events[i].obj, (long)events[i].res);

            r = r < 0 ? r : e;
        }
        f->n_sent -= (unsigned)n;
    }
    return r;
}

/* To a block device, which takes several at a time; what a page cache takes is not worth it. */
static int
file_submit(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    struct file_dev *f = file_of(d);
    struct iocb *cb = &f->sent[f->n_sent];
    int r;

    if (!can_send(f))
        return file_pwrite(d, buf, n, off);
    if (f->n_sent == SENT_MAX) {
        r = file_wait(d);
        if (r < 0)
            return r;
        cb = &f->sent[0];
    }
    io_prep_pwrite(cb, f->fd, (void *)(uintptr_t)buf, n, (long long)off);
    if (io_submit(f->aio, 1, &cb) != 1)
        return file_pwrite(d, buf, n, off);
    f->n_sent++;
    return 0;
}

/* Once, whatever it says: after a failed flush the next one succeeds and means nothing. */
static int
file_sync(struct dev *d)
{
    return fdatasync(file_of(d)->fd) < 0 ? -errno : 0;
}

static void
file_idle(struct dev *d)
{
    struct file_dev *f = file_of(d);

    if (!f->direct)
        (void)forget_pages(f->fd, 0, 0);
}

static int
file_medium(struct dev *d, bool on)
{
    struct file_dev *f = file_of(d);
    int r;

    for (unsigned i = 0; on && i < f->n_backing; i++) {
        r = drop_cache(f->backing[i]); /* a loop device reads through its backing file's cache */
        if (r < 0)
            return r;
    }
    if (f->block && !on)
        return 0; /* stays as it is */
    if (on || f->direct) {
        r = set_direct(f, on);
        if (r == 0 && !on)
            file_idle(d);
        if (r != -EINVAL)
            return r;
    }
    return on ? drop_cache(f->fd) : 0;
}

static enum dev_news
file_begin(struct dev *d)
{
    struct lease *l = file_of(d)->lease;
    enum dev_news news = l ? lease_begin(l) : DEV_NO_NEWS;

    d->sole = l && lease_works(l) && !file_of(d)->block;
    return news;
}

static void
file_end(struct dev *d)
{
    if (file_of(d)->lease)
        lease_end(file_of(d)->lease);
}

/* The locks go with the descriptors, and so does what would make others' commits wait for us
 * (lease.h). */
static void
file_release(struct dev *d)
{
    struct file_dev *f = file_of(d);

    sending_ends(f);
    if (f->lease)
        lease_use(f->lease, -1);
    while (f->n_backing > 0)
        close(f->backing[--f->n_backing]);
    scope_close(&f->fd);
    scope_close(&f->claim);
    f->fd = f->claim = -1;
    f->direct = false;
}

static int
file_take(struct dev *d, unsigned wait_ms)
{
    struct file_dev *f = file_of(d);
    struct dev_files files = {0};
    unsigned next = 0;
    int r;

    if (!f->reopen)
        return report(-EOPNOTSUPP, "%s: cannot be opened again", d->name);
    r = f->reopen(f->reopen_arg, wait_ms, &files);
    if (r < 0)
        return r;
    file_begin(d); /* somebody may be trying to commit, in vain */
    file_release(d);
    f->fd = files.fds[next++];
    if (files.claimed)
        f->claim = files.fds[next++];
    while (next < files.n)
        f->backing[f->n_backing++] = files.fds[next++];
    f->block = d->shared = files.block;
    f->direct = files.direct;
    d->size = files.size;
    d->read_only = false;
    if (f->lease)
        lease_use(f->lease, f->fd);
    file_end(d);
    return 0;
}

static void
file_close(struct dev *d)
{
    struct file_dev *f = file_of(d);

    file_release(d);
    lease_free(f->lease);
    free(d->name);
    free(f);
}

static const struct dev_ops file_ops = {
    .pread = file_pread,
    .pwrite = file_pwrite,
    .sync = file_sync,
    .submit = file_submit,
    .wait = file_wait,
    .medium = file_medium,
    .close = file_close,
    .begin = file_begin,
    .end = file_end,
    .idle = file_idle,
    .release = file_release,
    .take = file_take,
};

/* ---- the lock ------------------------------------------------------------------------------- */

/* False when the time for waiting is over. */
static bool
wait_until(int64_t deadline)
{
    if (clock_ms() >= deadline)
        return false;
    nanosleep(&(struct timespec){.tv_nsec = LOCK_POLL_MS * 1000000L}, NULL);
    return true;
}

static int
report_busy(const char *name, const struct stat *st)
{
    AUTO_FREE char *user = S_ISBLK(st->st_mode) ? blockdev_user(st->st_rdev) : NULL;
    struct holder h;
    struct stat claim;

    if (holder_find(&h, st) || (S_ISBLK(st->st_mode) && blockdev_stat(st->st_rdev, &claim) == 0 &&
                                holder_find(&h, &claim)))
        return report(-EBUSY, "%s: in use by process %d (%s)", name, (int)h.pid, h.comm);
    if (user)
        return report(-EBUSY, "%s: in use: %s", name, user);
    return report(-EBUSY, "%s: in use by another process", name);
}

/* EBUSY and ESTALE of open(2), and the like, are not findings about an image. */
static int
report_open(const char *name, int err)
{
    int r = finding_exit_code(-err) == EXIT_FAILED ? -err : -EIO;

    return report(r, "%s: cannot open: %s", name, errno_text(-err));
}

/* 0, -EAGAIN when somebody else has it, or another errno (reported). */
static int
try_lock(int fd, const char *name, bool shared)
{
    struct flock lk = {.l_type = shared ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
    int r;

    do
        r = fcntl(fd, F_OFD_SETLK, &lk) < 0 ? -errno : 0;
    while (r == -EINTR);
    if (r == -EACCES)
        r = -EAGAIN;
    return r == 0 || r == -EAGAIN ? r : report(-EIO, "%s: cannot lock: %s", name, errno_text(r));
}

static int
lock_inode(int fd, const char *name, bool shared, int64_t deadline)
{
    struct stat st;
    int r;

    while ((r = try_lock(fd, name, shared)) == -EAGAIN && wait_until(deadline))
        ;
    if (r != -EAGAIN)
        return r;
    return fstat(fd, &st) < 0 ? report(-EBUSY, "%s: in use", name) : report_busy(name, &st);
}

/* An OFD lock hides its holder from those who may not look into our process; a flock tells it to
 * all, in /proc/locks.  On a block device udev would take it for something else. */
static void
name_holder(const struct file_dev *f, const struct stat *st)
{
    if (S_ISREG(st->st_mode) && !f->dev.read_only)
        (void)flock(f->fd, LOCK_EX | LOCK_NB); /* the lock proper is held, whatever this says */
}

/* The file behind loop device (or partition of one) @rdev: 0 and *@path, or -ENOENT when it is no
 * loop device. */
static int
loop_backing(dev_t rdev, char *path, size_t size)
{
    static const char *const forms[] = {"", "/.."};

    for (size_t i = 0; i < 2; i++) {
        AUTO_FREE char *sys = NULL;
        AUTO_FD int fd = -1;
        ssize_t n;

        if (asprintf(&sys, "/sys/dev/block/%u:%u%s/loop/backing_file", major(rdev), minor(rdev),
                     forms[i]) < 0)
            return -ENOMEM;
        fd = open(sys, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, path, size - 1);
        if (n > 0 && path[n - 1] == '\n') {
            path[n - 1] = '\0';
            return 0;
        }
    }
    return -ENOENT;
}

/* Locks what lies beneath a loop device.  A backing file that cannot be reached from here (deleted,
 * or in another mount namespace) cannot be locked, and the loop device's own lock has to do. */
static int
lock_backing(struct file_dev *f, struct stat st, int64_t deadline)
{
    char path[4096 + 16]; /* PATH_MAX and " (deleted)" */
    bool shared = f->dev.read_only;

    while (S_ISBLK(st.st_mode) && f->n_backing < BACKING_MAX &&
           loop_backing(st.st_rdev, path, sizeof path) == 0) {
        AUTO_FD int fd = open(path, (shared ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY);
        int r;

        if (fd < 0 || fstat(fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))) {
            report_at(REPORT_WARNING, 0, "%s: cannot lock %s, the file behind the loop device: %s",
                      f->dev.name, path, errno_text(-errno));
            return 0;
        }
        r = lock_inode(fd, f->dev.name, shared, deadline);
        if (r < 0)
            return r;
        f->backing[f->n_backing++] = steal_fd(&fd);
    }
    return 0;
}

/* ---- opening -------------------------------------------------------------------------------- */

static int
check_type(const char *path, const struct stat *st)
{
    if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
        return 0;
    if (S_ISDIR(st->st_mode))
        return report(-EISDIR, "%s: a directory; an image is a file or a block device", path);
    return report(-ENOTBLK, "%s: neither a regular file nor a block device", path);
}

static int
explain_open(const char *path, int how, int err)
{
    int r = (err == EACCES || err == EROFS) && how & O_EXCL ? blockdev_explain_open(path) : 0;

    return r < 0 ? r : report_open(path, err);
}

/* A block device is opened O_EXCL by writers: no mounted file system, no other writer. */
static int
open_node(const char *path, unsigned flags, int64_t deadline)
{
    int how = O_CLOEXEC | O_NOCTTY | (flags & DEV_READ_ONLY ? O_RDONLY : O_RDWR);
    struct stat st;

    if (stat(path, &st) < 0) {
        if (errno != ENOENT || !(flags & DEV_CREATE))
            return report_open(path, errno);
        how |= O_CREAT;
    } else {
        int r = check_type(path, &st); /* before open(2), which some devices take as a command */

        if (r < 0)
            return r;
        if (S_ISBLK(st.st_mode) && !(flags & DEV_READ_ONLY))
            how |= O_EXCL;
    }
    for (;;) {
        int fd = open(path, how, 0600);

        if (fd >= 0)
            return fd;
        if (errno == EBUSY && !wait_until(deadline))
            return report_busy(path, &st);
        if (errno != EBUSY && errno != EINTR)
            return explain_open(path, how, errno);
    }
}

static int
get_geometry(struct file_dev *f, const struct stat *st)
{
    int r;

    f->dev.size = (uint64_t)st->st_size;
    f->block = f->dev.shared = S_ISBLK(st->st_mode);
    if (!f->block)
        return 0;
    r = blockdev_check(f->fd, f->dev.name, f->dev.read_only);
    if (r == 0)
        r = blockdev_size(f->fd, f->dev.name, &f->dev.size);
    if (r == 0 && set_direct(f, true) == -EINVAL)
        f->direct = false; /* a driver that cannot */
    return r;
}

/* Both locks, or none: 0, -EAGAIN, or another errno (reported). */
static int
lock_node(struct file_dev *f, const struct stat *st)
{
    int r = try_lock(f->fd, f->dev.name, f->dev.read_only);

    if (r < 0 || !S_ISBLK(st->st_mode))
        return r;
    f->claim = blockdev_claim(st->st_rdev, f->dev.read_only);
    return f->claim == -EAGAIN ? -EAGAIN : 0;
}

/* Opens, and locks if that is asked for.  Closed while it waits: the holder's commits wait for
 * those who have the file open (lease.h). */
static int
open_locked(struct file_dev *f, unsigned flags, int64_t deadline, struct stat *st)
{
    const char *path = f->dev.name;
    bool lock = !(flags & DEV_READ_ONLY && flags & DEV_NO_LOCK);

    for (;;) {
        int r;

        f->fd = open_node(path, flags, deadline);
        if (f->fd < 0)
            return f->fd;
        if (fstat(f->fd, st) < 0)
            return report_open(path, errno);
        r = check_type(path, st);
        if (r == 0 && lock)
            r = lock_node(f, st);
        if (r == 0 && lock) {
            name_holder(f, st);
            return lock_backing(f, *st, deadline);
        }
        if (r != -EAGAIN)
            return r;
        close(f->fd);
        f->fd = -1;
        if (!wait_until(deadline))
            return report_busy(path, st);
    }
}

static void
file_freep(struct file_dev **f)
{
    if (*f)
        file_close(&(*f)->dev);
}

int
dev_file_open(struct dev **out, const char *path, unsigned flags)
{
    return dev_file_open_within(out, path, flags, flags & DEV_NO_WAIT ? 0 : LOCK_WAIT_MS);
}

int
dev_file_open_within(struct dev **out, const char *path, unsigned flags, unsigned wait_ms)
{
    AUTO(file_freep) struct file_dev *f = calloc(1, sizeof *f);
    int64_t deadline = clock_ms() + wait_ms;
    struct stat st;
    int r;

    if (!f)
        return report(-ENOMEM, "%s: %s", path, errno_text(-ENOMEM));
    f->dev.ops = &file_ops;
    f->dev.read_only = flags & DEV_READ_ONLY;
    f->fd = f->claim = -1;
    f->dev.name = strdup(path);
    if (!f->dev.name)
        return report(-ENOMEM, "%s: %s", path, errno_text(-ENOMEM));
    r = open_locked(f, flags, deadline, &st);
    if (r == 0)
        r = get_geometry(f, &st);
    if (r < 0)
        return r;
    *out = &steal(&f)->dev;
    return 0;
}

int
dev_file_lease(struct dev *d)
{
    struct file_dev *f = file_of(d);

    if (d->ops != &file_ops)
        return 0;
    if (!f->lease && (!d->read_only || f->reopen))
        f->lease = lease_new(f->fd);
    return f->lease || d->read_only ? 0 : report(-ENOMEM, "%s: %s", d->name, errno_text(-ENOMEM));
}

void
dev_file_lend(const struct dev *d, struct dev_files *files)
{
    const struct file_dev *f = (const struct file_dev *)d;

    *files = (struct dev_files){
        .size = d->size, .block = f->block, .direct = f->direct, .claimed = f->claim >= 0};
    files->fds[files->n++] = f->fd;
    if (files->claimed)
        files->fds[files->n++] = f->claim;
    for (unsigned i = 0; i < f->n_backing; i++)
        files->fds[files->n++] = f->backing[i];
}

void
dev_file_set_reopen(struct dev *d, dev_file_reopen *reopen, void *arg)
{
    struct file_dev *f = file_of(d);

    if (d->ops != &file_ops)
        return;
    f->reopen = reopen;
    f->reopen_arg = arg;
}

int
dev_file_resize(struct dev *d, uint64_t size)
{
    struct file_dev *f = file_of(d);
    int r;

    if (d->ops != &file_ops || f->block) {
        if (d->size >= size)
            return 0;
        return report(-ERANGE, "%s: too small: %llu bytes, %llu are needed", d->name,
                      (unsigned long long)d->size, (unsigned long long)size);
    }
    /* Allocated, not sparse: an overwrite must not find the host's file system full. */
    r = fallocate(f->fd, 0, 0, (off_t)size) < 0 ? -errno : 0;
    if (r == -EOPNOTSUPP)
        r = size > d->size && ftruncate(f->fd, (off_t)size) < 0 ? -errno : 0;
    if (r < 0)
        return report(finding_exit_code(r) == EXIT_FAILED ? r : -EIO,
                      "%s: cannot grow to %llu bytes: %s", d->name, (unsigned long long)size,
                      errno_text(r));
    if (size > d->size)
        d->size = size;
    return 0;
}
