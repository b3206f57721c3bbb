/* SPDX-License-Identifier: BSD-3-Clause */
/* tpm0 in the hands of clients: each byte is a request of one of two files (or of the device), the
 * next one its size.  This file stands in libfuse's place. */
#include "fs/devfile.h"
#include "base/report.h"
#include "tests/fuzz/fuzz.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

/* ---- libfuse's double ---- */
enum { REQUESTS = 256 };

struct fuse_req {
    atomic_int replies; /* an interrupted read is answered by another thread */
    int error;
    size_t len;
    uint8_t buf[sizeof(struct fuse_open_out)];
    fuse_interrupt_func_t on_interrupt;
    void *interrupt_arg;
    bool interrupted;
};

struct fuse_pollhandle {
    unsigned long number;
};

static pthread_mutex_t lock =
    PTHREAD_MUTEX_INITIALIZER; /* notifications come from another thread */
static long handles;

static int
reply(fuse_req_t req, int error, const void *buf, size_t len)
{
    req->error = error;
    req->len = len;
    if (buf && len <= sizeof req->buf)
        memcpy(req->buf, buf, len);
    MUST(atomic_fetch_add(&req->replies, 1) == 0);
    return 0;
}

int
fuse_reply_err(fuse_req_t req, int err)
{
    MUST(err >= 0);
    return reply(req, err, NULL, 0);
}

int
fuse_reply_buf(fuse_req_t req, const char *buf, size_t size)
{
    return reply(req, 0, buf, size);
}

int
fuse_reply_write(fuse_req_t req, size_t count)
{
    return reply(req, 0, NULL, count);
}

int
fuse_reply_poll(fuse_req_t req, unsigned revents)
{
    (void)revents;
    return reply(req, 0, NULL, 0);
}

int
fuse_lowlevel_notify_poll(struct fuse_pollhandle *ph)
{
    MUST(ph != NULL);
    return 0;
}

void
fuse_pollhandle_destroy(struct fuse_pollhandle *ph)
{
    if (!ph)
        return;
    pthread_mutex_lock(&lock);
    handles--;
    pthread_mutex_unlock(&lock);
    free(ph);
}

void
fuse_req_interrupt_func(fuse_req_t req, fuse_interrupt_func_t func, void *data)
{
    req->on_interrupt = func;
    req->interrupt_arg = data;
    if (req->interrupted && func)
        func(req, data);
}

int
fuse_req_interrupted(fuse_req_t req)
{
    return req->interrupted;
}

/* ---- a device that answers when it is told to ---- */
static struct {
    struct cmddev cmddev;
    cmddev_done *done;
    void *arg;
    int refuse;
} device;

static int
submit(struct cmddev *c, const uint8_t *cmd, size_t len, cmddev_done *done, void *arg)
{
    (void)c;
    MUST(cmd != NULL && len > 0 && len <= CMDDEV_MAX && !device.done);
    if (device.refuse)
        return device.refuse;
    device.done = done;
    device.arg = arg;
    return 0;
}

static void
cancel(struct cmddev *c)
{
    (void)c;
}

static const struct cmddev_ops device_ops = {.submit = submit, .cancel = cancel};

static void
answer(int r, size_t len)
{
    static const uint8_t response[CMDDEV_MAX] = {0x80, 1};
    cmddev_done *done = device.done;

    if (!done)
        return;
    device.done = NULL;
    done(device.arg, r, response, r < 0 ? 0 : len);
}

/* ---- the clients ---- */
struct file {
    bool open;
    struct fuse_file_info fi;
    struct fuse_req *reading;
};

static struct fuse_req requests[REQUESTS];
static size_t n_requests;

static struct fuse_req *
new_request(void)
{
    struct fuse_req *req = &requests[n_requests++];

    *req = (struct fuse_req){0};
    return req;
}

static void
do_open(struct devfile *d, struct file *f, int flags)
{
    struct fuse_req *req = new_request();
    struct fuse_open_out out;

    f->fi = (struct fuse_file_info){.flags = flags};
    devfile_open(d, req, &f->fi);
    MUST(req->replies == 1);
    if (req->error)
        return;
    MUST(req->len == sizeof out);
    memcpy(&out, req->buf, sizeof out);
    f->fi.fh = out.fh;
    f->open = true;
}

/* A command whose header says its size, or lies. */
static void
do_write(struct devfile *d, struct file *f, size_t len, bool lie)
{
    static uint8_t cmd[2 * CMDDEV_MAX] = {0x80, 1};
    struct fuse_req *req = new_request();

    len *= 40; /* up to past CMDDEV_MAX */
    cmd[4] = (uint8_t)((len + lie) >> 8);
    cmd[5] = (uint8_t)(len + lie);
    devfile_write(d, req, cmd, len, &f->fi);
    MUST(req->replies == 1 && (req->error || req->len == len));
}

static void
do_read(struct devfile *d, struct file *f, size_t size)
{
    struct fuse_req *req;

    if (f->reading && f->reading->replies == 0 && size % 3)
        return; /* two readers at once: sometimes */
    req = new_request();
    devfile_read(d, req, size, &f->fi);
    if (req->replies == 0)
        f->reading = req;
    MUST(req->replies == 0 || req->error || req->len <= size);
}

static void
do_poll(struct devfile *d, struct file *f, bool with_handle)
{
    struct fuse_req *req = new_request();
    struct fuse_pollhandle *ph = with_handle ? calloc(1, sizeof *ph) : NULL;

    if (ph) {
        pthread_mutex_lock(&lock);
        handles++;
        pthread_mutex_unlock(&lock);
    }
    devfile_poll(d, req, &f->fi, ph);
    MUST(req->replies == 1);
}

/* A reader that is interrupted gets its answer soon, whatever the device does. */
static void
do_interrupt(struct file *f)
{
    struct fuse_req *req = f->reading;

    if (!req || req->replies)
        return;
    req->interrupted = true;
    if (req->on_interrupt)
        req->on_interrupt(req, req->interrupt_arg);
    for (int ms = 0; !req->replies; ms++) {
        MUST(ms < 10000);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void
do_release(struct devfile *d, struct file *f)
{
    struct fuse_req *req = new_request();

    do_interrupt(f); /* nobody closes what he reads from */
    devfile_release(d, req, &f->fi);
    MUST(req->replies == 1 && req->error == 0);
    *f = (struct file){0};
}

static void
step(struct devfile *d, struct file *f, unsigned what, uint8_t arg)
{
    static const int modes[] = {O_RDWR, O_RDONLY, O_WRONLY, O_RDWR | O_NONBLOCK};

    if (what == 0)
        answer(0, 10 + arg * 16 % (CMDDEV_MAX - 10));
    else if (what == 1)
        answer(-ENODEV, 0);
    else if (what == 2)
        device.refuse = arg % 4 == 0 ? -ENODEV : arg % 4 == 1 ? -EBUSY : 0;
    else if (!f->open)
        do_open(d, f, modes[arg % 4]);
    else if (what == 3 || what == 4)
        do_write(d, f, arg, what == 4);
    else if (what == 5)
        do_read(d, f, arg * 20);
    else if (what == 6)
        do_poll(d, f, arg % 2);
    else if (what == 7 && arg % 2)
        do_interrupt(f);
    else
        do_release(d, f);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    device.cmddev.ops = &device_ops;
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct file files[2] = {{0}};
    struct devfile *d;
    bool late = size > 0 && data[0] & 0x80;

    device.done = NULL;
    device.refuse = 0;
    n_requests = 0;
    MUST(devfile_new(&d, &device.cmddev) == 0);
    for (size_t i = 0; i + 1 < size && n_requests < REQUESTS - 4; i += 2)
        step(d, &files[data[i] >> 3 & 1], data[i] & 7, data[i + 1]);
    if (!late)
        answer(-ENODEV, 0);
    for (int i = 0; i < 2; i++)
        if (files[i].open)
            do_release(d, &files[i]);
    devfile_free(d);
    answer(-ENODEV, 0);
    for (size_t i = 0; i < n_requests; i++)
        MUST(requests[i].replies == 1);
    MUST(handles == 0);
    return 0;
}
