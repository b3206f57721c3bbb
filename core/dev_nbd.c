/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/dev_nbd.h"
#include "base/clock.h"
#include "base/crc32.h"
#include "base/report.h"
#include "base/sandbox.h"
#include "base/scope.h"
#include "core/holder.h"
#include "core/nbd_link.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum {
    LOCK_POLL_MS = 10,
    TRY_MS = 5000,     /* one connection's handshake */
    ONE_TRY_MS = 1000, /* when the time for waiting is over */
    PAUSE_MIN_MS = 20, /* between two tries, doubled each time */
    PAUSE_MAX_MS = 1000,
    GUARD_NAME_MAX = 200,
    DRAIN_MS = 200, /* for requests of a lost connection that the server is still at */
    JOURNAL_MAX = 8 * 1024 * 1024, /* what is kept of many writes, before they are flushed */
};

/* A write since the last flush. */
struct pending {
    uint64_t off;
    size_t len;
    uint8_t *buf;
};

struct nbd_dev {
    struct dev dev;
    struct nbd_uri uri;
    struct nbd_link *link;
    struct nbd_export export; /* as it was at first */
    pthread_mutex_t lock;     /* guards all below; taken again by the witness' reads */
    pthread_mutex_t commits;  /* from begin to end */
    struct pending *journal;
    size_t n_journal, journal_bytes;
    uint64_t *sent; /* requests of this connection that write what is in the journal */
    size_t n_sent;
    int64_t wait_ms;
    bool committing;    /* between begin and end */
    int64_t commit_end; /* when that must be done; 0: it has not come to writing yet */
    int64_t lost;       /* when the connection was found lost; 0: it is there */
    struct dev_options opt;
    bool fua;       /* each write by itself is durable: there is nothing else */
    bool unsafe;    /* nothing is, and that is how it was asked for */
    bool asking;    /* the witness */
    bool in_flight; /* a write of a lost connection may still be done */
    int failed;     /* 0, or how every write fails from now on */
    int guard;      /* the host's lock; or -1 */
};

static const struct dev_ops nbd_ops;

static struct nbd_dev *
nbd_of(const struct dev *d)
{
    return (struct nbd_dev *)(uintptr_t)d;
}

static void
sleep_ms(int64_t ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
        ;
}

/* ---- requests on a connection -----------------------------------------------------------------
 */

static int
link_read(struct nbd_dev *n, void *buf, size_t len, uint64_t off, int64_t deadline)
{
    int r = 0;

    for (size_t done = 0; r == 0 && done < len;) {
        size_t part = len - done < n->export.most ? len - done : n->export.most;

        r = nbd_link_read(n->link, (uint8_t *)buf + done, part, off + done, deadline);
        done += part;
    }
    return r;
}

static int
send_write(struct nbd_dev *n, const struct pending *p)
{
    size_t parts = (p->len + n->export.most - 1) / n->export.most;
    uint64_t *more = reallocarray(n->sent, n->n_sent + parts, sizeof *more);
    int r = 0;

    if (!more)
        return -ENOMEM;
    n->sent = more;
    for (size_t done = 0; r == 0 && done < p->len;) {
        size_t part = p->len - done < n->export.most ? p->len - done : n->export.most;

        r = nbd_link_send_write(n->link, p->buf + done, part, p->off + done, n->fua,
                                &n->sent[n->n_sent]);
        n->n_sent += r == 0;
        done += part;
    }
    return r;
}

/* Until all that was sent is done; after an error, too, nothing is on its way any more that the
 * server of a living connection could still do. */
static int
finish_writes(struct nbd_dev *n, int64_t deadline)
{
    int r = 0;

    for (size_t i = 0; i < n->n_sent; i++) {
        int e = nbd_link_finish(n->link, n->sent[i], deadline);

        r = r < 0 ? r : e;
    }
    n->n_sent = 0;
    if (r < 0)
        n->in_flight = true;
    return r;
}

/* The connection is lost, or will be. */
static void
forget_sent(struct nbd_dev *n)
{
    if (n->n_sent == 0)
        return;
    nbd_link_drop(n->link);
    n->n_sent = 0;
    n->in_flight = true;
}

/* Part of a large one may have been sent when the connection is lost: the next one does not know
 * it. */
static int
link_write(struct nbd_dev *n, const struct pending *p, int64_t deadline)
{
    int r = send_write(n, p);

    if (r == 0)
        return finish_writes(n, deadline);
    forget_sent(n);
    return r;
}

/* ---- the journal ------------------------------------------------------------------------------
 */

static void
forget_journal(struct nbd_dev *n)
{
    for (size_t i = 0; i < n->n_journal; i++)
        free(n->journal[i].buf);
    free(n->journal);
    n->journal = NULL;
    n->n_journal = n->journal_bytes = 0;
}

static int
keep_write(struct nbd_dev *n, const void *buf, size_t len, uint64_t off)
{
    struct pending *more = reallocarray(n->journal, n->n_journal + 1, sizeof *more);
    uint8_t *copy = more ? malloc(len) : NULL;

    if (more)
        n->journal = more;
    if (!copy)
        return -ENOMEM;
    memcpy(copy, buf, len);
    more[n->n_journal++] = (struct pending){off, len, copy};
    n->journal_bytes += len;
    return 0;
}

static int
replay(struct nbd_dev *n, int64_t deadline)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n->n_journal; i++)
        r = link_write(n, &n->journal[i], deadline);
    return r;
}

/* The last word on a write: whatever may lie there now, nothing more is written. */
static int
fail_writes(struct nbd_dev *n, int r)
{
    n->failed = r;
    forget_sent(n);
    forget_journal(n);
    return r;
}

/* ---- a lost connection ------------------------------------------------------------------------
 */

/* Another export, or one that promises less: 0, or reported.  One whose blocks do not fit cannot
 * even be read. */
static int
check_export(const struct nbd_dev *n, const struct nbd_export *e)
{
    const char *name = n->dev.name;

    if (BLOCK_SIZE % e->block != 0)
        return report(-EIO, "%s: demands blocks of %" PRIu32 " bytes after reconnecting", name,
                      e->block);
    if (n->failed)
        return 0;
    if (e->size != n->export.size)
        return report(-EIO, "%s: has %" PRIu64 " bytes after reconnecting, and had %" PRIu64, name,
                      e->size, n->export.size);
    if (n->dev.read_only)
        return 0;
    if (e->read_only)
        return report(-EIO, "%s: is read-only after reconnecting", name);
    if (!n->unsafe && (n->fua ? !e->fua : !e->flush))
        return report(-EIO, "%s: cannot flush any more after reconnecting", name);
    return 0;
}

/* What is there is what was flushed there, perhaps with some of what was not.  Once writes have
 * failed none will come, and the store no longer knows what the last of them may have left. */
static int
ask_witness(struct nbd_dev *n)
{
    int r;

    if (!n->dev.witness || n->failed)
        return 0;
    n->asking = true;
    r = n->dev.witness(n->dev.witness_arg, &n->dev);
    n->asking = false;
    /* A connection that was lost meanwhile says nothing about the image. */
    return r < 0 && !nbd_link_is_up(n->link) ? -ENOTCONN : r;
}

static int
look_and_replay(struct nbd_dev *n, const struct nbd_export *e, int64_t deadline, const char **why)
{
    int r = check_export(n, e);

    *why = "the export is not what it was when the connection was lost";
    if (r < 0)
        return r;
    n->export.most = e->most;
    if (n->in_flight)
        sleep_ms(DRAIN_MS);
    r = ask_witness(n);
    /* A server that has just come back may not have its disk yet: as good as no connection, for as
     * long as that is waited for. */
    if (r == -EIO && clock_ms() + PAUSE_MAX_MS < deadline) {
        nbd_link_drop(n->link);
        return -ENOTCONN;
    }
    *why = r == -EUCLEAN ? "the image is not what it was when the connection was lost"
           : r == -EBUSY ? "another host has taken the image over"
                         : "the image cannot be read after reconnecting";
    if (r < 0)
        return r;
    r = replay(n, deadline);
    *why = "a write failed after reconnecting";
    return r;
}

/* On a new connection, until all is as before the loss: 0, or -ENOTCONN, -ENOMEM: not yet.  All
 * else is for good, also when it is a read that has come here: nothing is written any more. */
static int
restore(struct nbd_dev *n, const struct nbd_export *e, int64_t deadline)
{
    const char *why;
    int r = look_and_replay(n, e, deadline, &why);

    if (r == 0) {
        n->in_flight = false;
    } else if (r != -ENOTCONN && r != -ENOMEM && !n->failed) {
        fail_writes(n, r);
        if (n->dev.fail)
            n->dev.fail(n->dev.witness_arg, r, why);
    }
    if (BLOCK_SIZE % e->block != 0)
        nbd_link_drop(n->link);
    return r;
}

static int64_t
earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When to stop trying; a try is always made. */
static int64_t
patience(const struct nbd_dev *n, int64_t deadline, int64_t now)
{
    int64_t end = earlier(deadline, n->lost + n->wait_ms);

    return end > now + ONE_TRY_MS ? end : now + ONE_TRY_MS;
}

/* 0: there is a connection, to read from at least; whoever writes asks .failed, too. */
static int
reconnect(struct nbd_dev *n, int64_t deadline)
{
    int64_t now = clock_ms(), pause = PAUSE_MIN_MS, end;
    bool told = n->lost != 0;
    int r;

    if (!n->lost)
        n->lost = now;
    forget_sent(n);
    end = patience(n, deadline, now);
    for (;;) {
        struct nbd_export e;

        r = nbd_link_connect(n->link, &e, earlier(end, clock_ms() + TRY_MS));
        if (r == 0)
            r = restore(n, &e, end);
        if (r != -ENOTCONN || clock_ms() + pause >= end)
            break;
        if (!told)
            report_at(REPORT_WARNING, 0,
                      "%s: the connection is lost (%s); trying for %" PRId64 " s", n->dev.name,
                      nbd_link_error(n->link), (end - now + 999) / 1000);
        told = true;
        sleep_ms(pause);
        pause = pause * 2 < PAUSE_MAX_MS ? pause * 2 : PAUSE_MAX_MS;
    }
    if (n->failed && r != -ENOTCONN && nbd_link_is_up(n->link))
        r = 0;
    if (r == 0) {
        report_at(REPORT_NOTICE, 0, "%s: connected again", n->dev.name);
        n->lost = 0;
    } else if (r == -ENOTCONN) {
        r = report(-ETIMEDOUT, "%s: no connection: %s", n->dev.name, nbd_link_error(n->link));
    }
    if (r < 0)
        nbd_link_drop(n->link);
    return r;
}

/* ---- the operations ---------------------------------------------------------------------------
 */

/* How long an answer may take: some time also for those who do not wait for a lost connection. */
static int64_t
answer_ms(const struct nbd_dev *n)
{
    return n->wait_ms > ONE_TRY_MS ? n->wait_ms : ONE_TRY_MS;
}

static int64_t
deadline_of(const struct nbd_dev *n)
{
    return n->commit_end ? n->commit_end : clock_ms() + answer_ms(n);
}

/* The same, of what writes.  A commit's time begins with its first write: before that it may have
 * waited for others. */
static int64_t
write_deadline_of(struct nbd_dev *n)
{
    if (n->committing && !n->commit_end)
        n->commit_end = clock_ms() + answer_ms(n);
    return deadline_of(n);
}

static int
nbd_dev_pread(struct dev *d, void *buf, size_t n, uint64_t off)
{
    struct nbd_dev *nd = nbd_of(d);
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&nd->lock);
    uint64_t there = off >= d->size ? 0 : d->size - off;
    size_t len = there < n ? (size_t)there : n;
    int64_t deadline = deadline_of(nd);
    int r;

    while ((r = link_read(nd, buf, len, off, deadline)) == -ENOTCONN && !nd->asking) {
        r = reconnect(nd, deadline);
        if (r < 0)
            break;
    }
    /* The server is slow, and with the read the writes that it has were given up: it may do them at
     * any later time. */
    if (r == -ETIMEDOUT && nd->n_sent > 0)
        (void)fail_writes(nd, r);
    return r < 0 ? r : len < n ? -ERANGE : 0;
}

/* Until the server has done all that was sent, on this connection or another.  What was on its way
 * when a read found the connection lost, and nobody there, is still to be sent again. */
static int
complete(struct nbd_dev *n, int64_t deadline)
{
    int r = n->lost ? -ENOTCONN : finish_writes(n, deadline);

    if (r == -ENOTCONN)
        r = reconnect(n, deadline); /* which writes it, too */
    return r < 0 ? r : n->failed;
}

/* Until all that was written is durable, and need not be kept. */
static int
flush(struct nbd_dev *n, int64_t deadline)
{
    int r = complete(n, deadline); /* a flush is for what is done already */

    if (r == 0 && !n->fua && !n->unsafe) {
        while ((r = nbd_link_flush(n->link, deadline)) == -ENOTCONN) {
            r = reconnect(n, deadline);
            if (r < 0 || n->failed)
                break;
        }
    }
    if (r < 0)
        return fail_writes(n, r);
    forget_journal(n);
    return n->failed;
}

/* The writes of a commit are on their way together.  Who zeroes a large image flushes in between:
 * it takes no more memory, and nothing can be on the medium after a power cut that could not be
 * there without. */
static int
nbd_dev_submit(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    struct nbd_dev *nd = nbd_of(d);
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&nd->lock);
    int64_t deadline = write_deadline_of(nd);
    int r = nd->failed;

    if (r == 0 && nd->n_journal > 0 && nd->journal_bytes + n > JOURNAL_MAX)
        r = flush(nd, deadline);
    if (r < 0)
        return r;
    r = keep_write(nd, buf, n, off);
    if (r < 0)
        return fail_writes(nd, r);
    r = send_write(nd, &nd->journal[nd->n_journal - 1]);
    if (r == -ENOTCONN)
        r = reconnect(nd, deadline); /* which writes it, too */
    return r < 0 ? fail_writes(nd, r) : nd->failed;
}

/* What no longer is on its way has been reported, or is when it is flushed. */
static int
nbd_dev_wait(struct dev *d)
{
    struct nbd_dev *nd = nbd_of(d);
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&nd->lock);
    int r = nd->n_sent > 0 ? complete(nd, write_deadline_of(nd)) : 0;

    return r < 0 ? fail_writes(nd, r) : 0;
}

static int
nbd_dev_pwrite(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    int r = nbd_dev_submit(d, buf, n, off);

    return r < 0 ? r : nbd_dev_wait(d);
}

static int
nbd_dev_sync(struct dev *d)
{
    struct nbd_dev *nd = nbd_of(d);
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&nd->lock);

    return nd->failed ? nd->failed : flush(nd, write_deadline_of(nd));
}

/* What caches the server has it keeps to itself. */
static int
nbd_dev_medium(struct dev *d, bool on)
{
    (void)d, (void)on;
    return 0;
}

static enum dev_news
nbd_dev_begin(struct dev *d)
{
    struct nbd_dev *n = nbd_of(d);

    pthread_mutex_lock(&n->commits);
    pthread_mutex_lock(&n->lock);
    n->committing = true;
    pthread_mutex_unlock(&n->lock);
    return DEV_NO_NEWS;
}

static void
nbd_dev_end(struct dev *d)
{
    struct nbd_dev *n = nbd_of(d);

    pthread_mutex_lock(&n->lock);
    n->committing = false;
    n->commit_end = 0;
    pthread_mutex_unlock(&n->lock);
    pthread_mutex_unlock(&n->commits);
}

/* ---- one writer on this host ------------------------------------------------------------------
 */

/* Where only we, or only root, can make files: NULL when there is no such place. */
static char *
guard_directory(void)
{
    const char *run = geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");
    char *dir;

    if (!run || *run != '/' || asprintf(&dir, "%s/vnvram-nbd", run) < 0)
        return NULL;
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
        free(dir);
        return NULL;
    }
    return dir;
}

/* A file of the export's name in it, which stays: removing it would let two lock two files. */
static int
open_guard(const char *place)
{
    AUTO_FREE char *dir = guard_directory(), *name = NULL;
    AUTO_FD int at = dir ? open(dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;

    if (at < 0 || asprintf(&name, "%08" PRIx32 "-%.*s", crc32_of(place, strlen(place)),
                           GUARD_NAME_MAX, place) < 0)
        return -1;
    for (char *p = name; *p; p++)
        *p = *p == '/' ? '_' : *p;
    return openat(at, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
}

static int
report_busy(const struct nbd_dev *n)
{
    struct holder h;
    struct stat st;

    if (fstat(n->guard, &st) == 0 && holder_find(&h, &st))
        return report(-EBUSY, "%s: in use by process %d (%s)", n->dev.name, (int)h.pid, h.comm);
    return report(-EBUSY, "%s: in use by another process", n->dev.name);
}

/* The protocol has no locks, so this is between us on one host.  The file stays open, also of who
 * has let the lock go: a sandbox opens nothing. */
static int
take_guard(struct nbd_dev *n, unsigned wait_ms)
{
    struct flock lk = {.l_type = n->dev.read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
    int64_t deadline = clock_ms() + wait_ms;

    if (n->guard < 0)
        return report_at(REPORT_WARNING, 0,
                         "%s: there is no place for a lock: nothing keeps a second writer out",
                         n->dev.name);
    while (fcntl(n->guard, F_OFD_SETLK, &lk) < 0) {
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return report(-EIO, "%s: cannot lock: %s", n->dev.name, errno_text(-errno));
        if (clock_ms() >= deadline)
            return report_busy(n);
        sleep_ms(LOCK_POLL_MS);
    }
    return 0;
}

/* ---- connecting -------------------------------------------------------------------------------
 */

static int
choose_durability(struct nbd_dev *n)
{
    const struct nbd_export *e = &n->export;

    if (n->dev.read_only)
        return 0;
    if (e->read_only)
        return report(-EROFS, "%s: is a read-only export; what to do: mount it with -o ro",
                      n->dev.name);
    n->fua = !e->flush && e->fua;
    n->unsafe = false;
    if (e->flush || e->fua)
        return 0;
    if (!n->opt.unsafe_cache)
        return report(
            -EOPNOTSUPP,
            "%s: the server cannot flush: what it acknowledges, a power cut may take away; "
            "-o unsafe_cache takes it all the same",
            n->dev.name);
    n->unsafe = true;
    return report_at(REPORT_WARNING, 0,
                     "%s: unsafe_cache: what is acknowledged may be lost when the server is",
                     n->dev.name);
}

static int
connect_first(struct nbd_dev *n, int64_t deadline)
{
    int r = nbd_link_connect(n->link, &n->export, deadline);

    if (r < 0)
        return report(-EIO, "%s: cannot connect: %s", n->dev.name,
                      r == -ENOTCONN ? nbd_link_error(n->link) : errno_text(r));
    if (BLOCK_SIZE % n->export.block != 0)
        return report(-EOPNOTSUPP, "%s: demands blocks of %" PRIu32 " bytes: an image's are %d",
                      n->dev.name, n->export.block, BLOCK_SIZE);
    n->dev.size = n->export.size;
    return choose_durability(n);
}

static void
nbd_dev_release(struct dev *d)
{
    struct nbd_dev *n = nbd_of(d);
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&n->lock);
    struct flock lk = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    nbd_link_hang_up(n->link);
    n->n_sent = 0;
    forget_journal(n);
    if (n->guard >= 0)
        (void)fcntl(n->guard, F_OFD_SETLK, &lk);
}

static int
nbd_dev_take(struct dev *d, unsigned wait_ms)
{
    struct nbd_dev *n = nbd_of(d);
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&n->lock);
    int r;

    n->dev.read_only = n->in_flight = false;
    n->failed = 0;
    n->lost = 0;
    r = take_guard(n, wait_ms);
    if (r == 0)
        r = connect_first(n, clock_ms() + (wait_ms > TRY_MS ? wait_ms : TRY_MS));
    if (r < 0)
        nbd_dev_release(d);
    return r;
}

static void
nbd_dev_close(struct dev *d)
{
    struct nbd_dev *n = nbd_of(d);

    nbd_link_free(n->link);
    nbd_uri_fini(&n->uri);
    forget_journal(n);
    free(n->sent);
    scope_close(&n->guard);
    pthread_mutex_destroy(&n->lock);
    pthread_mutex_destroy(&n->commits);
    free(d->name);
    free(n);
}

static const struct dev_ops nbd_ops = {
    .pread = nbd_dev_pread,
    .pwrite = nbd_dev_pwrite,
    .sync = nbd_dev_sync,
    .submit = nbd_dev_submit,
    .wait = nbd_dev_wait,
    .medium = nbd_dev_medium,
    .close = nbd_dev_close,
    .begin = nbd_dev_begin,
    .end = nbd_dev_end,
    .release = nbd_dev_release,
    .take = nbd_dev_take,
};

/* ---- opening ----------------------------------------------------------------------------------
 */

static struct nbd_dev *
new_dev(void)
{
    struct nbd_dev *n = calloc(1, sizeof *n);
    pthread_mutexattr_t attr;

    if (!n)
        return NULL;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&n->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    pthread_mutex_init(&n->commits, NULL);
    n->dev.ops = &nbd_ops;
    n->dev.shared = true;
    n->guard = -1;
    return n;
}

static void
free_dev(struct nbd_dev **n)
{
    if (*n)
        nbd_dev_close(&(*n)->dev);
}

int
dev_nbd_open(struct dev **out, const char *uri, unsigned flags, const struct dev_options *opt)
{
    AUTO(free_dev) struct nbd_dev *n = new_dev();
    AUTO_FREE char *place = NULL;
    int r = n ? nbd_uri_parse(&n->uri, uri) : -ENOMEM;

    if (r == 0) {
        n->dev.name = nbd_uri_text(&n->uri);
        place = nbd_uri_place(&n->uri);
        r = n->dev.name && place ? 0 : -ENOMEM;
    }
    if (r == -ENOMEM)
        return report(r, "%s: %s", uri, errno_text(r));
    if (r < 0)
        return r;
    n->dev.read_only = flags & DEV_READ_ONLY;
    n->opt = *opt;
    n->wait_ms = (int64_t)opt->reconnect_s * 1000;
    n->guard = open_guard(place);
    if (!(n->dev.read_only && flags & DEV_NO_LOCK))
        r = take_guard(n, flags & DEV_NO_WAIT ? 0 : LOCK_WAIT_MS);
    if (r == 0)
        r = nbd_link_new(&n->link, &n->uri, n->dev.name);
    if (r == 0)
        r = connect_first(n, clock_ms() + (n->wait_ms > TRY_MS ? n->wait_ms : TRY_MS));
    if (r < 0)
        return r;
    *out = &steal(&n)->dev;
    return 0;
}

/* ---- what it is -------------------------------------------------------------------------------
 */

void
dev_sandbox(const struct dev *d, struct sandbox_connect *c)
{
    *c = (struct sandbox_connect){0};
    if (d->ops == &nbd_ops)
        nbd_link_sandbox(nbd_of(d)->link, c);
}

bool
dev_is_exposed(const struct dev *d)
{
    return d->ops == &nbd_ops && nbd_link_is_exposed(nbd_of(d)->link);
}
