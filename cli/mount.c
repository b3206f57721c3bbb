/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram mount: the daemon's life, from the image to the mount to the TPM, and back.
 *
 * The order matters.  Children that must know nothing (the TPM process, the unmounter) are forked
 * first; the key is asked for and the image recovered before anything is mounted; then the daemon
 * gives up what it needs no longer; then its threads start, and the TPM on the mount; then the
 * front may go.  mount_end() goes the same way back. */
#include "base/finding.h"
#include "base/progress.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/anchor.h"
#include "cli/cli.h"
#include "cli/ctrlsocket.h"
#include "cli/daemon.h"
#include "cli/image.h"
#include "cli/owner.h"
#include "cli/reopener.h"
#include "cli/tpmroom.h"
#include "core/dev_nbd.h"
#include "fs/fs.h"
#include "fs/json.h"
#include "fs/mountinfo.h"
#include "fs/session.h"
#include "fs/unmounter.h"
#include "tpm/link.h"
#include "tpm/pcap.h"
#include <dirent.h>
#include <errno.h>
#include <linux/capability.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { TPM_STOP_MS = 10000 };

struct mount {
    struct options *o;
    char *image, *dir; /* real paths */
    bool privileged;
    struct daemon daemon;
    int signal_fd;

    struct unmounter *unmounter;
    pid_t tpm_pid; /* and its socket, until there is a link */
    int tpm_socket;
    struct tpm_link *link; /* NULL: no TPM */
    struct ctrlsocket ctrl;
    struct reopener *reopener; /* NULL: the image stays here */
    struct anchor *anchor;     /* NULL: none */
    struct store *store;
    struct dev *dev; /* the store's */
    struct fs *fs;
    struct session *session;

    int tpm_event; /* an eventfd: something below has changed */
    pthread_mutex_t tpm_lock;
    enum tpm_state tpm_state;
    int tpm_r; /* why it did not start */

    unsigned stops; /* SIGTERMs so far */
    bool failed;    /* the TPM process has died */
};

static bool
may_mount(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};

    return geteuid() == 0 && syscall(SYS_capget, &header, data) == 0 &&
           (data[0].effective & 1U << CAP_SYS_ADMIN);
}

/* ---- the TPM -----------------------------------------------------------------------------------
 */

/* On the link's thread.  Details have been reported, but they do not name the image. */
static void
on_tpm_event(void *arg, enum tpm_state state, int r, const char *why)
{
    struct mount *m = arg;

    if (state == TPM_STATE_FAILED || state == TPM_STATE_GONE)
        report(r, "%s: %s", m->image, why ? why : "the TPM has ended");
    pthread_mutex_lock(&m->tpm_lock);
    m->tpm_state = state;
    m->tpm_r = r;
    pthread_mutex_unlock(&m->tpm_lock);
    eventfd_write(m->tpm_event, 1);
}

static enum tpm_state
tpm_state(struct mount *m, int *r)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&m->tpm_lock);

    if (r)
        *r = m->tpm_r;
    return m->tpm_state;
}

static bool
tpm_has_ended(struct mount *m)
{
    enum tpm_state s = tpm_state(m, NULL);

    return s == TPM_STATE_STOPPED || s == TPM_STATE_GONE;
}

/* Ends a TPM process that was never linked: it goes when its socket does. */
static void
drop_tpm(struct mount *m)
{
    if (m->tpm_socket < 0)
        return;
    close(m->tpm_socket);
    m->tpm_socket = -1;
    while (waitpid(m->tpm_pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* ---- the image comes and goes ------------------------------------------------------------------
 */

static int
release_image(struct mount *m, bool back)
{
    int r = fs_release(m->fs, back);

    if (r == 0)
        report_at(REPORT_NOTICE, 0, "%s: let go: another daemon may take it", m->image);
    return r;
}

static int
take_image(struct mount *m, unsigned wait_ms)
{
    enum store_place was = store_where(m->store);
    int r = fs_take(m->fs, wait_ms);
    uint64_t ino = 0;

    /* Who had a file open while it was another daemon's sees what it is now. */
    while (r == 0 && was == STORE_INCOMING && fs_next_file(m->fs, &ino))
        session_forget(m->session, ino);
    if (r == 0 && was != STORE_HERE)
        report_at(REPORT_NOTICE, 0, "%s: taken: nobody else has it", m->image);
    return r;
}

/* On the link's thread. */
static int
on_move(void *arg, enum tpm_move move, unsigned wait_ms)
{
    struct mount *m = arg;

    return move == TPM_TAKE ? take_image(m, wait_ms) : release_image(m, move == TPM_GIVE_UP);
}

/* On FUSE threads: what somebody has written to .vnvram/control.  A TPM's state goes with its
 * machine, whose hand-over its control channel's client knows. */
static int
on_control(void *arg, const char *text)
{
    struct mount *m = arg;

    if (strcmp(text, "take") == 0)
        return take_image(m, LOCK_WAIT_MS);
    if (strcmp(text, "release") != 0)
        return -EINVAL;
    return m->link ? -EBUSY : release_image(m, false);
}

/* The link has a thread, so it comes after the last fork and after the signals are blocked. */
static int
link_tpm(struct mount *m)
{
    int r = tpm_link_new(&m->link, m->tpm_socket, m->tpm_pid, on_tpm_event, m);

    if (r == 0)
        m->tpm_socket = -1;
    if (r == 0 && m->reopener)
        tpm_link_on_move(m->link, on_move);
    return r;
}

/* On FUSE threads, as cli/mountstatus.h counts it. */
static const char *
health(struct mount *m)
{
    struct store_info info;

    store_get_info(m->store, &info);
    if (m->link && tpm_link_state(m->link) == TPM_STATE_FAILED)
        return "tpm-failed";
    if (m->o->degraded)
        return "degraded";
    return info.read_only && info.place == STORE_HERE && !m->o->read_only ? "read-only" : "ok";
}

/* Members of .vnvram/status; on FUSE threads. */
static void
put_status(void *arg, FILE *out)
{
    struct mount *m = arg;

    json_member_string(out, "health", health(m));
    json_member_number(out, "pid", (uint64_t)getpid());
    if (m->link)
        json_member_number(out, "tpm_pid", (uint64_t)tpm_link_pid(m->link));
    else
        fputs(",\n  \"tpm_pid\": null", out);
    json_member_string(out, "image", m->image);
    json_member_string(out, "anchor", m->o->anchor);
    if (m->link)
        fprintf(out, ",\n  \"tpm\": {\"version\": \"%s\", \"state\": \"%s\"}",
                m->o->tpm.version == TPM_VERSION_1_2 ? "1.2" : "2.0",
                tpm_state_name(tpm_link_state(m->link)));
    else
        fputs(",\n  \"tpm\": null", out);
    json_member_bool(out, "sandbox", !m->o->no_sandbox);
}

/* ---- going up ----------------------------------------------------------------------------------
 */

/* For status: whoever reads it is elsewhere. */
static void
name_anchor(struct mount *m)
{
    char *path = m->anchor ? realpath(m->o->anchor, NULL) : NULL;

    if (!path)
        return;
    free(m->o->anchor);
    m->o->anchor = path;
}

static int
open_once(struct mount *m)
{
    const bool looks = m->o->read_only || m->o->incoming;
    struct store_options opt = {
        .read_only = m->o->read_only,
        .degraded = m->o->degraded,
        .incoming = m->o->incoming,
        .unlock = keys_unlock,
        .unlock_arg = &m->o->key,
        .accept_rollback = m->o->accept_rollback,
        .owner = owner_from_options(m->o, m->image),
    };
    AUTO(dev_closep) struct dev *dev = NULL;
    int r = dev_open(&dev, m->image,
                     (looks ? DEV_READ_ONLY : 0) | (m->o->incoming ? DEV_NO_LOCK : 0), &m->o->dev);

    if (r == 0 && m->reopener)
        reopener_serve(m->reopener, dev, false);
    opt.anchor = m->anchor;
    if (r == 0)
        r = store_open(&m->store, dev, &opt);
    progress_show(false); /* of what a daemon does nobody waits for the end */
    if (r < 0)
        return r;
    m->dev = steal(&dev); /* the store's now */
    return dev_file_lease(m->dev);
}

/* Beside a daemon that writes: a commit caught in the middle looks like damage. */
static int
open_incoming(struct mount *m)
{
    struct key_options *key = &m->o->key;
    int r = key->given ? keys_read(key, false) : 0; /* asks, maybe: before the image is open */

    if (r < 0)
        return r;
    for (int try = 1;; try++) {
        image_hold_reports();
        r = open_once(m);
        if ((r != -EUCLEAN && r != -EBADMSG && r != -ESTALE) || try == LOOK_TRIES)
            break;
        image_drop_reports();
        image_pause();
    }
    image_show_reports();
    return r;
}

static int
open_anchor(struct mount *m)
{
    int r = anchor_from_options(&m->anchor, m->o, m->o->read_only || m->o->incoming);

    if (r < 0 || !m->anchor)
        return r;
    name_anchor(m);
    if (m->reopener)
        reopener_serve(m->reopener, anchor_dev(m->anchor), true);
    return 0;
}

static int
open_store(struct mount *m)
{
    int r = open_anchor(m);

    if (r < 0)
        return r; /* no finding about the image */
    r = m->o->incoming ? open_incoming(m) : open_once(m);
    if (r < 0)
        image_advise(m->image, r);
    else if (store_superblock(m->store)->seal_mode == SEAL_NONE)
        image_warn_exposed(m->dev);
    return r;
}

static int
make_fs(struct mount *m)
{
    struct fs_options opt = {
        .read_only = m->o->read_only,
        .no_atime = m->o->no_atime,
        .uid = m->o->uid,
        .gid = m->o->gid,
        .umask = m->o->umask,
        .tpm_pid = m->tpm_pid,
        .status = put_status,
        .status_arg = m,
        .control = m->reopener ? on_control : NULL,
        .control_arg = m,
    };

    return fs_new(&m->fs, m->store, &opt);
}

static int
make_session(struct mount *m)
{
    struct session_options opt = {
        .mountpoint = m->dir,
        .source = m->image,
        .unmounter = m->unmounter,
        .read_only = m->o->read_only,
        .allow_other = m->o->allow_other,
        .debug = m->o->debug,
        .extra = m->o->kernel,
    };

    return session_new(&m->session, m->fs, &opt);
}

/* Promises the TPM's state a slot that it cannot outgrow, so that an image full of other files
 * never fails a TPM command.  Where no such slot is left the TPM must live with what it gets. */
static int
reserve_tpm_room(struct mount *m)
{
    bool is_12 = m->o->tpm.version == TPM_VERSION_1_2;
    struct change reserve = {
        .op = CHANGE_RESERVE,
        .name = is_12 ? "tpm-00.permall" : "tpm2-00.permall",
        .len = tpm_room(m->o->tpm.version),
    };
    struct entry e;
    int r = store_find(m->store, reserve.name, &e);

    if (r == 0 && (e.reserved != 0 ||
                   (e.kind == ENTRY_FILE && store_slot_capacity(m->store, e.slot) >= reserve.len)))
        return 0;
    r = store_commit(m->store, &reserve, 1, NULL);
    if (r == -ENOSPC || r == -EFBIG)
        return report_at(REPORT_WARNING, 0,
                         "%s: no free slot holds %zu bytes, the most that the TPM's "
                         "state may need: it may run out of room",
                         m->image, reserve.len);
    return r;
}

/* The owner of the mount; but without allow_other the kernel lets in nobody but who mounted it. */
static void
choose_tpm_user(struct mount *m, struct tpm_start *start)
{
    struct file_attr root;

    start->uid = geteuid();
    start->gid = getegid();
    if (!m->privileged || !m->o->allow_other)
        return;
    store_get_root(m->store, &root);
    start->uid = m->o->uid != (uid_t)-1 ? m->o->uid : root.uid;
    start->gid = m->o->gid != (gid_t)-1 ? m->o->gid : root.gid;
}

/* Tells the TPM process to start and waits until it runs; a signal or an unmount ends the waiting.
 */
static int
start_tpm(struct mount *m)
{
    struct tpm_start start = {
        .path = m->dir, .dev = session_dev(m->session), .privileged = m->privileged};
    struct pollfd p[] = {
        {.fd = m->tpm_event, .events = POLLIN},
        {.fd = m->signal_fd, .events = POLLIN},
        {.fd = session_end_fd(m->session), .events = POLLIN},
    };
    bool is_12 = m->o->tpm.version == TPM_VERSION_1_2;
    struct store_info info;
    int r;

    store_get_info(m->store, &info);
    start.held = is_12 ? info.held_tpm12 : info.held_tpm20;
    choose_tpm_user(m, &start);
    r = tpm_link_start(m->link, &start);
    if (r < 0)
        return r;
    while (tpm_state(m, &r) == TPM_STATE_STARTING) {
        eventfd_t n;

        if (poll(p, 3, -1) < 0 && errno != EINTR)
            return report(-errno, "%s: cannot wait: %s", m->image, errno_text(-errno));
        if (p[1].revents || p[2].revents)
            return report(-EINTR, "%s: ended while the TPM was starting", m->image);
        eventfd_read(m->tpm_event, &n);
    }
    if (!tpm_has_ended(m))
        return 0;
    return r < 0 ? r : -EIO; /* has been reported */
}

/* Everything is open and mounted, and no thread is there yet. */
static int
enter_sandbox(struct mount *m)
{
    struct tpm_start start = {0};
    struct sandbox_connect connect;

    if (m->o->no_sandbox)
        return 0;
    choose_tpm_user(m, &start);
    dev_sandbox(m->dev, &connect);
    return daemon_confine(m->tpm_pid, m->tpm_pid && start.uid != geteuid(),
                          m->dev->shared && dev_is_path(m->dev->name), &connect);
}

/* The threads, and the first requests. */
static int
start_serving(struct mount *m)
{
    int r = m->tpm_socket >= 0 ? link_tpm(m) : 0;

    if (r == 0)
        r = fs_start(m->fs, m->link ? tpm_link_cmddev(m->link) : NULL);
    if (r == 0)
        r = session_start(m->session);
    return r == 0 && m->link ? start_tpm(m) : r;
}

/* The control channel's socket is made while we may; from then on it is the TPM process's. */
static int
fork_tpm(struct mount *m)
{
    const struct ctrlsocket_options opt = {
        .path = m->o->ctrl,
        .server = m->o->server,
        .mode = m->o->ctrl_mode,
        .uid = m->o->ctrl_uid,
        .gid = m->o->ctrl_gid,
        .sandbox = !m->o->no_sandbox,
    };
    AUTO_FD int pcap = -1;
    int r = m->o->pcap ? pcap_create(m->o->pcap, &pcap) : 0;

    if (r == 0 && (opt.path || opt.server))
        r = ctrlsocket_open(&m->ctrl, &opt);
    if (m->o->ctrl_fd >= 0)
        m->ctrl.listener = m->o->ctrl_fd;
    if (r < 0)
        return r;
    m->o->tpm.control = m->ctrl.listener >= 0 ? m->ctrl.listener : 0;
    m->o->tpm.server = m->ctrl.server >= 0 ? m->ctrl.server : 0;
    m->o->tpm.pcap = pcap >= 0 ? pcap : 0;
    m->o->tpm.incoming = m->o->incoming;
    m->o->tpm.moves = m->o->tpm.control;
    r = tpm_process_fork(&m->o->tpm, &m->tpm_pid, &m->tpm_socket);
    ctrlsocket_handed_on(&m->ctrl);
    return r;
}

/* Whether the image may go to another daemon, or come from one, while this mount lives. */
static bool
may_move(const struct options *o)
{
    return o->incoming || o->ctrl || o->ctrl_fd >= 0;
}

/* A child gets no key by the fork: see secret_pool_wipe_in_children(). */
static int
mount_begin(struct mount *m)
{
    int r;

    m->o->tpm.no_sandbox = m->o->no_sandbox;
    m->tpm_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (m->tpm_event < 0)
        return report(-errno, "cannot make an eventfd: %s", errno_text(-errno));
    secret_pool_wipe_in_children();
    r = unmounter_new(&m->unmounter, m->dir, m->privileged && !m->o->no_sandbox);
    if (r == 0 && may_move(m->o))
        r = reopener_new(&m->reopener, m->o->args[0], m->o->anchor, !m->o->no_sandbox);
    if (r == 0 && m->o->tpm.version != TPM_VERSION_NONE)
        r = fork_tpm(m);
    if (r == 0)
        r = open_store(m); /* may ask for a passphrase: Ctrl-C still ends us */
    if (r < 0)
        return r;
    m->signal_fd = daemon_signals();
    if (m->signal_fd < 0)
        return m->signal_fd;
    if (m->tpm_socket >= 0 && !m->o->incoming)
        r = reserve_tpm_room(m);
    if (r == 0)
        r = make_fs(m);
    if (r == 0)
        r = make_session(m);
    if (r == 0)
        r = enter_sandbox(m);
    return r < 0 ? r : start_serving(m);
}

/* ---- being there -------------------------------------------------------------------------------
 */

/* First an orderly end: off the host's tree at once, and served until the last file is closed.
 * Asked again, we do not wait for those who hold files: what is committed stays. */
static void
stop(struct mount *m)
{
    if (m->stops++ > 0) {
        report_at(REPORT_WARNING, 0, "%s: ending though files are open", m->image);
        session_abort(m->session);
        return;
    }
    daemon_stopping();
    session_detach(m->session);
    if (m->link)
        tpm_link_stop(m->link);
}

static void
take_signal(struct mount *m)
{
    struct signalfd_siginfo si;

    while (read(m->signal_fd, &si, sizeof si) == (ssize_t)sizeof si)
        stop(m);
}

/* A TPM that has gone takes the mount along: nobody shall go on with half a machine.  One that was
 * shut down through its control channel ends it in order. */
static void
take_tpm_event(struct mount *m)
{
    eventfd_t n;

    eventfd_read(m->tpm_event, &n);
    if (tpm_state(m, NULL) == TPM_STATE_STOPPED && m->o->tpm.control && m->stops == 0)
        stop(m);
    if (tpm_state(m, NULL) != TPM_STATE_GONE || m->failed)
        return;
    m->failed = true;
    session_stop(m->session);
}

/* It was asked to stop and keeps the mount busy. */
static void
kill_wedged_tpm(struct mount *m)
{
    if (!m->link || tpm_has_ended(m))
        return;
    report(0, "%s: the TPM does not stop: killed", m->image);
    kill(tpm_link_pid(m->link), SIGKILL);
}

static void
mount_serve(struct mount *m)
{
    struct pollfd p[] = {
        {.fd = session_end_fd(m->session), .events = POLLIN},
        {.fd = m->signal_fd, .events = POLLIN},
        {.fd = m->link ? m->tpm_event : -1, .events = POLLIN},
    };

    int alive_ms = daemon_watchdog_ms();

    while (!p[0].revents) {
        int n = poll(p, 3, m->stops ? TPM_STOP_MS : alive_ms);

        if (alive_ms >= 0 && m->stops == 0)
            daemon_alive();
        if (n == 0 && m->stops > 0)
            kill_wedged_tpm(m);
        if (n > 0 && p[1].revents)
            take_signal(m);
        if (n > 0 && p[2].revents)
            take_tpm_event(m);
    }
}

/* ---- going down --------------------------------------------------------------------------------
 */

/* The mount has gone, so the TPM process is ending by itself; a wedged one is not waited for. */
static void
wait_for_tpm(struct mount *m)
{
    struct pollfd p = {.fd = m->tpm_event, .events = POLLIN};
    eventfd_t n;

    tpm_link_stop(m->link);
    while (!tpm_has_ended(m) && poll(&p, 1, TPM_STOP_MS) > 0)
        eventfd_read(m->tpm_event, &n);
    if (tpm_state(m, NULL) != TPM_STATE_STOPPED)
        m->failed = true;
}

/* Whatever of it is there.  Returns the first failure: what was to be stored and could not be. */
static int
mount_end(struct mount *m, bool was_ready)
{
    bool failed;
    int r = 0;

    daemon_stopping(); /* from here on there are no more signs of life */
    if (m->session)
        session_stop(m->session);
    if (m->link && was_ready && !m->failed)
        wait_for_tpm(m);
    tpm_link_free(m->link);
    drop_tpm(m);
    if (m->fs) {
        if (m->session && session_ended_orderly(m->session))
            fs_close_all(m->fs);
        r = fs_finish(m->fs);
        fs_free(m->fs);
    }
    failed = m->failed || (m->session && session_failed(m->session));
    session_free(m->session);
    store_close(m->store);
    anchor_close(m->anchor);
    reopener_free(m->reopener);
    unmounter_free(m->unmounter);
    ctrlsocket_close(&m->ctrl);
    if (m->signal_fd >= 0)
        close(m->signal_fd);
    if (m->tpm_event >= 0)
        close(m->tpm_event);
    return r == 0 && failed ? -EIO : r;
}

static int
live(struct mount *m)
{
    int r = mount_begin(m), end;

    if (r == 0) {
        if (!daemon_ready(&m->daemon))
            stop(m);
        mount_serve(m);
    }
    end = mount_end(m, r == 0);
    return finding_exit_code(r < 0 ? r : end);
}

/* ---- the command -------------------------------------------------------------------------------
 */

static int
check_ctrl(struct options *o)
{
    struct stat st;
    bool has_ctrl = o->ctrl || o->ctrl_fd >= 0;

    if (o->tpm.version == TPM_VERSION_NONE && o->pcap)
        return report(-EINVAL, "pcap= is of use with tpm= only");
    if (o->tpm.version == TPM_VERSION_NONE && (has_ctrl || o->server))
        return report(-EINVAL, "ctrl=, ctrl_fd= and server= are of use with tpm= only");
    if (o->ctrl && o->ctrl_fd >= 0)
        return report(-EINVAL, "ctrl= and ctrl_fd= are two ways to say the same: give one");
    if (!has_ctrl && (o->tpm.terminate || (o->tpm.reject_locality_4 && !o->server)))
        return report(-EINVAL, "terminate and reject_locality_4 are of use with ctrl= only");
    if (o->ctrl_fd >= 0 && (fstat(o->ctrl_fd, &st) < 0 || !S_ISSOCK(st.st_mode)))
        return report(-EINVAL, "ctrl_fd: descriptor %d is not a socket", o->ctrl_fd);
    if ((has_ctrl || o->incoming) && !o->startup_given)
        o->tpm.startup = TPM_STARTUP_NONE; /* there is a firmware */
    /* where the clients of a server socket look for it */
    if (o->server && !has_ctrl && asprintf(&o->ctrl, "%s.ctrl", o->server) < 0)
        return report(-ENOMEM, "no memory for a socket's name");
    return 0;
}

/* Nobody but the client of a control channel can bring a machine. */
static int
check_incoming(struct options *o)
{
    int r = check_ctrl(o);

    if (r < 0)
        return r;
    if (o->read_only || o->degraded || o->anchor_create)
        return report(-EINVAL, "incoming takes the image over: not with ro, degraded or "
                               "anchor_create");
    if (o->tpm.version != TPM_VERSION_NONE && !o->ctrl && o->ctrl_fd < 0)
        return report(-EINVAL, "incoming with tpm= needs ctrl= or ctrl_fd=, by which the machine "
                               "comes");
    if (o->tpm.startup != TPM_STARTUP_NONE && o->startup_given)
        return report(-EINVAL, "startup= is not for incoming: the TPM comes as it is");
    return 0;
}

static int
check_options(struct options *o)
{
    if (o->tpm.version == TPM_VERSION_NONE && (o->startup_given || o->tpm.manufacture))
        return report(-EINVAL, "startup= and tpm_manufacture are of use with tpm= only");
    if (o->tpm.version != TPM_VERSION_NONE && (o->read_only || o->degraded))
        return report(-EINVAL, "tpm= needs a mount that can be written: not with ro or degraded");
    return o->incoming ? check_incoming(o) : check_ctrl(o);
}

/* What was written there while nothing was mounted is not seen any more, and may be a TPM's. */
static void
warn_hidden(const char *dir)
{
    struct mount_entry there = {0};
    const struct dirent *e = NULL;
    DIR *d = NULL;

    if (mountinfo_find(&there, dir) < 0)
        d = opendir(dir);
    mount_entry_fini(&there);
    while (d && (e = readdir(d)) && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0))
        ;
    if (e)
        report_at(REPORT_WARNING, 0,
                  "%s: is not empty: the mount hides what is there, such as %s; if it was written "
                  "while the image was not mounted, find out which one is right",
                  dir, e->d_name);
    if (d)
        closedir(d);
}

static int
resolve(struct mount *m)
{
    struct stat st;

    m->image = dev_real_name(m->o->args[0]);
    if (!m->image)
        return dev_is_path(m->o->args[0]) ? -EIO : -EINVAL; /* reported there */
    m->dir = mountinfo_realpath(m->o->args[1]);
    if (!m->dir)
        return report(-EIO, "%s: cannot mount there: %s", m->o->args[1], errno_text(-errno));
    if (!mountinfo_is_dead(m->dir) && stat(m->dir, &st) == 0 && !S_ISDIR(st.st_mode))
        return report(-EIO, "%s: cannot mount there: %s; the image goes first, then the directory",
                      m->dir, errno_text(-ENOTDIR));
    warn_hidden(m->dir);
    return 0;
}

int
cmd_mount(struct options *o)
{
    struct mount m = {
        .o = o,
        .privileged = may_mount(),
        .signal_fd = -1,
        .tpm_socket = -1,
        .tpm_event = -1,
        .ctrl = {.listener = -1, .server = -1, .keeper = -1},
        .tpm_lock = PTHREAD_MUTEX_INITIALIZER,
    };
    int code = EXIT_FAILED, r = check_options(o);

    mallopt(M_ARENA_MAX, 1); /* a host runs many of us: half the memory, and no slower */
    o->read_only |= o->degraded;
    daemon_clean_up(o->key.fd, o->ctrl_fd);
    if (r == 0)
        r = resolve(&m);
    if (r == 0 && o->fake)
        code = EXIT_DONE;
    else if (r == 0)
        r = daemon_fork(&m.daemon, o->foreground || o->debug, &code);
    if (r < 0)
        code = finding_exit_code(r);
    else if (r == 0 && !o->fake)
        code = live(&m);
    free(m.image);
    free(m.dir);
    return code;
}
