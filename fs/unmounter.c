/* SPDX-License-Identifier: BSD-3-Clause */
#include "fs/unmounter.h"
#include "base/report.h"
#include "base/sandbox.h"
#include "base/scope.h"
#include "fs/mountinfo.h"
#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>

struct unmounter {
    pid_t pid;
    int fd; /* SOCK_SEQPACKET: a dev_t there, an int back */
};

/* ---- the child ------------------------------------------------------------------------------ */

static int
run_fusermount(const char *dir)
{
    pid_t pid = fork();
    int status;

    if (pid < 0)
        return -errno;
    if (pid == 0) {
        execlp("fusermount3", "fusermount3", "-u", "-z", "-q", "--", dir, (char *)NULL);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

static int
detach(const char *dir, dev_t dev)
{
    struct mount_entry m = {0};
    int r = mountinfo_find(&m, dir);

    if (r < 0)
        return r;
    r = m.dev == dev ? 0 : -ENOENT;
    mount_entry_fini(&m);
    if (r < 0)
        return r;
    if (umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        return 0;
    return errno == EPERM ? run_fusermount(dir) : -errno;
}

/* It has the capability to unmount, and to reach the mount point through others' directories. */
static void
serve(const char *dir, int fd, bool sandbox)
{
    static const int calls[] = {SCMP_SYS(openat), SCMP_SYS(umount2)};
    static const struct sandbox_helper helper = {
        .name = "vnvram-unmount",
        .calls = calls,
        .n_calls = sizeof calls / sizeof *calls,
        .capabilities = SANDBOX_CAP(CAP_SYS_ADMIN) | SANDBOX_CAP(CAP_DAC_READ_SEARCH),
    };
    dev_t dev;

    if (sandbox_be_helper(&helper, fd, sandbox) < 0)
        return;
    while (recv(SANDBOX_HELPER_FD, &dev, sizeof dev, 0) == (ssize_t)sizeof dev) {
        int r = detach(dir, dev);

        if (send(SANDBOX_HELPER_FD, &r, sizeof r, MSG_NOSIGNAL) < 0)
            return;
    }
}

/* ---- the parent ----------------------------------------------------------------------------- */

int
unmounter_new(struct unmounter **out, const char *dir, bool sandbox)
{
    AUTO(unmounter_freep) struct unmounter *u = calloc(1, sizeof *u);
    int pair[2];

    if (!u)
        return report(-ENOMEM, "%s", errno_text(-ENOMEM));
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        int r = -errno;

        u->fd = -1;
        return report(r, "cannot make a socket: %s", errno_text(r));
    }
    u->fd = pair[0];
    u->pid = fork();
    if (u->pid == 0) {
        serve(dir, pair[1], sandbox);
        _exit(0);
    }
    close(pair[1]);
    if (u->pid < 0)
        return report(-errno, "cannot fork: %s", errno_text(-errno));
    *out = steal(&u);
    return 0;
}

int
unmounter_ask(struct unmounter *u, dev_t dev)
{
    return send(u->fd, &dev, sizeof dev, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int
unmounter_wait(struct unmounter *u, int timeout_ms)
{
    struct pollfd p = {.fd = u->fd, .events = POLLIN};
    int r, answer;

    do
        r = poll(&p, 1, timeout_ms);
    while (r < 0 && errno == EINTR);
    if (r <= 0)
        return r < 0 ? -errno : -ETIMEDOUT;
    return recv(u->fd, &answer, sizeof answer, 0) == (ssize_t)sizeof answer ? answer : -EPIPE;
}

void
unmounter_free(struct unmounter *u)
{
    if (!u)
        return;
    if (u->fd >= 0)
        close(u->fd);
    while (u->pid > 0 && waitpid(u->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    free(u);
}

void
unmounter_freep(struct unmounter **u)
{
    unmounter_free(*u);
}
