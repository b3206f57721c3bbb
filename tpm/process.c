/* SPDX-License-Identifier: BSD-3-Clause */
/* Two threads.  The main thread is the TPM: it alone calls libtpms and touches files.  The listener
 * reads the socket and watches the mount, so that it can cancel a command, and end the process
 * when the daemon dies, while the main thread is in either. */
#include "tpm/process.h"
#include "base/report.h"
#include "base/scope.h"
#include "tpm/confine.h"
#include "tpm/engine.h"
#include "tpm/link.h"
#include "tpm/message.h"
#include "tpm/nvram.h"
#include "tpm/root.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { CANCEL_AGAIN_MS = 50 };

struct process {
    int link;
    struct tpm_options opt;
    struct message_start start;
    struct root root;
    struct nvram *nvram;
    bool told_failure; /* the daemon knows that the TPM has failed */

    pthread_mutex_t lock; /* for the rest */
    pthread_cond_t wake;
    bool have_command;
    bool running; /* the TPM is in a command: cancelling makes sense */
    bool stop;
    size_t len;
    uint8_t command[ENGINE_MAX];
};

/* The daemon reports for us: our own standard error is closed. */
static void
send_report(void *arg, enum report_level level, const char *line)
{
    struct process *p = arg;
    struct message_log log = {.level = level};

    snprintf(log.line, sizeof log.line, "TPM: %s", line);
    message_send(p->link, MESSAGE_LOG, &log, sizeof log, 0);
}

static void
send_state(struct process *p, enum tpm_state state, int r, const char *why)
{
    struct message_state s = {.state = state, .r = r};

    snprintf(s.why, sizeof s.why, "%s", why);
    message_send(p->link, MESSAGE_STATE, &s, sizeof s, 0);
}

static void
request_stop(struct process *p)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&p->lock);

    p->stop = true;
    pthread_cond_signal(&p->wake);
}

static void
cancel_running(struct process *p)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&p->lock);

    if (p->running)
        engine_cancel();
}

/* A second command while one waits is the daemon's mistake: dropping one would hang its client. */
static bool
put_command(struct process *p, const struct message *m)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&p->lock);

    if (p->have_command || m->len > sizeof p->command)
        return false;
    memcpy(p->command, m->body, m->len);
    p->len = m->len;
    p->have_command = true;
    pthread_cond_signal(&p->wake);
    return true;
}

/* The daemon has gone or makes no sense.  Its mount has gone with it, so there is nowhere to store
 * to. */
static void
listen_once(struct process *p)
{
    struct message m;

    if (message_receive(p->link, &m) < 0)
        _exit(EXIT_FAILURE);
    switch (m.type) {
    case MESSAGE_COMMAND:
        if (!put_command(p, &m))
            _exit(EXIT_FAILURE);
        break;
    case MESSAGE_CANCEL:
        cancel_running(p);
        break;
    case MESSAGE_STOP:
        request_stop(p);
        break;
    default:
        _exit(EXIT_FAILURE);
    }
}

static void *
listener(void *arg)
{
    struct process *p = arg;
    struct pollfd fds[] = {{.fd = p->link, .events = POLLIN},
                           {.fd = p->root.mounts, .events = POLLPRI}};
    bool stopping = false;

    for (;;) {
        /* A cancel that comes just before the command starts is lost; so ask again */
        int n = poll(fds, 2, stopping ? CANCEL_AGAIN_MS : -1);

        if (n < 0 && errno != EINTR)
            _exit(EXIT_FAILURE);
        if (n > 0 && fds[0].revents)
            listen_once(p);
        if (n > 0 && fds[1].revents && root_is_gone(&p->root)) {
            fds[1].fd = -1;
            request_stop(p);
        }
        pthread_mutex_lock(&p->lock);
        stopping = p->stop;
        pthread_mutex_unlock(&p->lock);
        if (stopping)
            cancel_running(p);
    }
    return NULL;
}

static int
start_listener(struct process *p)
{
    pthread_t thread;
    int r;

    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    r = pthread_create(&thread, NULL, listener, p);
    return r ? report(-r, "cannot start a thread: %s", errno_text(r)) : 0;
}

static int
start(struct process *p)
{
    const struct message_start *s = &p->start;
    struct nvram_options opt = {
        .version = p->opt.version, .held = s->held, .manufacture = p->opt.manufacture};
    int r = root_open(&p->root, s->path, (dev_t)s->dev, s->privileged);

    if (r == 0)
        r = nvram_open(&p->nvram, p->root.dir, &opt); /* others' files too, as root may */
    if (r == 0)
        r = confine_rights(s->uid, s->gid, p->root.owner, p->root.group);
    if (r == 0 && !p->opt.no_sandbox)
        r = confine_calls(p->root.dir);
    if (r == 0)
        r = start_listener(p);
    if (r == 0)
        r = nvram_lock(p->nvram);
    if (r == 0)
        r = engine_start(p->opt.version, p->nvram, false);
    if (r == 0)
        r = engine_startup(p->opt.startup);
    return r;
}

static void
tell_failure(struct process *p)
{
    if (p->told_failure || engine_failure() == 0)
        return;
    p->told_failure = true;
    report(engine_failure(), "it has failed, and answers nothing but failure until the next mount");
    send_state(p, TPM_STATE_FAILED, engine_failure(), "the TPM has failed");
}

/* False: stop. */
static bool
take_command(struct process *p, uint8_t *cmd, size_t *len)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&p->lock);

    while (!p->have_command && !p->stop)
        pthread_cond_wait(&p->wake, &p->lock);
    if (p->stop)
        return false;
    memcpy(cmd, p->command, p->len);
    *len = p->len;
    p->have_command = false;
    p->running = true;
    return true;
}

static void
set_not_running(struct process *p)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&p->lock);

    p->running = false;
}

static void
serve(struct process *p)
{
    uint8_t cmd[ENGINE_MAX], resp[ENGINE_MAX];
    size_t len;

    while (take_command(p, cmd, &len)) {
        size_t n = engine_process(cmd, len, resp);

        set_not_running(p);
        tell_failure(p);
        message_send(p->link, MESSAGE_RESPONSE, resp, n, 0);
        explicit_bzero(cmd, len);
        explicit_bzero(resp, n);
    }
}

/* The one that waits: no listener yet, and nothing is open. */
static int
wait_for_start(struct process *p)
{
    struct message m;

    if (message_receive(p->link, &m) < 0)
        return -ENOTCONN;
    if (m.type == MESSAGE_STOP)
        return -ECANCELED;
    if (m.type != MESSAGE_START || m.len != sizeof p->start)
        return -EBADMSG;
    memcpy(&p->start, m.body, sizeof p->start);
    p->start.path[sizeof p->start.path - 1] = '\0';
    return 0;
}

/* Everything is closed before the daemon is told, so that it can rely on the mount being let go. */
static void
finish(struct process *p, int r)
{
    engine_stop();
    nvram_close(p->nvram);
    root_close(&p->root);
    if (r < 0)
        send_state(p, TPM_STATE_GONE, r, "the TPM could not shut down in order");
    else
        send_state(p, TPM_STATE_STOPPED, 0, "");
}

static __attribute__((noreturn)) void
run(const struct tpm_options *opt, int link)
{
    struct process p = {.opt = *opt, .root = {.dir = -1, .tree = -1, .mounts = -1}};
    int r;

    p.link = confine_inheritance(link);
    if (p.link < 0)
        _exit(EXIT_FAILURE);
    report_set_sink(send_report, &p);
    r = wait_for_start(&p);
    if (r == -ECANCELED) {
        send_state(&p, TPM_STATE_STOPPED, 0, "");
        _exit(EXIT_SUCCESS);
    }
    if (r == 0)
        r = start(&p);
    if (r < 0) {
        nvram_close(p.nvram);
        root_close(&p.root);
        send_state(&p, TPM_STATE_GONE, r, "the TPM did not start");
        _exit(EXIT_FAILURE);
    }
    send_state(&p, TPM_STATE_RUNNING, 0, "");
    serve(&p);
    r = engine_shutdown();
    finish(&p, r);
    _exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

int
tpm_process_fork(const struct tpm_options *opt, pid_t *pid, int *link)
{
    int fds[2];
    pid_t child;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return report(-errno, "cannot make a socket for the TPM: %s", errno_text(errno));
    child = fork();
    if (child == 0)
        run(opt, fds[1]);
    close(fds[1]);
    if (child < 0) {
        int r = -errno;

        close(fds[0]);
        return report(r, "cannot start the TPM's process: %s", errno_text(r));
    }
    *pid = child;
    *link = fds[0];
    return 0;
}
