/* SPDX-License-Identifier: BSD-3-Clause */
/* QEMU's control channel in the hands of a hostile client: steps of two bytes, what and how much,
 * and as many bytes for those that send. */
#include "tpm/control.h"
#include "base/bytes.h"
#include "base/scope.h"
#include "tests/fuzz/fuzz.h"
#include "tpm/engine.h"
#include "tpm/wire.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { REPLY_MAX = 3000 };
enum what { SEND, SEND_WITH_FD, SEND_DATA, ANSWER, CLOSE_CLIENT, CLOSE_DATA, DIAL, STEPS };

static struct session {
    struct queue queue;
    struct control control;
    int client, data; /* our ends; -1: closed */
    bool attached, ended;
} session;

/* In libtpms' place. */
void
engine_cancel(void)
{
}

static void
on_attached(void *arg, bool attached)
{
    struct session *s = arg;

    MUST(attached != s->attached); /* told once each time */
    s->attached = attached;
}

static void
on_end(void *arg)
{
    ((struct session *)arg)->ended = true;
}

static const struct control_ops ops = {.attached = on_attached, .end = on_end};

/* ---- steps -------------------------------------------------------------------------------------
 */

static void
send_bytes(int fd, const uint8_t *data, size_t len)
{
    if (fd >= 0 && len > 0 && send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        MUST(errno == EAGAIN || errno == EPIPE || errno == ECONNRESET);
}

static void
send_with_fd(struct session *s, const uint8_t *data, size_t len)
{
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } u = {{0}};
    struct iovec iov = {(void *)(uintptr_t)data, len};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof u.buf};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    int pair[2];

    if (s->client < 0 || len == 0)
        return;
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &pair[0], sizeof(int));
    sendmsg(s->client, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    close(pair[0]);
    if (s->data >= 0)
        close(s->data);
    s->data = pair[1];
}

/* The TPM does a job, if it has one. */
static bool
answer(struct session *s, size_t len)
{
    struct job j;
    uint8_t *reply = len ? calloc(1, len * 40) : NULL;

    for (int i = 0; i < JOB_SOURCES; i++) {
        if (s->queue.orders[i] == 0)
            continue;
        MUST(queue_take(&s->queue, &j) && j.source != JOB_LINK);
        MUST(j.source != JOB_DATA || (j.len >= 10 && j.len <= CONTROL_BUFFER));
        MUST(j.source != JOB_CONTROL || j.len <= WIRE_BODY_MAX);
        queue_done(&s->queue, len % 2);
        if (j.source == JOB_DATA && len * 40 > REPLY_MAX)
            len = REPLY_MAX / 40;
        queue_answer(&s->queue, j.source, reply, len * 40);
        job_fini(&j);
        return true;
    }
    free(reply);
    return false;
}

static void
turn(struct session *s)
{
    struct pollfd p[CONTROL_FDS];
    uint8_t drop[4096];

    control_poll(&s->control, p);
    MUST(poll(p, CONTROL_FDS, 0) >= 0);
    control_turn(&s->control, p);
    while (s->client >= 0 && recv(s->client, drop, sizeof drop, MSG_DONTWAIT) > 0)
        ;
    while (s->data >= 0 && recv(s->data, drop, sizeof drop, MSG_DONTWAIT) > 0)
        ;
}

static void
shut(int *fd)
{
    scope_close(fd);
    *fd = -1;
}

/* A connection to the server socket, which has no name in the file system. */
static void
dial(struct session *s)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t len = sizeof address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    MUST(fd >= 0);
    if (s->control.server < 0) {
        int server = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

        MUST(bind(server, (struct sockaddr *)&address, sizeof address.sun_family) == 0);
        MUST(listen(server, 1) == 0);
        s->control.server = server;
    }
    MUST(getsockname(s->control.server, (struct sockaddr *)&address, &len) == 0);
    shut(&s->data);
    s->data = fd;
    if (connect(fd, (struct sockaddr *)&address, len) < 0) {
        MUST(errno == EAGAIN); /* too many wait */
        shut(&s->data);
    }
}

static void
step(struct session *s, enum what what, const uint8_t *data, size_t len)
{
    if (what == SEND)
        send_bytes(s->client, data, len);
    else if (what == SEND_WITH_FD)
        send_with_fd(s, data, len);
    else if (what == SEND_DATA)
        send_bytes(s->data, data, len);
    else if (what == CLOSE_CLIENT)
        shut(&s->client);
    else if (what == DIAL)
        dial(s);
    else
        shut(&s->data);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct session *s = &session;
    int pair[2];

    *s = (struct session){.data = -1};
    queue_init(&s->queue);
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    s->control = (struct control){.ops = &ops, .arg = s, .queue = &s->queue, .is_12 = size % 2};
    control_open(&s->control, pair[0], -1);
    s->client = pair[1];
    while (size >= 2 && !s->ended) {
        enum what what = data[0] % STEPS;
        size_t len = data[1];

        data += 2;
        size -= 2;
        if (what == ANSWER) {
            answer(s, len);
        } else {
            len = len < size ? len : size;
            step(s, what, data, len);
            len = what <= SEND_DATA ? len : 0;
            data += len;
            size -= len;
        }
        turn(s);
    }
    shut(&s->client);
    shut(&s->data);
    /* Its jobs end one by one, and then it has nothing to wait for. */
    for (int i = 0; i < 1000 && !s->ended; i++) {
        while (answer(s, 0))
            ;
        turn(s);
    }
    MUST(s->ended);
    while (answer(s, 0))
        ;
    turn(s);
    control_close(&s->control);
    for (int i = 0; i < JOB_SOURCES; i++) {
        job_fini(&s->queue.jobs[i]); /* of another client, come in the last turn */
        free(s->queue.answers[i]);
    }
    pthread_mutex_destroy(&s->queue.lock);
    return 0;
}
