/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/daemon.h"
#include "base/finding.h"
#include "base/report.h"
#include "base/sandbox.h"
#include "base/scope.h"
#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

enum { FRONT_WAIT_MS = 10000 };

/* ---- reports -----------------------------------------------------------------------------------
 */

/* systemd tells which stream is the journal's: DEVICE:INODE. */
static bool
stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long dev, ino;
    struct stat st;

    return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

static void
to_syslog(void *arg, enum report_level level, const char *line)
{
    (void)arg;
    syslog((int)level, "%s", line); /* enum report_level counts as syslog does */
}

static void
leave_stdio(int null)
{
    bool journal = stderr_is_journal();

    if (!journal) {
        openlog("vnvram", LOG_PID | LOG_NDELAY, LOG_DAEMON);
        report_set_sink(to_syslog, NULL);
    }
    for (int fd = 0; fd <= (journal ? STDOUT_FILENO : STDERR_FILENO); fd++)
        dup2(null, fd);
}

/* ---- the front ---------------------------------------------------------------------------------
 */

/* The pidfd is watched beside the socket: its other end may live on for a moment in the daemon's
 * children.  A signal ends us while we wait and at no other time: the daemon goes on when we have
 * answered, and then the mount is there and we say so. */
static int
wait_for_daemon(pid_t pid, int ready_fd)
{
    AUTO_FD int pidfd = pidfd_open(pid, 0);
    sigset_t all, old;
    struct pollfd p[] = {
        {.fd = ready_fd, .events = POLLIN},
        {.fd = pidfd, .events = POLLIN},
    };
    int status;
    char byte;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old);
    while (ppoll(p, 2, NULL, &old) < 0 && errno == EINTR)
        ;
    if ((p[0].revents & POLLIN) && recv(ready_fd, &byte, 1, 0) == 1 &&
        (send(ready_fd, &byte, 1, MSG_NOSIGNAL) == 1 || recv(ready_fd, &byte, 1, 0) == 1))
        return EXIT_DONE;
    sigprocmask(SIG_SETMASK, &old, NULL);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return report(EXIT_FAILED, "cannot wait for the daemon: %s", errno_text(-errno));
    if (WIFSIGNALED(status))
        return report(EXIT_FAILED, "the daemon was ended by signal %d (%s)", WTERMSIG(status),
                      strsignal(WTERMSIG(status)));
    return WEXITSTATUS(status);
}

int
daemon_fork(struct daemon *d, bool foreground, int *code)
{
    int fds[2];
    pid_t pid;

    *d = (struct daemon){.foreground = foreground, .ready_fd = -1, .null_fd = -1};
    prctl(PR_SET_NAME, "vnvram"); /* by whatever name it was called */
    if (stderr_is_journal())
        report_use_levels(true);
    if (foreground)
        return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return report(-errno, "cannot make a socket: %s", errno_text(-errno));
    pid = fork();
    if (pid < 0) {
        int r = -errno;

        close(fds[0]);
        close(fds[1]);
        return report(r, "cannot fork: %s", errno_text(r));
    }
    if (pid == 0) {
        close(fds[0]);
        d->ready_fd = fds[1];
        d->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        prctl(PR_SET_PDEATHSIG,
              SIGTERM); /* a front that is killed takes the half-made mount along */
        return 0;
    }
    close(fds[1]);
    *code = wait_for_daemon(pid, fds[0]);
    close(fds[0]);
    return 1;
}

/* ---- the daemon --------------------------------------------------------------------------------
 */

/* Closes what is between @below and @above. */
static void
close_between(int below, int above)
{
    if (above > below + 1)
        close_range((unsigned)below + 1, (unsigned)above - 1, 0);
}

void
daemon_clean_up(int keep, int keep_too)
{
    int low = keep < keep_too ? keep : keep_too, high = keep < keep_too ? keep_too : keep;
    int last = STDERR_FILENO, fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    for (int i = 0; i < 2; i++) {
        int kept = i == 0 ? low : high;

        if (kept <= last)
            continue;
        close_between(last, kept);
        fcntl(kept, F_SETFD, FD_CLOEXEC);
        last = kept;
    }
    close_range((unsigned)last + 1, ~0U, 0);
    umask(077);
    signal(SIGCHLD, SIG_DFL); /* ignored, our children would leave no exit code */
}

/* Root's TPM process may run as another user, and only a capability signals that one.  So may the
 * server at a socket: connecting to it takes a right to the socket's file, and the path to it. */
int
daemon_confine(pid_t child, bool is_others, bool sends, const struct sandbox_connect *connect)
{
    static const int calls[] = {SCMP_SYS(fadvise64),    SCMP_SYS(arm_fadvise64_64),
                                SCMP_SYS(chdir),        SCMP_SYS(setsid),
                                SCMP_SYS(io_setup),     SCMP_SYS(io_submit),
                                SCMP_SYS(io_getevents), SCMP_SYS(io_destroy)};
    const struct sandbox_options opt = {
        .calls = calls,
        .n_calls = sizeof calls / sizeof *calls - (sends ? 0 : 4),
        .child = child,
        .may_log = true,
        .connect = *connect,
    };
    const uint64_t keep = SANDBOX_CAP(CAP_LEASE) | (is_others ? SANDBOX_CAP(CAP_KILL) : 0) |
                          (connect->local ? SANDBOX_CAP(CAP_DAC_OVERRIDE) : 0);
    int r;

    tzset(); /* for syslog(3): it reads a file */
    sandbox_bound_capabilities(keep);
    r = sandbox_keep_capabilities(keep);
    if (r < 0)
        return report(r, "cannot drop capabilities: %s; -o sandbox=off does without",
                      errno_text(r));
    return sandbox_enter(&opt);
}

int
daemon_signals(void)
{
    sigset_t set;
    int fd;

    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd >= 0 ? fd : report(-errno, "cannot watch signals: %s", errno_text(-errno));
}

/* False when somebody has ended the front, and does not expect us to stay.  One that was stopped
 * (Ctrl-Z) is not waited for without end, and finds a second byte when it goes on. */
static bool
front_agrees(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char byte = 1;
    int r;

    if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
        return false;
    do
        r = poll(&p, 1, FRONT_WAIT_MS);
    while (r < 0 && errno == EINTR);
    return r == 0 ? send(fd, &byte, 1, MSG_NOSIGNAL) == 1 : recv(fd, &byte, 1, 0) == 1;
}

bool
daemon_ready(struct daemon *d)
{
    bool wanted;

    if (chdir("/") < 0)
        report_at(REPORT_WARNING, 0, "cannot change to /: %s", errno_text(-errno));
    if (!d->foreground) {
        prctl(PR_SET_PDEATHSIG, 0);
        setsid();
        leave_stdio(d->null_fd);
        close(d->null_fd);
        d->null_fd = -1;
    }
#ifdef HAVE_SYSTEMD
    sd_notifyf(0, "READY=1\nMAINPID=%ld", (long)getpid());
#endif
    if (d->ready_fd < 0)
        return true;
    wanted = front_agrees(d->ready_fd);
    if (!wanted)
        report_at(REPORT_WARNING, 0, "the process that waited for this one was ended: ending, too");
    close(d->ready_fd);
    d->ready_fd = -1;
    return wanted;
}

void
daemon_stopping(void)
{
#ifdef HAVE_SYSTEMD
    sd_notify(0, "STOPPING=1");
#endif
}

int
daemon_watchdog_ms(void)
{
#ifdef HAVE_SYSTEMD
    uint64_t usec;

    if (sd_watchdog_enabled(0, &usec) > 0)
        return usec / 2000 > INT_MAX ? INT_MAX : usec < 2000 ? 1 : (int)(usec / 2000);
#endif
    return -1;
}

void
daemon_alive(void)
{
#ifdef HAVE_SYSTEMD
    sd_notify(0, "WATCHDOG=1");
#endif
}
