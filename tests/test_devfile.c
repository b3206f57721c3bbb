/* SPDX-License-Identifier: BSD-3-Clause */
/* The device file on an echo device, with this file in libfuse's place: it defines the few
 * functions of libfuse that devfile.c calls. */
#include "base/report.h"
#include "fs/devfile.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
/* after the above */
#include <cmocka.h>

enum { DEADLINE_S = 10 };

/* ---- libfuse's double ---- */
struct fuse_req {
    bool replied;
    int error; /* positive, as replied */
    size_t len;
    uint8_t buf[CMDDEV_MAX];
    unsigned int events;
    bool interrupted;
    bool lost; /* whoever made it has gone: replying fails */
    fuse_interrupt_func_t on_interrupt;
    void *interrupt_arg;
};

struct fuse_pollhandle {
    int notified, destroyed;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t replied = PTHREAD_COND_INITIALIZER;

static int
reply(fuse_req_t req, int error, const void *buf, size_t len)
{
    bool lost;

    pthread_mutex_lock(&lock);
    assert_false(req->replied); /* exactly once */
    req->replied = true;
    req->error = error;
    req->len = len;
    if (len)
        memcpy(req->buf, buf, len);
    lost = req->lost;
    pthread_cond_broadcast(&replied);
    pthread_mutex_unlock(&lock);
    return lost ? -ENOENT : 0;
}

int
fuse_reply_err(fuse_req_t req, int err)
{
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
    int r = reply(req, 0, NULL, 0);

    req->len = count;
    return r;
}

int
fuse_reply_poll(fuse_req_t req, unsigned revents)
{
    req->events = revents;
    return reply(req, 0, NULL, 0);
}

int
fuse_lowlevel_notify_poll(struct fuse_pollhandle *ph)
{
    pthread_mutex_lock(&lock);
    ph->notified++;
    pthread_cond_broadcast(&replied);
    pthread_mutex_unlock(&lock);
    return 0;
}

void
fuse_pollhandle_destroy(struct fuse_pollhandle *ph)
{
    pthread_mutex_lock(&lock);
    ph->destroyed++;
    pthread_cond_broadcast(&replied);
    pthread_mutex_unlock(&lock);
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

/* As libfuse does on FUSE_INTERRUPT. */
static void
interrupt(fuse_req_t req)
{
    req->interrupted = true;
    req->on_interrupt(req, req->interrupt_arg);
}

/* ---- a device that the test completes by hand, with an echo ---- */
struct echo {
    struct cmddev cmddev;
    cmddev_done *done;
    void *arg;
    size_t len;
    uint8_t cmd[CMDDEV_MAX];
    int submits, cancels;
    int refuse; /* what submit says, if not 0 */
    bool taken;
};

static int
echo_submit(struct cmddev *c, const uint8_t *cmd, size_t len, cmddev_done *done, void *arg)
{
    struct echo *e = (struct echo *)c;

    if (e->refuse)
        return e->refuse;
    assert_null(e->done); /* one at a time */
    e->done = done;
    e->arg = arg;
    e->len = len;
    memcpy(e->cmd, cmd, len);
    e->submits++;
    return 0;
}

static void
echo_cancel(struct cmddev *c)
{
    ((struct echo *)c)->cancels++;
}

static bool
echo_is_taken(struct cmddev *c)
{
    return ((struct echo *)c)->taken;
}

static const struct cmddev_ops echo_ops = {
    .submit = echo_submit, .cancel = echo_cancel, .is_taken = echo_is_taken};

struct fixture {
    struct echo echo;
    struct devfile *d;
};

static void
complete(struct fixture *f, int r)
{
    cmddev_done *done = f->echo.done;

    assert_non_null(done);
    f->echo.done = NULL;
    done(f->echo.arg, r, f->echo.cmd, r < 0 ? 0 : f->echo.len);
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->echo.cmddev.ops = &echo_ops;
    assert_int_equal(devfile_new(&f->d, &f->echo.cmddev), 0);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    devfile_free(f->d);
    if (f->echo.done)
        complete(f, -ENODEV);
    free(f);
    return 0;
}

/* ---- the requests ---- */
static const uint8_t command[] = {0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8};

static int
open_with(struct fixture *f, int flags, struct fuse_file_info *fi)
{
    struct fuse_req req = {0};
    struct fuse_open_out out;

    *fi = (struct fuse_file_info){.flags = flags};
    devfile_open(f->d, &req, fi);
    assert_true(req.replied);
    if (req.error)
        return -req.error;
    assert_int_equal(req.len, sizeof out);
    memcpy(&out, req.buf, sizeof out);
    assert_true(out.open_flags & FOPEN_DIRECT_IO);
    assert_true(out.open_flags & FOPEN_STREAM);
    fi->fh = out.fh;
    return 0;
}

static int
put_len(struct fixture *f, const struct fuse_file_info *fi, size_t len)
{
    struct fuse_req req = {0};

    devfile_write(f->d, &req, command, len, fi);
    assert_true(req.replied);
    if (req.error)
        return -req.error;
    assert_int_equal(req.len, len);
    return 0;
}

static int
put(struct fixture *f, const struct fuse_file_info *fi)
{
    return put_len(f, fi, sizeof command);
}

static void
get(struct fixture *f, const struct fuse_file_info *fi, size_t size, struct fuse_req *req)
{
    *req = (struct fuse_req){0};
    devfile_read(f->d, req, size, fi);
}

static unsigned int
poll_events(struct fixture *f, const struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
    struct fuse_req req = {0};

    devfile_poll(f->d, &req, fi, ph);
    assert_true(req.replied);
    return req.events;
}

static void
release(struct fixture *f, const struct fuse_file_info *fi)
{
    struct fuse_req req = {0};

    devfile_release(f->d, &req, fi);
    assert_true(req.replied);
    assert_int_equal(req.error, 0);
}

/* close(2) of one descriptor, or the only one. */
static void
flush(struct fixture *f, const struct fuse_file_info *fi)
{
    struct fuse_req req = {0};

    devfile_flush(f->d, &req, fi);
    assert_true(req.replied);
    assert_int_equal(req.error, 0);
}

static void
wait_for_reply(struct fuse_req *req)
{
    struct timespec end;
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += DEADLINE_S;
    pthread_mutex_lock(&lock);
    while (!req->replied && r == 0)
        r = pthread_cond_timedwait(&replied, &lock, &end);
    pthread_mutex_unlock(&lock);
    assert_int_equal(r, 0);
}

/* ---- the cases ---- */
static void
a_command_gives_its_response(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    struct fuse_req req;

    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    assert_int_equal(put(f, &fi), 0);
    complete(f, 0);
    get(f, &fi, 4096, &req);
    assert_true(req.replied);
    assert_int_equal(req.error, 0);
    assert_int_equal(req.len, sizeof command);
    assert_memory_equal(req.buf, command, sizeof command);
    assert_int_equal(put(f, &fi), 0); /* and the next */
}

static void
a_read_waits_under_nonblock_too(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    struct fuse_req req;

    assert_int_equal(open_with(f, O_RDWR | O_NONBLOCK, &fi), 0);
    assert_int_equal(put(f, &fi), 0);
    get(f, &fi, 10, &req);
    assert_false(req.replied);
    complete(f, 0);
    assert_true(req.replied);
    assert_int_equal(req.len, 10);
    get(f, &fi, 10, &req); /* what was not read is kept */
    assert_int_equal(req.len, 2);
    assert_memory_equal(req.buf, command + 10, 2);
}

static void
an_idle_read_is_at_the_end(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    struct fuse_req req;

    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    for (int i = 0; i < 2; i++) {
        get(f, &fi, 4096, &req);
        assert_true(req.replied);
        assert_int_equal(req.error, 0);
        assert_int_equal(req.len, 0);
        assert_int_equal(put(f, &fi), 0);
        complete(f, 0);
        get(f, &fi, 4096, &req);
    }
}

static void
a_write_is_one_whole_command(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    uint8_t large[CMDDEV_MAX + 1] = {0x80, 1, 0, 0, 0x10, 1};
    struct fuse_req req = {0};

    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    for (size_t len = 0; len < sizeof command; len++)
        assert_int_equal(put_len(f, &fi, len), -EINVAL);
    devfile_write(f->d, &req, large, sizeof large, &fi);
    assert_int_equal(req.error, E2BIG);
    assert_int_equal(f->echo.submits, 0);
    assert_int_equal(put(f, &fi), 0);
}

static void
one_command_is_outstanding(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    struct fuse_req req;

    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    assert_int_equal(put(f, &fi), 0);
    assert_int_equal(put(f, &fi), -EBUSY);
    complete(f, 0);
    assert_int_equal(put(f, &fi), -EBUSY); /* nobody has read */
    get(f, &fi, 1, &req);
    assert_int_equal(put(f, &fi), 0); /* the rest is dropped */
    complete(f, 0);
    get(f, &fi, 4096, &req);
    assert_int_equal(req.len, sizeof command);
}

static void
a_second_opener_is_told_busy(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info first, second;

    assert_int_equal(open_with(f, O_RDWR, &first), 0);
    assert_int_equal(open_with(f, O_RDWR, &second), -EBUSY);
    assert_int_equal(open_with(f, O_RDONLY, &second), -EBUSY);
    release(f, &first);
    assert_int_equal(open_with(f, O_WRONLY, &second), 0);
}

static void
a_device_that_others_have_is_busy(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;

    f->echo.taken = true;
    assert_int_equal(open_with(f, O_RDWR, &fi), -EBUSY);
    f->echo.taken = false;
    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
}

static void
who_only_reads_is_no_client(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info reader, client;
    struct fuse_req req;

    assert_int_equal(open_with(f, O_RDONLY, &reader), 0);
    assert_int_equal(open_with(f, O_RDWR, &client), 0);
    assert_int_equal(put(f, &client), 0);
    get(f, &reader, 4096, &req);
    assert_true(req.replied);
    assert_int_equal(req.len, 0);
    assert_int_equal(poll_events(f, &reader, NULL), POLLIN | POLLRDNORM);
    release(f, &reader);
    complete(f, 0);
    get(f, &client, 4096, &req);
    assert_int_equal(req.len, sizeof command);
}

static void
poll_tells_when_to_write_and_read(void **state)
{
    struct fixture *f = *state;
    struct fuse_pollhandle first = {0}, second = {0};
    struct fuse_file_info fi;
    struct fuse_req req;

    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    assert_int_equal(poll_events(f, &fi, NULL), POLLOUT | POLLWRNORM);
    assert_int_equal(put(f, &fi), 0);
    assert_int_equal(poll_events(f, &fi, &first), 0);
    assert_int_equal(poll_events(f, &fi, &second), 0);
    assert_int_equal(first.destroyed, 1); /* replaced */
    complete(f, 0);
    assert_int_equal(first.notified, 0);
    assert_int_equal(second.notified, 1);
    assert_int_equal(second.destroyed, 1);
    assert_int_equal(poll_events(f, &fi, NULL), POLLIN | POLLRDNORM);
    get(f, &fi, 10, &req);
    assert_int_equal(poll_events(f, &fi, NULL), POLLIN | POLLRDNORM);
    get(f, &fi, 10, &req);
    assert_int_equal(poll_events(f, &fi, NULL), POLLOUT | POLLWRNORM);
}

static void
an_interrupted_read_ends_and_can_be_repeated(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    struct fuse_req req, again;

    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    assert_int_equal(put(f, &fi), 0);
    get(f, &fi, 4096, &req);
    interrupt(&req);
    wait_for_reply(&req);
    assert_int_equal(req.error, EINTR);
    get(f, &fi, 4096, &again);
    complete(f, 0);
    assert_int_equal(again.len, sizeof command);
}

static void
an_interrupt_that_came_first_counts(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    struct fuse_req req = {.interrupted = true};

    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    assert_int_equal(put(f, &fi), 0);
    devfile_read(f->d, &req, 4096, &fi);
    wait_for_reply(&req);
    assert_int_equal(req.error, EINTR);
    complete(f, 0);
}

static void
an_interrupted_open_frees_the_device(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi = {.flags = O_RDWR};
    struct fuse_req req = {.lost = true};

    devfile_open(f->d, &req, &fi);
    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
}

static void
a_client_that_goes_frees_the_device(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info first, second;
    struct fuse_pollhandle ph = {0};
    struct fuse_req req;

    assert_int_equal(open_with(f, O_RDWR, &first), 0);
    assert_int_equal(put(f, &first), 0);
    assert_int_equal(poll_events(f, &first, &ph), 0);
    release(f, &first);
    assert_int_equal(ph.destroyed, 1);
    assert_int_equal(f->echo.cancels, 1);
    assert_int_equal(open_with(f, O_RDWR, &second), 0);
    get(f, &second, 4096, &req); /* not the first one's response */
    assert_int_equal(req.len, 0);
    assert_int_equal(put(f, &second), 0); /* waits its turn */
    assert_int_equal(f->echo.submits, 1);
    get(f, &second, 4096, &req);
    complete(f, 0); /* dropped */
    assert_false(req.replied);
    assert_int_equal(f->echo.submits, 2);
    complete(f, 0);
    assert_true(req.replied);
    assert_int_equal(req.len, sizeof command);
}

static void
a_queued_command_goes_with_its_client(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;

    for (int i = 0; i < 2; i++) {
        assert_int_equal(open_with(f, O_RDWR, &fi), 0);
        assert_int_equal(put(f, &fi), 0);
        release(f, &fi);
    }
    complete(f, 0);
    assert_int_equal(f->echo.submits, 1);
    assert_int_equal(f->echo.cancels, 1); /* the second one's never ran */
}

static void
a_client_that_never_reads_blocks_nobody_for_longer_than_it_lives(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    struct fuse_req req;

    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    assert_int_equal(put(f, &fi), 0);
    complete(f, 0);
    release(f, &fi);
    assert_int_equal(f->echo.cancels, 0);
    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    get(f, &fi, 4096, &req);
    assert_int_equal(req.len, 0);
    assert_int_equal(put(f, &fi), 0);
}

static void
a_device_that_dies_says_so(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    struct fuse_req req;

    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    assert_int_equal(put(f, &fi), 0);
    get(f, &fi, 4096, &req);
    complete(f, -ENODEV);
    assert_int_equal(req.error, ENODEV);
    f->echo.refuse = -ENODEV;
    assert_int_equal(put(f, &fi), -ENODEV);
    get(f, &fi, 4096, &req);
    assert_int_equal(req.len, 0);
}

static void
a_device_that_dies_between_write_and_read_says_so_once(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    struct fuse_req req;

    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    assert_int_equal(put(f, &fi), 0);
    complete(f, -EIO);
    assert_int_equal(poll_events(f, &fi, NULL), POLLIN | POLLRDNORM);
    get(f, &fi, 4096, &req);
    assert_int_equal(req.error, EIO);
    get(f, &fi, 4096, &req);
    assert_int_equal(req.error, 0);
    assert_int_equal(req.len, 0);
}

/* @fi has closed, and @req wants the device. */
static void
open_after_close(struct fixture *f, struct fuse_file_info *fi, struct fuse_req *req)
{
    struct fuse_file_info second = {.flags = O_RDWR};

    assert_int_equal(open_with(f, O_RDWR, fi), 0);
    flush(f, fi);
    *req = (struct fuse_req){0};
    devfile_open(f->d, req, &second);
    assert_false(req->replied);
}

static void
an_open_after_a_close_waits_for_its_release(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi, other;
    struct fuse_req req;
    struct fuse_open_out out;

    open_after_close(f, &fi, &req);
    assert_int_equal(open_with(f, O_RDWR, &other), -EBUSY); /* one waits, not two */
    release(f, &fi);
    assert_true(req.replied);
    assert_int_equal(req.error, 0);
    memcpy(&out, req.buf, sizeof out);
    assert_int_not_equal(out.fh, fi.fh);
    assert_int_equal(put(f, &fi), -EBADF);
    fi.fh = out.fh;
    assert_int_equal(put(f, &fi), 0);
    assert_int_equal(open_with(f, O_RDWR, &other), -EBUSY);
}

static void
an_open_that_waits_in_vain_is_told_busy(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    struct fuse_req req;

    open_after_close(f, &fi, &req);
    wait_for_reply(&req);
    assert_int_equal(req.error, EBUSY);
    assert_int_equal(put(f, &fi), 0); /* it had another descriptor */
}

static void
a_client_that_goes_on_after_a_close_is_waited_for_by_nobody(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi, other;
    struct fuse_req req;

    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    flush(f, &fi);
    assert_int_equal(put(f, &fi), 0);
    assert_int_equal(open_with(f, O_RDWR, &other), -EBUSY);
    flush(f, &fi);
    poll_events(f, &fi, NULL);
    assert_int_equal(open_with(f, O_RDWR, &other), -EBUSY);
    complete(f, 0);
    flush(f, &fi);
    get(f, &fi, 10, &req);
    assert_int_equal(open_with(f, O_RDWR, &other), -EBUSY);
}

static void
an_open_that_waits_can_be_interrupted(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi, other;
    struct fuse_req req;

    open_after_close(f, &fi, &req);
    interrupt(&req);
    wait_for_reply(&req);
    assert_int_equal(req.error, EINTR);
    release(f, &fi);
    assert_int_equal(open_with(f, O_RDWR, &other), 0);
}

static void
an_open_that_has_gone_when_its_turn_comes_frees_the_device(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi, other;
    struct fuse_req req;

    open_after_close(f, &fi, &req);
    req.lost = true;
    release(f, &fi);
    assert_true(req.replied);
    assert_int_equal(open_with(f, O_RDWR, &other), 0);
}

static void
freeing_answers_a_waiting_open(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    struct fuse_req req;

    open_after_close(f, &fi, &req);
    devfile_free(f->d);
    assert_true(req.replied);
    assert_int_equal(req.error, ENODEV);
    assert_int_equal(devfile_new(&f->d, &f->echo.cmddev), 0);
}

static void
freeing_answers_a_waiting_read(void **state)
{
    struct fixture *f = *state;
    struct fuse_file_info fi;
    struct fuse_req req;

    assert_int_equal(open_with(f, O_RDWR, &fi), 0);
    assert_int_equal(put(f, &fi), 0);
    get(f, &fi, 4096, &req);
    devfile_free(f->d);
    assert_int_equal(req.error, ENODEV);
    complete(f, 0); /* frees what is left; a sanitizer or valgrind tells */
    assert_int_equal(devfile_new(&f->d, &f->echo.cmddev), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_command_gives_its_response),
        T(a_read_waits_under_nonblock_too),
        T(an_idle_read_is_at_the_end),
        T(a_write_is_one_whole_command),
        T(one_command_is_outstanding),
        T(a_second_opener_is_told_busy),
        T(a_device_that_others_have_is_busy),
        T(who_only_reads_is_no_client),
        T(poll_tells_when_to_write_and_read),
        T(an_interrupted_read_ends_and_can_be_repeated),
        T(an_interrupt_that_came_first_counts),
        T(an_interrupted_open_frees_the_device),
        T(a_client_that_goes_frees_the_device),
        T(a_queued_command_goes_with_its_client),
        T(a_client_that_never_reads_blocks_nobody_for_longer_than_it_lives),
        T(a_device_that_dies_says_so),
        T(a_device_that_dies_between_write_and_read_says_so_once),
        T(an_open_after_a_close_waits_for_its_release),
        T(an_open_that_waits_in_vain_is_told_busy),
        T(a_client_that_goes_on_after_a_close_is_waited_for_by_nobody),
        T(an_open_that_waits_can_be_interrupted),
        T(an_open_that_has_gone_when_its_turn_comes_frees_the_device),
        T(freeing_answers_a_waiting_read),
        T(freeing_answers_a_waiting_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
