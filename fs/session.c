/* SPDX-License-Identifier: BSD-3-Clause */
#include "fs/session.h"
#include "base/report.h"
#include "base/scope.h"
#include "fs/mountinfo.h"
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

enum {
    THREADS_DEFAULT = 4,
    THREADS_MAX = 32,
    STACK_SIZE = 256 * 1024, /* a host runs one of us per virtual machine */
    INIT_WAIT_MS = 10000,
    DETACH_WAIT_MS = 2000,
    END_WAIT_MS = 500,
    WAKE_EVERY_MS = 20,
    WAKE_SIGNAL = SIGUSR1,
};

struct session {
    struct fuse_session *fuse;
    struct unmounter *unmounter;
    char *mountpoint;
    dev_t dev;
    int end_fd;            /* the last worker has ended, or one has failed */
    int cut_fd, mounts_fd; /* a pipe's end and mountinfo, for the end: nothing can be opened then */
    bool mounted, detached;
    atomic_bool failed;   /* requests cannot be read */
    atomic_bool given_up; /* by us: aborted, or because of that */
    atomic_bool gone;     /* the kernel has ended the connection */
    atomic_uint running;  /* worker threads that have not ended */
    unsigned n_wanted, n_threads;
    pthread_t threads[THREADS_MAX];
};

/* ---- making --------------------------------------------------------------------------------- */

static void
to_report(enum fuse_log_level level, const char *fmt, va_list ap)
{
    char text[512];
    int n = vsnprintf(text, sizeof text, fmt, ap);

    if (n > 0)
        text[strcspn(text, "\n")] = '\0';
    report_at(level <= FUSE_LOG_ERR       ? REPORT_ERROR
              : level == FUSE_LOG_WARNING ? REPORT_WARNING
                                          : REPORT_DEBUG,
              0, "%s", text);
}

/* Commas divide mount options; a backslash keeps one in a path. */
static void
print_escaped(FILE *out, const char *s)
{
    for (; *s; s++) {
        if (*s == ',' || *s == '\\')
            fputc('\\', out);
        fputc(*s, out);
    }
}

static char *
format_options(const struct session_options *opt)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return NULL;
    fputs("subtype=vnvram,default_permissions,fsname=", out);
    print_escaped(out, opt->source);
    fprintf(out, "%s%s%s%s%s", opt->read_only ? ",ro" : "", opt->allow_other ? ",allow_other" : "",
            opt->debug ? ",debug" : "", opt->extra ? "," : "", opt->extra ? opt->extra : "");
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static int
clear_mountpoint(const struct session_options *opt)
{
    struct mount_entry m = {0};
    int r = mountinfo_find(&m, opt->mountpoint);
    bool ours = r == 0 && mount_entry_is_ours(&m);
    dev_t dev = m.dev;

    mount_entry_fini(&m);
    if (!ours)
        return r == -ENOENT ? 0 : r;
    if (!mountinfo_is_dead(opt->mountpoint))
        return report(-EBUSY,
                      "%s: in use: an image is mounted there; what to do: unmount it, or "
                      "mount on another directory",
                      opt->mountpoint);
    r = unmounter_ask(opt->unmounter, dev);
    if (r == 0)
        r = unmounter_wait(opt->unmounter, DETACH_WAIT_MS);
    if (r < 0)
        return report(r, "%s: cannot detach the dead mount there: %s", opt->mountpoint,
                      errno_text(r));
    report_at(REPORT_NOTICE, 0, "%s: detached a mount whose daemon had died", opt->mountpoint);
    return 0;
}

static int
mount_session(struct session *se, struct fs *fs, const struct session_options *opt)
{
    AUTO_FREE char *text = format_options(opt);
    char *argv[] = {(char[]){"vnvram"}, (char[]){"-o"}, text, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, argv);
    struct mount_entry m = {0};
    int r;

    if (!text)
        return report(-ENOMEM, "%s", errno_text(-ENOMEM));
    fuse_set_log_func(to_report);
    se->fuse = fuse_session_new(&args, fs_lowlevel_ops(), sizeof(struct fuse_lowlevel_ops), fs);
    fuse_opt_free_args(&args);
    if (!se->fuse)
        return report(-EIO, "%s: cannot make a FUSE session", opt->mountpoint);
    if (fuse_session_mount(se->fuse, opt->mountpoint) != 0)
        return report(-EIO, "%s: cannot mount", opt->mountpoint);
    r = mountinfo_find(&m, opt->mountpoint);
    if (r < 0)
        return report(r, "%s: mounted, and not there: %s", opt->mountpoint, errno_text(r));
    se->dev = m.dev;
    se->mounted = true;
    mount_entry_fini(&m);
    return 0;
}

/* The end to write to, for nobody. */
static int
open_broken_pipe(void)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -1;
    close(fds[0]);
    return fds[1];
}

int
session_new(struct session **out, struct fs *fs, const struct session_options *opt)
{
    AUTO(session_freep) struct session *se = NULL;
    int r = clear_mountpoint(opt);

    if (r < 0)
        return r;
    se = calloc(1, sizeof *se);
    if (!se)
        return report(-ENOMEM, "%s", errno_text(-ENOMEM));
    se->unmounter = opt->unmounter;
    se->n_wanted = opt->threads ? opt->threads : THREADS_DEFAULT;
    if (se->n_wanted > THREADS_MAX)
        se->n_wanted = THREADS_MAX;
    se->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    se->cut_fd = open_broken_pipe();
    se->mounts_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    se->mountpoint = strdup(opt->mountpoint);
    if (se->end_fd < 0 || se->cut_fd < 0 || se->mounts_fd < 0 || !se->mountpoint)
        return report(-EIO, "cannot open what a session needs: %s", errno_text(-errno));
    r = mount_session(se, fs, opt);
    if (r < 0)
        return r;
    *out = steal(&se);
    return 0;
}

/* ---- running -------------------------------------------------------------------------------- */

static void
wake(int sig)
{
    (void)sig; /* only to let a read(2) return */
}

/* The first request of every connection is FUSE_INIT: answering it here tells that the mount works,
 * without a use of the mount. */
static int
answer_init(struct session *se)
{
    struct pollfd p = {.fd = fuse_session_fd(se->fuse), .events = POLLIN};
    struct fuse_buf buf = {0};
    int r = poll(&p, 1, INIT_WAIT_MS);

    r = r > 0 ? fuse_session_receive_buf(se->fuse, &buf) : -ETIMEDOUT;
    if (r > 0)
        fuse_session_process_buf(se->fuse, &buf);
    free(buf.mem);
    if (r <= 0 || fuse_session_exited(se->fuse))
        return report(-EIO, "%s: the kernel does not start the FUSE session", se->mountpoint);
    return 0;
}

/* The last one to go says so. */
static void
one_less(struct session *se)
{
    if (atomic_fetch_sub(&se->running, 1) == 1)
        eventfd_write(se->end_fd, 1);
}

static void *
worker(void *arg)
{
    struct session *se = arg;
    struct fuse_buf buf = {0};

    while (!fuse_session_exited(se->fuse)) {
        int r = fuse_session_receive_buf(se->fuse, &buf);

        if (r == -EINTR || r == -EAGAIN)
            continue;
        if (r <= 0) {
            if (r < 0) {
                report(r, "%s: FUSE: %s", se->mountpoint, errno_text(r));
                se->failed = se->given_up = true;
            }
            if (!se->given_up) /* libfuse says 0 then, too */
                se->gone = true;
            fuse_session_exit(se->fuse);
            if (se->failed) /* the others may wait for requests, and lose them: to be aborted */
                eventfd_write(se->end_fd, 1);
            break;
        }
        fuse_session_process_buf(se->fuse, &buf);
    }
    free(buf.mem);
    one_less(se);
    return NULL;
}

static int
start_workers(struct session *se)
{
    pthread_attr_t attr;
    int r = 0;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    while (r == 0 && se->n_threads < se->n_wanted) {
        atomic_fetch_add(&se->running, 1);
        r = pthread_create(&se->threads[se->n_threads], &attr, worker, se);
        if (r == 0)
            se->n_threads++;
        else
            one_less(se);
    }
    pthread_attr_destroy(&attr);
    return r == 0 ? 0 : report(-r, "%s: cannot start a thread: %s", se->mountpoint, errno_text(-r));
}

int
session_start(struct session *se)
{
    struct sigaction sa = {.sa_handler = wake};
    sigset_t block, old;
    int r = answer_init(se);

    if (r < 0)
        return r;
    sigaction(WAKE_SIGNAL, &sa, NULL);
    sigfillset(&block);
    sigdelset(&block, WAKE_SIGNAL);
    pthread_sigmask(SIG_SETMASK, &block, &old);
    r = start_workers(se);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

dev_t
session_dev(const struct session *se)
{
    return se->dev;
}

int
session_end_fd(const struct session *se)
{
    return se->end_fd;
}

static int
is_mounted(void *arg, const struct mount_entry *m)
{
    const struct session *se = arg;

    return m->dev == se->dev && strcmp(m->dir, se->mountpoint) == 0;
}

/* An abort under /sys/fs/fuse looks the same to us, but leaves the mount there. */
bool
session_ended_orderly(const struct session *se)
{
    return se->gone && mountinfo_each_in(se->mounts_fd, is_mounted, (void *)se) == 0;
}

bool
session_failed(const struct session *se)
{
    return se->failed;
}

/* A file that nobody looked up is none to the kernel, and that is fine. */
void
session_forget(struct session *se, uint64_t ino)
{
    fuse_lowlevel_notify_inval_inode(se->fuse, ino, 0, 0);
}

/* ---- ending --------------------------------------------------------------------------------- */

int
session_detach(struct session *se)
{
    int r;

    if (se->detached || se->gone) /* its number may be another mount's by now */
        return 0;
    r = unmounter_ask(se->unmounter, se->dev);
    if (r == 0)
        r = unmounter_wait(se->unmounter, DETACH_WAIT_MS);
    if (r < 0 && r != -ENOENT)
        return report(r, "%s: cannot unmount: %s", se->mountpoint, errno_text(r));
    se->detached = true;
    return 0;
}

static bool
has_ended(const struct session *se, int timeout_ms)
{
    struct pollfd p = {.fd = se->end_fd, .events = POLLIN};
    eventfd_t n;

    if (se->running > 0 && poll(&p, 1, timeout_ms) > 0)
        eventfd_read(se->end_fd, &n); /* of one that failed, or of the last one */
    if (se->running > 0)
        return false;
    eventfd_write(se->end_fd, 1); /* whoever waits for it elsewhere must see it, too */
    return true;
}

void
session_abort(struct session *se)
{
    if (se->n_threads == 0)
        return;
    se->given_up = true;
    fuse_session_exit(se->fuse);
    do /* again and again: a worker may have looked just before, and read just after */
        for (unsigned i = 0; i < se->n_threads; i++)
            pthread_kill(se->threads[i], WAKE_SIGNAL);
    while (!has_ended(se, WAKE_EVERY_MS));
}

/* A living mount must not stay behind dead, not even when the workers have failed.  Detaching may
 * write back through them, so they end after it. */
static void
end_mount(struct session *se)
{
    if (!se->gone && session_detach(se) == 0 && se->n_threads > 0)
        has_ended(se, END_WAIT_MS);
    if (!has_ended(se, 0))
        session_abort(se);
}

/* The kernel ends the connection when its descriptor goes, and whoever waits for an answer gets
 * ENOTCONN.  The number must stay taken: a reply that comes late goes nowhere. */
static void
cut_connection(struct session *se)
{
    dup3(se->cut_fd, fuse_session_fd(se->fuse), O_CLOEXEC);
}

void
session_stop(struct session *se)
{
    if (!se->mounted)
        return;
    end_mount(se);
    se->mounted = false;
    for (unsigned i = 0; i < se->n_threads; i++)
        pthread_join(se->threads[i], NULL);
    se->n_threads = 0;
    if (!se->gone)
        cut_connection(se);
}

void
session_free(struct session *se)
{
    if (!se)
        return;
    session_stop(se);
    /* libfuse would unmount by path, whatever lies there by now.  It does not when poll(2) tells
     * that the connection has gone, and POLLERR is what it looks for. */
    if (se->fuse) {
        cut_connection(se);
        fuse_session_unmount(se->fuse); /* closes the descriptor */
        fuse_session_destroy(se->fuse);
    }
    scope_close(&se->end_fd);
    scope_close(&se->cut_fd);
    scope_close(&se->mounts_fd);
    free(se->mountpoint);
    free(se);
}

void
session_freep(struct session **se)
{
    session_free(*se);
}
