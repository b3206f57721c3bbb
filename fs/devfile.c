/* SPDX-License-Identifier: BSD-3-Clause */
/* Locks: only d->lock here; it is taken inside libfuse's request lock (by on_interrupt) and held
 * around cmddev_submit() and fuse_req_interrupted(), never around a reply, a notification or
 * fuse_req_interrupt_func(), which may call on_interrupt() at once. */
#include "fs/devfile.h"
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

enum { HEADER_SIZE = 10, OFF_SIZE = 2 };
enum { OPEN_WAIT_S = 2 };

/* What the one client's open file holds. */
struct client {
    uint64_t id;     /* its fi->fh, never 0; 0: nobody has the device */
    bool waiting;    /* a command of this client's is outstanding or queued */
    bool queued;     /* ... queued in buf, behind a former client's */
    bool touched;    /* some of the response was read */
    bool closed;     /* a close(2) was the last that came from it: its release may be on the way */
    int error;       /* the response is this instead, to be told once */
    size_t off, len; /* buf[off..len) is response that nobody has read */
    uint8_t buf[CMDDEV_MAX];
    struct fuse_pollhandle *poll;
    fuse_req_t reader; /* the read that waits for the response */
    size_t want;
    bool interrupted; /* ... and shall be told EINTR */
};

/* The open(2) that waits for the release of a client that has closed. */
struct opener {
    fuse_req_t req; /* NULL: there is none */
    int flags;
    bool interrupted;
    struct timespec until; /* CLOCK_MONOTONIC; then it is told EBUSY */
};

struct devfile {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct cmddev *dev;
    struct client client;
    struct opener opener;
    uint64_t last_id;
    bool busy;       /* a command is outstanding: on_done() will come */
    uint64_t runner; /* ... whose it is; a client that has gone gets no response */
    bool closing;    /* the interrupter shall end */
    bool orphaned;   /* on_done() shall free it */
    pthread_t interrupter;
};

/* What to send once the lock is free again. */
struct answer {
    fuse_req_t reader;
    int error;
    size_t len;
    uint8_t buf[CMDDEV_MAX];
    struct fuse_pollhandle *poll;
};

static void
answer_send(const struct answer *a)
{
    if (a->reader && a->error)
        fuse_reply_err(a->reader, a->error);
    else if (a->reader)
        fuse_reply_buf(a->reader, (const char *)a->buf, a->len);
    if (a->poll) {
        fuse_lowlevel_notify_poll(a->poll);
        fuse_pollhandle_destroy(a->poll);
    }
}

/* Moves up to @want bytes of the response, or its error, to @a. */
static void
take_response(struct client *c, struct answer *a, size_t want)
{
    size_t left = c->len - c->off;

    a->error = c->error;
    c->error = 0;
    a->len = want < left ? want : left;
    memcpy(a->buf, c->buf + c->off, a->len);
    c->off += a->len;
    c->touched = true;
}

/* The client's response (@r, or @len bytes) is there: store it, serve the waiting read. */
static void
client_respond(struct client *c, struct answer *a, int r, const uint8_t *resp, size_t len)
{
    c->waiting = c->queued = c->touched = false;
    c->off = 0;
    c->len = r < 0 ? 0 : len;
    c->error = r < 0 ? -r : 0;
    memcpy(c->buf, resp, c->len);
    a->poll = steal(&c->poll);
    if (!c->reader || c->interrupted)
        return; /* an interrupted one gets EINTR; its next try gets this */
    a->reader = steal(&c->reader);
    take_response(c, a, c->want);
}

static void on_done(void *arg, int r, const uint8_t *resp, size_t len);

static int
submit(struct devfile *d, const uint8_t *cmd, size_t len)
{
    int r = cmddev_submit(d->dev, cmd, len, on_done, d);

    if (r < 0)
        return r;
    d->busy = true;
    d->runner = d->client.id;
    return 0;
}

static void
destroy(struct devfile *d)
{
    pthread_cond_destroy(&d->wake);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

/* The device's thread: a command has ended. */
static void
on_done(void *arg, int r, const uint8_t *resp, size_t len)
{
    struct devfile *d = arg;
    struct client *c = &d->client;
    struct answer a = {0};

    if (len > CMDDEV_MAX)
        r = -EIO;
    pthread_mutex_lock(&d->lock);
    d->busy = false;
    if (d->orphaned) {
        pthread_mutex_unlock(&d->lock);
        destroy(d);
        return;
    }
    if (c->id && c->id == d->runner) {
        client_respond(c, &a, r, resp, len);
    } else if (c->id && c->queued) {
        c->queued = false;
        r = submit(d, c->buf, c->len);
        if (r < 0)
            client_respond(c, &a, r, c->buf, 0);
    }
    pthread_mutex_unlock(&d->lock);
    answer_send(&a);
}

/* libfuse's thread, with the request's lock held: no place for a reply. */
static void
on_interrupt(fuse_req_t req, void *arg)
{
    struct devfile *d = arg;

    pthread_mutex_lock(&d->lock);
    if (d->client.reader == req) {
        d->client.interrupted = true;
        pthread_cond_signal(&d->wake);
    }
    if (d->opener.req == req) {
        d->opener.interrupted = true;
        pthread_cond_signal(&d->wake);
    }
    pthread_mutex_unlock(&d->lock);
}

static bool
is_over(const struct timespec *until)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > until->tv_sec ||
           (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec);
}

/* A request that has waited enough, and what to tell it; NULL: there is none. */
static fuse_req_t
take_overdue(struct devfile *d, int *error)
{
    *error = EINTR;
    if (d->client.reader && d->client.interrupted)
        return steal(&d->client.reader);
    if (d->opener.req && d->opener.interrupted)
        return steal(&d->opener.req);
    *error = EBUSY;
    return d->opener.req && is_over(&d->opener.until) ? steal(&d->opener.req) : NULL;
}

static void *
interrupter(void *arg)
{
    struct devfile *d = arg;

    pthread_mutex_lock(&d->lock);
    while (!d->closing) {
        int error;
        fuse_req_t req = take_overdue(d, &error);

        if (!req) {
            struct timespec until = d->opener.until;

            if (d->opener.req)
                pthread_cond_timedwait(&d->wake, &d->lock, &until);
            else
                pthread_cond_wait(&d->wake, &d->lock);
            continue;
        }
        pthread_mutex_unlock(&d->lock);
        fuse_reply_err(req, error);
        pthread_mutex_lock(&d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

int
devfile_new(struct devfile **out, struct cmddev *dev)
{
    AUTO_FREE struct devfile *d = calloc(1, sizeof *d);
    pthread_condattr_t monotonic;
    int r;

    if (!d)
        return report(-ENOMEM, "no memory for the TPM's device file");
    d->dev = dev;
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&d->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    r = pthread_create(&d->interrupter, NULL, interrupter, d);
    if (r)
        return report(-r, "cannot start a thread for the TPM's device file: %s", errno_text(r));
    *out = steal(&d);
    return 0;
}

/* The id of the new client; 0: who opens with @flags only reads; -EBUSY. */
static int
claim(struct devfile *d, int flags, uint64_t *id)
{
    if (d->client.id)
        return -EBUSY;
    *id = 0;
    if ((flags & O_ACCMODE) == O_RDONLY)
        return 0;
    *id = ++d->last_id;
    d->client = (struct client){.id = *id, .touched = true};
    return 0;
}

static void unclaim(struct devfile *d, uint64_t id);

static void
grant(struct devfile *d, fuse_req_t req, uint64_t id)
{
    /* A stream has no file position, for which a write would queue, unkillable, behind a waiting
     * read. */
    struct fuse_open_out out = {.fh = id,
                                .open_flags = FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE | FOPEN_STREAM};

    if (fuse_reply_buf(req, (const char *)&out, sizeof out) < 0)
        unclaim(d, id); /* the open was interrupted: no release will come */
}

/* The client @id goes, and who waits for that comes. */
static void
unclaim(struct devfile *d, uint64_t id)
{
    struct client *c = &d->client;
    struct answer a = {.error = EIO};
    fuse_req_t next = NULL;
    uint64_t next_id = 0;
    bool cancel = false;

    pthread_mutex_lock(&d->lock);
    if (id && c->id == id) {
        a.reader = steal(&c->reader);
        a.poll = steal(&c->poll);
        cancel = d->busy && d->runner == id;
        explicit_bzero(c, sizeof *c);
        next = steal(&d->opener.req);
        if (next)
            claim(d, d->opener.flags, &next_id);
    }
    pthread_mutex_unlock(&d->lock);
    if (cancel)
        cmddev_cancel(d->dev);
    answer_send(&a);
    if (next)
        grant(d, next, next_id);
}

/* Whether the open is to wait.  One does at a time. */
static bool
queue_open(struct devfile *d, fuse_req_t req, int flags)
{
    struct opener *o = &d->opener;

    if (!d->client.closed || o->req || fuse_req_interrupted(req))
        return false;
    *o = (struct opener){.req = req, .flags = flags};
    clock_gettime(CLOCK_MONOTONIC, &o->until);
    o->until.tv_sec += OPEN_WAIT_S;
    pthread_cond_signal(&d->wake);
    return true;
}

void
devfile_open(struct devfile *d, fuse_req_t req, const struct fuse_file_info *fi)
{
    bool waits = false;
    uint64_t id;
    int r;

    if (cmddev_is_taken(d->dev)) {
        fuse_reply_err(req, EBUSY);
        return;
    }
    fuse_req_interrupt_func(req, on_interrupt, d);
    pthread_mutex_lock(&d->lock);
    r = claim(d, fi->flags, &id);
    if (r < 0)
        waits = queue_open(d, req, fi->flags);
    pthread_mutex_unlock(&d->lock);
    if (r == 0)
        grant(d, req, id);
    else if (!waits)
        fuse_reply_err(req, -r);
}

void
devfile_flush(struct devfile *d, fuse_req_t req, const struct fuse_file_info *fi)
{
    pthread_mutex_lock(&d->lock);
    if (fi->fh && d->client.id == fi->fh)
        d->client.closed = true;
    pthread_mutex_unlock(&d->lock);
    fuse_reply_err(req, 0);
}

/* It was one of several descriptors that was closed. */
static void
is_still_open(struct client *c, uint64_t id)
{
    if (c->id == id)
        c->closed = false;
}

void
devfile_read(struct devfile *d, fuse_req_t req, size_t size, const struct fuse_file_info *fi)
{
    struct client *c = &d->client;
    struct answer a = {.reader = req};

    fuse_req_interrupt_func(req, on_interrupt, d);
    pthread_mutex_lock(&d->lock);
    is_still_open(c, fi->fh);
    if (!fi->fh || c->id != fi->fh || !size) {
        a.len = 0;
    } else if (!c->waiting) {
        take_response(c, &a, size);
    } else if (c->reader) {
        a.error = EBUSY;
    } else if (fuse_req_interrupted(req)) {
        a.error = EINTR; /* on_interrupt() came too early to find it */
    } else {
        c->reader = steal(&a.reader);
        c->want = size;
        c->interrupted = false;
    }
    pthread_mutex_unlock(&d->lock);
    answer_send(&a);
}

/* A command must say its own length: a short write (RLIMIT_FSIZE, a full pipe) must not become a
 * wrong command. */
static int
check_command(const uint8_t *cmd, size_t len)
{
    if (len > CMDDEV_MAX)
        return -E2BIG;
    if (len < HEADER_SIZE || load_be32(cmd + OFF_SIZE) != len)
        return -EINVAL;
    return 0;
}

static int
put_command(struct devfile *d, const uint8_t *cmd, size_t len, uint64_t id)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&d->lock);
    struct client *c = &d->client;
    int r = check_command(cmd, len);

    is_still_open(c, id);
    if (!id || c->id != id)
        return -EBADF;
    if (r < 0)
        return r;
    if (c->waiting || !c->touched)
        return -EBUSY;
    if (!d->busy) {
        r = submit(d, cmd, len);
        if (r < 0)
            return r;
    } else {
        memcpy(c->buf, cmd, len);
        c->queued = true;
    }
    c->waiting = true;
    c->error = 0;
    c->off = 0;
    c->len = c->queued ? len : 0;
    return 0;
}

void
devfile_write(struct devfile *d, fuse_req_t req, const void *buf, size_t len,
              const struct fuse_file_info *fi)
{
    int r = put_command(d, buf, len, fi->fh);

    if (r < 0)
        fuse_reply_err(req, -r);
    else
        fuse_reply_write(req, len);
}

void
devfile_poll(struct devfile *d, fuse_req_t req, const struct fuse_file_info *fi,
             struct fuse_pollhandle *ph)
{
    struct client *c = &d->client;
    unsigned int events = POLLIN | POLLRDNORM; /* who only reads is at the end at once */

    pthread_mutex_lock(&d->lock);
    is_still_open(c, fi->fh);
    if (fi->fh && c->id == fi->fh) {
        if (c->waiting)
            events = 0;
        else if (c->off == c->len && !c->error)
            events = POLLOUT | POLLWRNORM;
        if (ph) {
            struct fuse_pollhandle *old = c->poll;

            c->poll = ph;
            ph = old;
        }
    }
    pthread_mutex_unlock(&d->lock);
    if (ph)
        fuse_pollhandle_destroy(ph);
    fuse_reply_poll(req, events);
}

void
devfile_release(struct devfile *d, fuse_req_t req, const struct fuse_file_info *fi)
{
    unclaim(d, fi->fh);
    fuse_reply_err(req, 0);
}

void
devfile_free(struct devfile *d)
{
    struct answer a = {.error = ENODEV};
    fuse_req_t opener;
    bool busy;

    if (!d)
        return;
    pthread_mutex_lock(&d->lock);
    d->closing = true;
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->lock);
    pthread_join(d->interrupter, NULL);
    pthread_mutex_lock(&d->lock);
    a.reader = steal(&d->client.reader);
    opener = steal(&d->opener.req);
    if (d->client.poll)
        fuse_pollhandle_destroy(steal(&d->client.poll));
    explicit_bzero(&d->client, sizeof d->client);
    busy = d->orphaned = d->busy;
    pthread_mutex_unlock(&d->lock);
    answer_send(&a);
    if (opener)
        fuse_reply_err(opener, ENODEV);
    if (!busy)
        destroy(d);
}
