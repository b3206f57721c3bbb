/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/mountstatus.h"
#include "base/report.h"
#include "base/scope.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

enum {
    ANSWER_MS = 5000, /* a mount on a slow disk answers within a commit */
    ANSWER_MAX = 64 * 1024,
};

static const char *const health_names[] = {
    [MOUNT_OK] = "ok",
    [MOUNT_READ_ONLY] = "read-only",
    [MOUNT_DEGRADED] = "degraded",
    [MOUNT_TPM_FAILED] = "tpm-failed",
    [MOUNT_DEAD] = "dead",
    [MOUNT_SILENT] = "silent",
    [MOUNT_DENIED] = "denied",
    [MOUNT_UNREADABLE] = "unreadable",
};

const char *
mount_health_name(enum mount_health h)
{
    return health_names[h];
}

/* ---- the child ---------------------------------------------------------------------------------
 */

/* A mount without allow_other lets in nobody but its user, root neither; and what a user's mount
 * says is that user's word, to be read with that user's rights. */
static int
become(const struct mount_entry *m)
{
    if (geteuid() != 0 || m->user == 0)
        return 0;
    if (setgroups(0, NULL) < 0 || setresgid(m->group, m->group, m->group) < 0 ||
        setresuid(m->user, m->user, m->user) < 0)
        return -errno;
    return 0;
}

/* Copies the status to @out.  The exit code is an errno. */
static int
fetch(const struct mount_entry *m, int out)
{
    char path[PATH_MAX], buf[4096];
    int r = become(m), fd;
    ssize_t n;

    if (r < 0)
        return -r;
    if (snprintf(path, sizeof path, "%s/.vnvram/status", m->dir) >= (int)sizeof path)
        return ENAMETOOLONG;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno;
    while ((n = read(fd, buf, sizeof buf)) > 0)
        if (write(out, buf, (size_t)n) != n)
            return EIO;
    return n < 0 ? errno : 0;
}

/* ---- asking ------------------------------------------------------------------------------------
 */

struct question {
    pid_t pid; /* 0: not asked */
    int fd;
    char *text;
    size_t len;
};

static void
put_question(struct question *q, const struct mount_entry *m)
{
    int fds[2];

    q->fd = -1;
    q->text = malloc(ANSWER_MAX + 1);
    if (!q->text || pipe2(fds, O_CLOEXEC) < 0)
        return;
    q->pid = fork();
    if (q->pid == 0)
        _exit(fetch(m, fds[1]));
    close(fds[1]);
    q->fd = fds[0];
    if (q->pid < 0)
        q->pid = 0;
}

/* True while there may be more. */
static bool
take_answer(struct question *q)
{
    ssize_t n = read(q->fd, q->text + q->len, ANSWER_MAX - q->len);

    if (n > 0)
        q->len += (size_t)n;
    return n > 0 || (n < 0 && errno == EINTR);
}

static int
ms_left(const struct timespec *end)
{
    struct timespec now;
    int64_t ms;

    clock_gettime(CLOCK_MONOTONIC, &now);
    ms = (end->tv_sec - now.tv_sec) * INT64_C(1000) + (end->tv_nsec - now.tv_nsec) / 1000000;
    return ms > 0 ? (int)ms : 0;
}

/* Until all children have said what they know, or the time is over. */
static void
take_answers(struct question *q, struct pollfd *p, size_t n)
{
    struct timespec end;
    size_t open = 0;

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += ANSWER_MS / 1000;
    for (size_t i = 0; i < n; i++) {
        p[i] = (struct pollfd){.fd = q[i].fd, .events = POLLIN};
        open += q[i].fd >= 0;
    }
    while (open > 0) {
        int got = poll(p, n, ms_left(&end));

        if (got == 0 || (got < 0 && errno != EINTR))
            return;
        for (size_t i = 0; got > 0 && i < n; i++) {
            if (!p[i].revents || take_answer(&q[i]))
                continue;
            p[i].fd = -1; /* its child ends */
            open--;
        }
    }
}

/* @ended: the child has closed its end.  Else it waits for a daemon, perhaps for ever, and not even
 * a signal ends it: it is left behind. */
static enum mount_health
judge(struct mount_status *s, struct question *q, bool ended)
{
    struct json_object *v;
    const char *health;
    int status = 0;

    if (q->pid == 0)
        return MOUNT_UNREADABLE;
    if (!ended) {
        kill(q->pid, SIGKILL);
        return MOUNT_SILENT;
    }
    while (waitpid(q->pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) &&
        (WEXITSTATUS(status) == ENOTCONN || WEXITSTATUS(status) == ECONNABORTED))
        return MOUNT_DEAD;
    if (WIFEXITED(status) && (WEXITSTATUS(status) == EACCES || WEXITSTATUS(status) == EPERM))
        return MOUNT_DENIED;
    q->text[q->len] = '\0';
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        s->answer = json_tokener_parse(q->text);
    health = json_object_object_get_ex(s->answer, "health", &v) ? json_object_get_string(v) : NULL;
    for (unsigned h = MOUNT_OK; health && h <= MOUNT_TPM_FAILED; h++)
        if (strcmp(health, health_names[h]) == 0)
            return h;
    return MOUNT_UNREADABLE;
}

static int
ask(struct mount_status *list, size_t n)
{
    AUTO_FREE struct question *q = calloc(n, sizeof *q);
    AUTO_FREE struct pollfd *p = calloc(n, sizeof *p);

    if (n > 0 && (!q || !p))
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        put_question(&q[i], &list[i].mount);
    take_answers(q, p, n);
    for (size_t i = 0; i < n; i++) {
        list[i].health = judge(&list[i], &q[i], p[i].fd < 0);
        if (q[i].fd >= 0)
            close(q[i].fd);
        free(q[i].text);
    }
    return 0;
}

/* ---- which mounts ------------------------------------------------------------------------------
 */

struct found {
    struct mount_status *list;
    size_t n;
};

static int
keep_ours(void *arg, const struct mount_entry *m)
{
    struct found *f = arg;
    struct mount_status *grown;

    if (!mount_entry_is_ours(m))
        return 0;
    grown = reallocarray(f->list, f->n + 1, sizeof *grown);
    if (!grown)
        return -ENOMEM;
    f->list = grown;
    grown[f->n] = (struct mount_status){0};
    return mount_entry_copy(&grown[f->n++].mount, m);
}

int
mount_status_all(struct mount_status **list, size_t *n)
{
    struct found f = {0};
    int r = mountinfo_each(keep_ours, &f);

    if (r == 0)
        r = ask(f.list, f.n);
    if (r < 0) {
        mount_status_free(f.list, f.n);
        return report(r, "cannot list the mounts: %s", errno_text(r));
    }
    *list = f.list;
    *n = f.n;
    return 0;
}

int
mount_status_one(struct mount_status *s, const char *dir)
{
    struct mount_status one = {0};
    int r = mountinfo_find(&one.mount, dir);

    if (r == 0 && !mount_entry_is_ours(&one.mount))
        r = -ENOENT;
    if (r == 0)
        r = ask(&one, 1);
    if (r < 0)
        mount_status_fini(&one);
    else
        *s = one;
    return r;
}

void
mount_status_fini(struct mount_status *s)
{
    mount_entry_fini(&s->mount);
    json_object_put(s->answer);
    s->answer = NULL;
}

void
mount_status_free(struct mount_status *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        mount_status_fini(&list[i]);
    free(list);
}

/* ---- what it says ------------------------------------------------------------------------------
 */

const char *
mount_status_text(const struct mount_status *s, const char *name)
{
    struct json_object *v;

    return json_object_object_get_ex(s->answer, name, &v) ? json_object_get_string(v) : NULL;
}

uint64_t
mount_status_number(const struct mount_status *s, const char *name)
{
    struct json_object *v;

    return json_object_object_get_ex(s->answer, name, &v) ? json_object_get_uint64(v) : 0;
}

/* A text in an object of the answer. */
static const char *
text_in(const struct mount_status *s, const char *object, const char *name)
{
    struct json_object *o, *v;

    if (!json_object_object_get_ex(s->answer, object, &o) ||
        !json_object_object_get_ex(o, name, &v))
        return NULL;
    return json_object_get_string(v);
}

const char *
mount_status_tpm(const struct mount_status *s, const char *name)
{
    return text_in(s, "tpm", name);
}

const char *
mount_status_owner(const struct mount_status *s, const char *name)
{
    return text_in(s, "owner", name);
}
