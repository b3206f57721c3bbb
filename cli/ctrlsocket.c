/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/ctrlsocket.h"
#include "base/report.h"
#include "base/sandbox.h"
#include "base/scope.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { BACKLOG = 8, END_MS = 2000, SOCKETS = 2 };

/* What was made where. */
struct made {
    struct sockaddr_un sun;
    struct stat st;
};

/* ---- the helper ------------------------------------------------------------------------------ */

static void
remove_made(const struct made *m)
{
    const char *path = m->sun.sun_path;
    struct stat st;

    if (fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == m->st.st_dev &&
        st.st_ino == m->st.st_ino && S_ISSOCK(st.st_mode))
        unlinkat(AT_FDCWD, path, 0);
}

/* It has the right to remove from a directory of others'.  The sockets' end is the daemon's word,
 * or its death. */
static __attribute__((noreturn)) void
keep(const struct made made[SOCKETS], size_t n, int fd, bool sandbox)
{
    static const int calls[] = {SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(lstat)};
    static const struct sandbox_helper helper = {
        .name = "vnvram-socket",
        .calls = calls,
        .n_calls = sizeof calls / sizeof *calls,
        .capabilities = SANDBOX_CAP(CAP_DAC_OVERRIDE) | SANDBOX_CAP(CAP_FOWNER),
    };
    char byte;

    if (sandbox_be_helper(&helper, fd, sandbox) < 0)
        _exit(EXIT_FAILURE);
    while (read(SANDBOX_HELPER_FD, &byte, 1) < 0 && errno == EINTR)
        ;
    for (size_t i = 0; i < n; i++)
        remove_made(&made[i]);
    _exit(EXIT_SUCCESS);
}

static int
start_keeper(struct ctrlsocket *s, const struct made made[SOCKETS], size_t n, bool sandbox)
{
    int fds[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return report(-errno, "cannot make a socket: %s", errno_text(errno));
    pid = fork();
    if (pid == 0)
        keep(made, n, fds[1], sandbox);
    close(fds[1]);
    s->keeper = fds[0];
    return pid < 0 ? report(-EAGAIN, "cannot start a process: %s", errno_text(errno)) : 0;
}

/* ---- the socket ------------------------------------------------------------------------------ */

/* Absolute, as we will be elsewhere. */
static int
make_address(struct sockaddr_un *sun, const char *path)
{
    AUTO_FREE char *for_dir = strdup(path), *for_name = strdup(path), *dir = NULL;
    int n;

    if (!for_dir || !for_name)
        return report(-ENOMEM, "no memory for a socket");
    dir = realpath(dirname(for_dir), NULL);
    if (!dir)
        return report(-EIO, "%s: cannot make a socket there: %s", path, errno_text(errno));
    *sun = (struct sockaddr_un){.sun_family = AF_UNIX};
    n = snprintf(sun->sun_path, sizeof sun->sun_path, "%s/%s", dir, basename(for_name));
    if (n < 0 || (size_t)n >= sizeof sun->sun_path)
        return report(-ENAMETOOLONG, "%s: a socket's path may have %zu characters", path,
                      sizeof sun->sun_path - 1);
    return 0;
}

static int
remove_stale(const struct sockaddr_un *sun)
{
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct stat st;

    if (lstat(sun->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : report(-errno, "%s: %s", sun->sun_path, errno_text(errno));
    if (!S_ISSOCK(st.st_mode))
        return report(-EIO, "%s: is there, and is not a socket", sun->sun_path);
    if (fd < 0 || connect(fd, (const struct sockaddr *)sun, sizeof *sun) == 0 ||
        errno != ECONNREFUSED)
        return report(-EBUSY, "%s: somebody else has this socket", sun->sun_path);
    if (unlink(sun->sun_path) < 0)
        return report(-errno, "%s: cannot replace: %s", sun->sun_path, errno_text(errno));
    return 0;
}

/* Nobody can connect before listen(2), so its mode and owner are right when somebody does. */
static int
make_socket(const struct sockaddr_un *sun, const struct ctrlsocket_options *opt, int *out)
{
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const char *path = sun->sun_path;

    if (fd < 0 || bind(fd, (const struct sockaddr *)sun, sizeof *sun) < 0)
        return report(-errno, "%s: cannot make a socket there: %s", path, errno_text(errno));
    if (((opt->uid != (uid_t)-1 || opt->gid != (gid_t)-1) &&
         lchown(path, opt->uid, opt->gid) < 0) ||
        chmod(path, opt->mode) < 0 || listen(fd, BACKLOG) < 0) {
        int r = -errno;

        unlink(path);
        return report(r, "%s: cannot set up the socket: %s", path, errno_text(r));
    }
    *out = steal_fd(&fd);
    return 0;
}

static int
make_one(struct made *m, const char *path, const struct ctrlsocket_options *opt, int *fd)
{
    int r = make_address(&m->sun, path);

    if (r == 0)
        r = remove_stale(&m->sun);
    if (r == 0)
        r = make_socket(&m->sun, opt, fd);
    if (r == 0 && lstat(m->sun.sun_path, &m->st) < 0)
        r = report(-errno, "%s: %s", path, errno_text(errno));
    return r;
}

int
ctrlsocket_open(struct ctrlsocket *s, const struct ctrlsocket_options *opt)
{
    const char *const paths[SOCKETS] = {opt->path, opt->server};
    int *const fds[SOCKETS] = {&s->listener, &s->server};
    struct made made[SOCKETS];
    size_t n = 0;
    int r = 0;

    for (size_t i = 0; i < SOCKETS && r == 0; i++) {
        if (paths[i])
            r = make_one(&made[n], paths[i], opt, fds[i]);
        if (paths[i] && r == 0)
            n++;
    }
    if (r == 0)
        r = start_keeper(s, made, n, opt->sandbox);
    for (size_t i = 0; i < n && r < 0; i++)
        remove_made(&made[i]);
    return r;
}

void
ctrlsocket_handed_on(struct ctrlsocket *s)
{
    scope_close(&s->listener);
    scope_close(&s->server);
    s->listener = s->server = -1;
}

void
ctrlsocket_close(struct ctrlsocket *s)
{
    struct pollfd p = {.fd = s->keeper, .events = POLLIN};

    ctrlsocket_handed_on(s);
    if (s->keeper < 0)
        return;
    shutdown(s->keeper, SHUT_WR);
    poll(&p, 1, END_MS); /* it has ended */
    close(s->keeper);
    s->keeper = -1;
}
