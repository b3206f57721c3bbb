/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/reopener.h"
#include "base/clock.h"
#include "base/report.h"
#include "base/sandbox.h"
#include "base/scope.h"
#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { IMAGE, ANCHOR, FILES, LINE = 512, SLACK_MS = 10000, END_MS = 3000, END_POLL_MS = 5 };

struct request {
    uint32_t number;
    uint32_t file;
    uint32_t wait_ms;
    int64_t deadline; /* of clock_ms(): nobody waits for an answer after that */
};

struct answer {
    uint32_t number; /* the request's */
    int32_t r;
    struct dev_files files; /* their descriptors come along */
    char line[LINE];        /* what there is to report; empty: nothing */
};

struct reopener {
    pid_t pid;
    int fd;          /* SOCK_SEQPACKET */
    uint32_t number; /* of the last request */
    struct door {
        struct reopener *r;
        uint32_t file;
    } doors[FILES];
};

union control {
    struct cmsghdr align;
    char space[CMSG_SPACE(DEV_FILES_MAX * sizeof(int))];
};

/* ---- the child ------------------------------------------------------------------------------ */

/* The daemon reports it. */
static void
keep_line(void *arg, enum report_level level, const char *line)
{
    struct answer *a = arg;

    (void)level;
    if (!*a->line)
        snprintf(a->line, sizeof a->line, "%s", line);
}

static int
send_answer(int fd, const struct answer *a)
{
    const struct dev_files *files = &a->files;
    union control control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)a, .iov_len = sizeof *a};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (files->n > 0) {
        struct cmsghdr *h;

        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(files->n * sizeof(int));
        h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(files->n * sizeof(int));
        memcpy(CMSG_DATA(h), files->fds, files->n * sizeof(int));
    }
    return sendmsg(fd, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* A lock belongs to what was opened, not to who opened it: it stays with the daemon's copy.  So
 * what comes too late is not sent: it would be locked as long as it lies in the socket. */
static int
serve_one(int fd, const struct request *q, const char *path)
{
    AUTO(dev_closep) struct dev *d = NULL;
    struct answer a = {.number = q->number};

    report_set_sink(keep_line, &a);
    if (clock_ms() >= q->deadline)
        a.r = -ETIMEDOUT;
    else
        a.r = path ? dev_file_open_within(&d, path, 0, q->wait_ms) : -EINVAL;
    if (a.r == 0 && clock_ms() >= q->deadline)
        a.r = -ETIMEDOUT;
    if (a.r == 0)
        dev_file_lend(d, &a.files);
    return send_answer(fd, &a);
}

/* It has the right to files of others, as the daemon had when it opened them. */
static void
serve(const char *const paths[FILES], int fd, bool sandbox)
{
    static const int calls[] = {SCMP_SYS(open),     SCMP_SYS(openat),    SCMP_SYS(stat),
                                SCMP_SYS(lstat),    SCMP_SYS(ioctl),     SCMP_SYS(flock),
                                SCMP_SYS(readlink), SCMP_SYS(getdents64)};
    static const struct sandbox_helper helper = {
        .name = "vnvram-image",
        .calls = calls,
        .n_calls = sizeof calls / sizeof *calls,
        .capabilities = SANDBOX_CAP(CAP_DAC_OVERRIDE) | SANDBOX_CAP(CAP_DAC_READ_SEARCH),
    };
    struct request q;

    if (sandbox_be_helper(&helper, fd, sandbox) < 0)
        return;
    while (recv(SANDBOX_HELPER_FD, &q, sizeof q, 0) == (ssize_t)sizeof q)
        if (serve_one(SANDBOX_HELPER_FD, &q, q.file < FILES ? paths[q.file] : NULL) < 0)
            return;
}

/* The daemon and its child will be elsewhere.  NULL: no memory. */
static char *
absolute(const char *path)
{
    AUTO_FREE char *cwd = *path == '/' ? NULL : getcwd(NULL, 0);
    char *whole = NULL;

    if (!cwd)
        return *path == '/' ? strdup(path) : NULL;
    return asprintf(&whole, "%s/%s", cwd, path) < 0 ? NULL : whole;
}

/* ---- the daemon's side ---------------------------------------------------------------------- */

int
reopener_new(struct reopener **out, const char *image, const char *anchor, bool sandbox)
{
    AUTO_FREE char *image_path = absolute(image);
    AUTO_FREE char *anchor_path = anchor ? absolute(anchor) : NULL;
    const char *const paths[FILES] = {image_path, anchor_path};
    AUTO_FREE struct reopener *r = calloc(1, sizeof *r);
    int fds[2];

    if (!r || !image_path || (anchor && !anchor_path))
        return report(-ENOMEM, "no memory for a helper");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return report(-errno, "cannot make a socket: %s", errno_text(-errno));
    r->pid = fork();
    if (r->pid == 0) {
        serve(paths, fds[1], sandbox);
        _exit(EXIT_SUCCESS);
    }
    close(fds[1]);
    r->fd = fds[0];
    if (r->pid < 0) {
        int err = -errno;

        close(r->fd);
        return report(err, "cannot start a process: %s", errno_text(err));
    }
    for (uint32_t i = 0; i < FILES; i++)
        r->doors[i] = (struct door){r, i};
    *out = steal(&r);
    return 0;
}

/* The descriptors that came take the places of those that the helper had. */
static unsigned
collect(struct msghdr *msg, struct dev_files *files)
{
    unsigned n = 0;

    for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        n = (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(files->fds, CMSG_DATA(h), n * sizeof(int));
    }
    return n;
}

static int
receive(int fd, struct answer *a)
{
    union control control = {0};
    struct iovec iov = {.iov_base = a, .iov_len = sizeof *a};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control};
    unsigned wanted;
    ssize_t n;

    do
        n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    wanted = a->files.n;
    a->files.n = collect(&msg, &a->files);
    a->line[sizeof a->line - 1] = '\0';
    return n == (ssize_t)sizeof *a && a->files.n == wanted ? 0 : -EIO;
}

static void
close_files(struct dev_files *files)
{
    while (files->n > 0)
        close(files->fds[--files->n]);
}

static int
wait_for_answer(int fd, int64_t deadline)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int64_t left;
    int n;

    do {
        left = deadline - clock_ms();
        n = poll(&p, 1, left > 0 ? (int)left : 0);
    } while (n < 0 && errno == EINTR);
    return n == 1 ? 0 : -EIO;
}

/* Answers to earlier requests, which nobody waited for any more, are dropped. */
static int
ask(int fd, const struct request *q, struct answer *a)
{
    int r = send(fd, q, sizeof *q, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -EIO : 0;

    while (r == 0) {
        r = wait_for_answer(fd, q->deadline);
        if (r == 0)
            r = receive(fd, a);
        if (r < 0 || a->number == q->number)
            break;
        close_files(&a->files);
    }
    return r;
}

/* One at a time: a store's take. */
static int
reopen(void *arg, unsigned wait_ms, struct dev_files *files)
{
    const struct door *door = arg;
    const struct request q = {.number = ++door->r->number,
                              .file = door->file,
                              .wait_ms = wait_ms,
                              .deadline = clock_ms() + wait_ms + SLACK_MS};
    struct answer a = {0};
    int r = ask(door->r->fd, &q, &a);

    *files = a.files;
    if (r < 0)
        report(r, "the process that opens the image does not answer");
    else if (a.r < 0)
        r = report(a.r, "%s", *a.line ? a.line : "cannot be opened");
    else if (files->n == 0)
        r = report(-EIO, "the process that opens the image gave nothing");
    if (r < 0)
        close_files(files);
    return r;
}

void
reopener_serve(struct reopener *r, struct dev *d, bool anchor)
{
    dev_file_set_reopen(d, reopen, &r->doors[anchor ? ANCHOR : IMAGE]);
}

void
reopener_free(struct reopener *r)
{
    int64_t deadline;

    if (!r)
        return;
    close(r->fd); /* it ends, unless a device that does not answer keeps it */
    deadline = clock_ms() + END_MS;
    while (waitpid(r->pid, NULL, WNOHANG) == 0 && clock_ms() < deadline)
        poll(NULL, 0, END_POLL_MS);
    free(r);
}
