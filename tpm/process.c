/* SPDX-License-Identifier: BSD-3-Clause */
/* Two threads.  The main thread is the TPM: it alone calls libtpms and touches files.  Who has the
 * ear (ear.h) reads the sockets and watches the mount; while the main thread is in a job that takes
 * long, that is the other one, so that it can cancel a command, and end the process when the daemon
 * dies. What comes goes through a queue. */
#include "tpm/process.h"
#include "base/report.h"
#include "base/scope.h"
#include "tpm/confine.h"
#include "tpm/control.h"
#include "tpm/ear.h"
#include "tpm/engine.h"
#include "tpm/link.h"
#include "tpm/machine.h"
#include "tpm/message.h"
#include "tpm/nvram.h"
#include "tpm/pcap.h"
#include "tpm/queue.h"
#include "tpm/root.h"
#include "tpm/watch.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { CANCEL_AGAIN_MS = 5 };

struct process {
    int link;
    struct tpm_options opt;
    struct message_start start;
    struct root root;
    struct nvram *nvram;
    struct machine machine;
    struct pcap pcap;
    struct queue queue;
    struct ear ear;
    struct control control; /* of who has the ear */
    struct watch watch;     /* the TPM's thread's */
    pthread_mutex_t move_lock;
    pthread_cond_t moved; /* an answer of the daemon's has come: */
    bool has_moved;
    int32_t move_r;
    bool told_failure; /* the daemon knows that the TPM has failed */
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

/* A second command while one waits is the daemon's mistake: dropping one would hang its client. */
static bool
put_command(struct process *p, struct message *m)
{
    struct job j = {.source = JOB_LINK, .locality = -1, .body = m->body, .len = m->len};

    return m->len <= ENGINE_MAX && queue_put(&p->queue, &j);
}

static bool
take_moved(struct process *p, const struct message *m)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&p->move_lock);

    if (m->len != sizeof p->move_r)
        return false;
    memcpy(&p->move_r, m->body, sizeof p->move_r);
    p->has_moved = true;
    pthread_cond_signal(&p->moved);
    return true;
}

/* The TPM's thread.  The ear is lent, and no file is used meanwhile: the daemon answers. */
static int
on_move(void *arg, enum tpm_move move, unsigned wait_ms)
{
    struct process *p = arg;
    const struct message_move m = {.move = move, .wait_ms = wait_ms};
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&p->move_lock);
    int r;

    p->has_moved = false;
    r = message_send(p->link, MESSAGE_MOVE, &m, sizeof m, 0);
    while (r == 0 && !p->has_moved)
        pthread_cond_wait(&p->moved, &p->move_lock);
    return r < 0 ? r : p->move_r;
}

/* The daemon has gone or makes no sense.  Its mount has gone with it, so there is nowhere to store
 * to. */
static void
read_link(struct process *p)
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
        queue_cancel(&p->queue, JOB_LINK);
        break;
    case MESSAGE_STOP:
        queue_stop(&p->queue);
        break;
    case MESSAGE_MOVED:
        if (!take_moved(p, &m))
            _exit(EXIT_FAILURE);
        break;
    default:
        _exit(EXIT_FAILURE);
    }
}

static void
on_attached(void *arg, bool attached)
{
    struct process *p = arg;
    uint8_t byte = attached;

    message_send(p->link, MESSAGE_ATTACHED, &byte, sizeof byte, 0);
}

static void
on_control_end(void *arg)
{
    struct process *p = arg;

    queue_stop(&p->queue);
}

static const struct control_ops control_ops = {.attached = on_attached, .end = on_control_end};

enum { LINK, MOUNTS, RECALL, CONTROL, POLLED = CONTROL + CONTROL_FDS };

/* Who is to end listens to no client any more. */
static bool
has_clients(struct process *p)
{
    return p->machine.is_controlled && !queue_is_stopping(&p->queue);
}

/* Who stands in can be recalled, which tells it from the TPM's thread.  While that one listens
 * there is no job that could be cancelled. */
static int
wait_for_any(struct process *p, struct pollfd *fds, nfds_t n)
{
    if (fds[RECALL].fd < 0)
        return watch_poll(&p->watch, p->control.edition, fds, n, -1);
    return poll(fds, n, queue_cancel_again(&p->queue) ? CANCEL_AGAIN_MS : -1);
}

static void
listen_once(void *arg, int recall)
{
    struct process *p = arg;
    struct pollfd fds[POLLED] = {
        [LINK] = {.fd = p->link, .events = POLLIN},
        [MOUNTS] = {.fd = p->root.mounts, .events = POLLPRI},
        [RECALL] = {.fd = recall, .events = POLLIN},
    };
    nfds_t n = CONTROL;

    if (has_clients(p)) {
        control_poll(&p->control, fds + CONTROL);
        n = POLLED;
    }
    if (wait_for_any(p, fds, n) < 0) {
        if (errno != EINTR)
            _exit(EXIT_FAILURE);
        return;
    }
    if (fds[LINK].revents)
        read_link(p);
    if (fds[MOUNTS].revents && root_is_gone(&p->root))
        queue_stop(&p->queue);
    if (n == POLLED)
        control_turn(&p->control, fds + CONTROL);
}

/* What a job has left: answers, and what came behind it. */
static void
answer_clients(struct process *p)
{
    static const struct pollfd nothing[CONTROL_FDS] = {
        {.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1}};

    if (has_clients(p))
        control_turn(&p->control, nothing);
}

static void
set_up_machine(struct process *p)
{
    p->machine = (struct machine){.version = p->opt.version,
                                  .nvram = p->nvram,
                                  .reject_locality_4 = p->opt.reject_locality_4,
                                  .is_controlled = p->opt.control,
                                  .place = p->opt.incoming ? MACHINE_INCOMING : MACHINE_HERE,
                                  .move = p->opt.moves ? on_move : NULL,
                                  .move_arg = p};
    if (!p->opt.control)
        return;
    p->control = (struct control){.ops = &control_ops,
                                  .arg = p,
                                  .queue = &p->queue,
                                  .is_12 = p->opt.version == TPM_VERSION_1_2,
                                  .terminate = p->opt.terminate};
    control_open(&p->control, p->opt.control, p->opt.server ? p->opt.server : -1);
}

/* A TPM that has a control channel is powered on through it: only its client knows whether that is
 * a start, or a machine that resumes. */
static int
power_on(struct process *p)
{
    int r;

    if (p->opt.control && p->opt.startup == TPM_STARTUP_NONE)
        return engine_prepare(p->opt.version);
    r = machine_power_on(&p->machine, false);
    if (r == 0)
        r = engine_startup(p->opt.startup);
    queue_done(&p->queue, p->machine.on);
    return r;
}

static int
start(struct process *p)
{
    const struct message_start *s = &p->start;
    struct nvram_options opt = {.version = p->opt.version,
                                .held = s->held || p->opt.incoming,
                                .manufacture = p->opt.manufacture,
                                .detached = p->opt.incoming};
    int r = root_open(&p->root, s->path, (dev_t)s->dev, s->privileged);

    queue_init(&p->queue);
    watch_init(&p->watch);
    if (r == 0)
        r = ear_init(&p->ear, listen_once, p);
    if (r == 0)
        r = nvram_open(&p->nvram, p->root.dir, &opt); /* others' files too, as root may */
    if (r == 0)
        set_up_machine(p);
    if (r == 0)
        r = confine_rights(s->uid, s->gid, p->root.owner, p->root.group);
    if (r == 0 && !p->opt.no_sandbox)
        r = confine_calls(p->root.dir, p->opt.control);
    if (r == 0)
        r = ear_start(&p->ear);
    if (r == 0 && !p->opt.incoming)
        r = nvram_lock(p->nvram);
    return r < 0 ? r : power_on(p);
}

/* A store that failed stays so; libtpms' own failure mode ends with the power. */
static void
tell_failure(struct process *p)
{
    int lost = nvram_failure(p->nvram), r = lost < 0 ? lost : engine_failure();

    if (p->told_failure == (r < 0))
        return;
    p->told_failure = r < 0;
    if (r == 0) {
        report_at(REPORT_NOTICE, 0, "it is out of its failure mode");
        send_state(p, TPM_STATE_RUNNING, 0, "");
        return;
    }
    report(r, "it has failed, and answers nothing but failure until %s",
           lost < 0 ? "the next mount" : "it is powered on again");
    send_state(p, TPM_STATE_FAILED, r, "the TPM has failed");
}

static size_t
run_command(struct process *p, const struct job *j, uint8_t *resp)
{
    size_t n;

    pcap_command(&p->pcap, j->body, j->len);
    n = machine_command(&p->machine, j->locality, j->body, j->len, resp);
    queue_done(&p->queue, p->machine.on);
    tell_failure(p);
    pcap_response(&p->pcap, resp, n);
    return n;
}

/* From the device file: it powers the TPM on if need be, and then as a client that resumes would.
 */
static void
run_link(struct process *p, const struct job *j)
{
    uint8_t resp[ENGINE_MAX];
    size_t n;

    if (!p->machine.on && machine_power_on(&p->machine, true) == 0)
        report_at(REPORT_NOTICE, 0, "powered on for the device file");
    n = run_command(p, j, resp);
    message_send(p->link, MESSAGE_RESPONSE, resp, n, 0);
    explicit_bzero(resp, n);
}

static void
run_data(struct process *p, const struct job *j)
{
    uint8_t *resp = malloc(ENGINE_MAX);
    size_t n = 0;

    if (resp)
        n = run_command(p, j, resp);
    else
        queue_done(&p->queue, p->machine.on);
    queue_answer(&p->queue, JOB_DATA, resp, n);
}

static void
run_control(struct process *p, const struct job *j)
{
    uint8_t *reply;
    size_t n;

    machine_request(&p->machine, j->code, j->body, j->len, &reply, &n);
    queue_done(&p->queue, p->machine.on);
    tell_failure(p);
    queue_answer(&p->queue, JOB_CONTROL, reply, n);
}

static void
serve(struct process *p)
{
    static void (*const run_job[JOB_SOURCES])(struct process * p, const struct job *j) = {
        [JOB_LINK] = run_link, [JOB_CONTROL] = run_control, [JOB_DATA] = run_data};
    struct job j;

    ear_take(&p->ear);
    while (!queue_is_stopping(&p->queue)) {
        if (!queue_take(&p->queue, &j)) {
            listen_once(p, -1);
            continue;
        }
        ear_lend(&p->ear);
        run_job[j.source](p, &j);
        job_fini(&j);
        ear_take(&p->ear);
        answer_clients(p);
    }
    ear_lend(&p->ear);
}

/* Nobody listens yet, and nothing is open. */
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
    struct process p = {.opt = *opt,
                        .root = {.dir = -1, .tree = -1, .mounts = -1},
                        .move_lock = PTHREAD_MUTEX_INITIALIZER,
                        .moved = PTHREAD_COND_INITIALIZER};
    int *const inherited[] = {&p.opt.control, &p.opt.server, &p.opt.pcap};
    int r;

    p.link = confine_inheritance(link, inherited, sizeof inherited / sizeof *inherited);
    if (p.link < 0)
        _exit(EXIT_FAILURE);
    p.pcap.fd = p.opt.pcap ? p.opt.pcap : -1;
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
    r = machine_power_off(&p.machine);
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
