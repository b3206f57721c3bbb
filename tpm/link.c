/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/link.h"
#include "base/report.h"
#include "base/scope.h"
#include "tpm/message.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { END_MS = 5000 };

struct tpm_link {
    struct cmddev cmddev; /* first: the ops get a pointer to it */
    int fd;
    pid_t pid;
    tpm_event_fn *event;
    tpm_move_fn *move; /* with event's argument; NULL: none */
    void *event_arg;
    pthread_t reader;

    pthread_mutex_t lock; /* for the rest; not held during completions and events */
    enum tpm_state state;
    bool attached;     /* the control channel's client has the TPM */
    cmddev_done *done; /* of the outstanding command; NULL: none */
    void *done_arg;
};

const char *
tpm_state_name(enum tpm_state s)
{
    static const char *const names[] = {
        [TPM_STATE_STARTING] = "starting", [TPM_STATE_RUNNING] = "running",
        [TPM_STATE_FAILED] = "failed",     [TPM_STATE_STOPPED] = "stopped",
        [TPM_STATE_GONE] = "gone",
    };

    return names[s];
}

static bool
is_over(enum tpm_state s)
{
    return s == TPM_STATE_STOPPED || s == TPM_STATE_GONE;
}

static int
link_submit(struct cmddev *c, const uint8_t *cmd, size_t len, cmddev_done *done, void *arg)
{
    struct tpm_link *l = (struct tpm_link *)c;
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&l->lock);
    int r;

    if (len > CMDDEV_MAX)
        return -E2BIG;
    if (is_over(l->state))
        return -ENODEV;
    if (l->done || l->attached)
        return -EBUSY;
    r = message_send(l->fd, MESSAGE_COMMAND, cmd, len, MSG_DONTWAIT);
    if (r < 0)
        return r == -EAGAIN ? -EBUSY : -ENODEV;
    l->done = done;
    l->done_arg = arg;
    return 0;
}

static bool
link_is_taken(struct cmddev *c)
{
    struct tpm_link *l = (struct tpm_link *)c;
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&l->lock);

    return l->attached;
}

static void
link_cancel(struct cmddev *c)
{
    struct tpm_link *l = (struct tpm_link *)c;
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&l->lock);

    if (l->done)
        message_send(l->fd, MESSAGE_CANCEL, NULL, 0, MSG_DONTWAIT);
}

/* Ends the outstanding command, if any. */
static void
complete(struct tpm_link *l, int r, const uint8_t *resp, size_t len)
{
    cmddev_done *done;
    void *arg;

    pthread_mutex_lock(&l->lock);
    done = steal(&l->done);
    arg = l->done_arg;
    pthread_mutex_unlock(&l->lock);
    if (done)
        done(arg, r, resp, len);
}

static void
set_state(struct tpm_link *l, enum tpm_state state, int r, const char *why)
{
    bool news;

    pthread_mutex_lock(&l->lock);
    news = l->state != state && !is_over(l->state);
    if (news)
        l->state = state;
    pthread_mutex_unlock(&l->lock);
    if (is_over(state))
        complete(l, -ENODEV, NULL, 0);
    if (news && l->event)
        l->event(l->event_arg, state, r, why);
}

/* The text comes from a process that guests talk to: no control characters, no endless lines. */
static void
clean_text(char *text, size_t size)
{
    text[size - 1] = '\0';
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
}

static int
handle_state(struct tpm_link *l, struct message *m)
{
    struct message_state s;

    if (m->len != sizeof s)
        return -EBADMSG;
    memcpy(&s, m->body, sizeof s);
    clean_text(s.why, sizeof s.why);
    if (s.state <= TPM_STATE_STARTING || s.state > TPM_STATE_GONE || s.r > 0)
        return -EBADMSG;
    set_state(l, s.state, s.r, *s.why ? s.why : NULL);
    return 0;
}

static int
handle_log(struct message *m)
{
    struct message_log log;

    if (m->len != sizeof log)
        return -EBADMSG;
    memcpy(&log, m->body, sizeof log);
    clean_text(log.line, sizeof log.line);
    if (log.level < REPORT_ERROR || log.level > REPORT_DEBUG)
        return -EBADMSG;
    report_at(log.level, 0, "%s", log.line);
    return 0;
}

static int
handle_attached(struct tpm_link *l, const struct message *m)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&l->lock);

    if (m->len != 1)
        return -EBADMSG;
    l->attached = m->body[0];
    return 0;
}

/* Asked at the wrong moment it can do no more harm than a failed one: who takes an image is its one
 * writer. */
static int
handle_move(struct tpm_link *l, const struct message *m)
{
    struct message_move move;
    int32_t r = -EOPNOTSUPP;

    if (m->len != sizeof move)
        return -EBADMSG;
    memcpy(&move, m->body, sizeof move);
    if (move.move > TPM_TAKE || move.wait_ms > TPM_MOVE_MAX_MS)
        return -EBADMSG;
    if (l->move)
        r = l->move(l->event_arg, move.move, move.wait_ms);
    return message_send(l->fd, MESSAGE_MOVED, &r, sizeof r, 0);
}

static int
handle(struct tpm_link *l, struct message *m)
{
    switch (m->type) {
    case MESSAGE_RESPONSE:
        if (m->len > CMDDEV_MAX)
            return -EBADMSG;
        complete(l, 0, m->body, m->len);
        return 0;
    case MESSAGE_STATE:
        return handle_state(l, m);
    case MESSAGE_LOG:
        return handle_log(m);
    case MESSAGE_ATTACHED:
        return handle_attached(l, m);
    case MESSAGE_MOVE:
        return handle_move(l, m);
    default:
        return -EBADMSG;
    }
}

static void *
reader(void *arg)
{
    struct tpm_link *l = arg;
    struct message m;
    int r;

    do {
        r = message_receive(l->fd, &m);
        if (r == 0)
            r = handle(l, &m);
    } while (r == 0);
    if (r != -ENOTCONN)
        report(r, "the TPM's process makes no sense (%s): it is not used any more", errno_text(r));
    set_state(l, TPM_STATE_GONE, -EIO, "the TPM's process has ended");
    return NULL;
}

static const struct cmddev_ops link_ops = {
    .submit = link_submit, .cancel = link_cancel, .is_taken = link_is_taken};

int
tpm_link_new(struct tpm_link **out, int fd, pid_t pid, tpm_event_fn *event, void *arg)
{
    AUTO_FREE struct tpm_link *l = calloc(1, sizeof *l);
    int r;

    if (!l)
        return report(-ENOMEM, "no memory for the TPM's link");
    *l = (struct tpm_link){.cmddev.ops = &link_ops,
                           .fd = fd,
                           .pid = pid,
                           .event = event,
                           .event_arg = arg,
                           .state = TPM_STATE_STARTING};
    pthread_mutex_init(&l->lock, NULL);
    r = pthread_create(&l->reader, NULL, reader, l);
    if (r)
        return report(-r, "cannot start a thread for the TPM: %s", errno_text(r));
    *out = steal(&l);
    return 0;
}

struct cmddev *
tpm_link_cmddev(struct tpm_link *l)
{
    return &l->cmddev;
}

pid_t
tpm_link_pid(const struct tpm_link *l)
{
    return l->pid;
}

enum tpm_state
tpm_link_state(struct tpm_link *l)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&l->lock);

    return l->state;
}

void
tpm_link_on_move(struct tpm_link *l, tpm_move_fn *move)
{
    l->move = move;
}

int
tpm_link_start(struct tpm_link *l, const struct tpm_start *start)
{
    struct message_start s = {.dev = start->dev,
                              .uid = start->uid,
                              .gid = start->gid,
                              .held = start->held,
                              .privileged = start->privileged};
    int r;

    if (strlen(start->path) >= sizeof s.path)
        return report(-ENAMETOOLONG, "%s: too long a path for the TPM", start->path);
    memcpy(s.path, start->path, strlen(start->path));
    r = message_send(l->fd, MESSAGE_START, &s, sizeof s, MSG_DONTWAIT);
    return r < 0 ? report(r, "cannot start the TPM: %s", errno_text(r)) : 0;
}

int
tpm_link_stop(struct tpm_link *l)
{
    return message_send(l->fd, MESSAGE_STOP, NULL, 0, MSG_DONTWAIT);
}

/* A killed process can only be there still in a system call on a mount whose daemon does not
 * answer; then it is left to init. */
static void
end_process(struct tpm_link *l)
{
    AUTO_FD int pidfd = (int)syscall(SYS_pidfd_open, l->pid, 0);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    tpm_link_stop(l);
    if (pidfd < 0 || poll(&p, 1, END_MS) != 1)
        kill(l->pid, SIGKILL);
    if (pidfd >= 0 && poll(&p, 1, END_MS) != 1)
        report(-ETIMEDOUT, "the TPM's process %d does not end", (int)l->pid);
    else
        waitpid(l->pid, NULL, 0);
}

void
tpm_link_free(struct tpm_link *l)
{
    if (!l)
        return;
    end_process(l);
    shutdown(l->fd, SHUT_RDWR);
    pthread_join(l->reader, NULL);
    close(l->fd);
    pthread_mutex_destroy(&l->lock);
    free(l);
}
