/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram unmount: off the host's tree, and back only when the daemon has ended and the image is
 * free. */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/where.h"
#include "core/holder.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum {
    END_WAIT_MS = 60000,  /* a daemon that has much to write to a slow disk */
    LOOK_AFTER_MS = 2000, /* when to look what keeps it */
    FORCE_WAIT_MS = 2000, /* between one sharper means and the next */
    STATUS_MAX = 64 * 1024,
    PASSING_MS = 1500, /* how long a user may be one of a moment, such as vnvram status */
    PASSING_POLL_MS = 50,
    USERS_SHOWN = 3,
};

struct target {
    struct mount_entry mount;
    pid_t pid; /* 0: not known */
    int pidfd; /* -1: the daemon is gone, or out of our reach */
};

static void
target_fini(struct target *t)
{
    mount_entry_fini(&t->mount);
    if (t->pidfd >= 0)
        close(t->pidfd);
}

/* ---- whose mount -------------------------------------------------------------------------------
 */

static void
read_status(struct target *t)
{
    AUTO_FREE char *path = NULL, *text = calloc(1, STATUS_MAX);
    AUTO_FD int fd = -1;
    struct json_object *status, *v;

    if (!text || asprintf(&path, "%s/.vnvram/status", t->mount.dir) < 0)
        return;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, STATUS_MAX - 1) <= 0)
        return;
    status = json_tokener_parse(text);
    if (json_object_object_get_ex(status, "pid", &v))
        t->pid = json_object_get_int(v);
    json_object_put(status);
}

/* A line of /proc/PID/status: the value of @name as a number, or -1. */
static long
process_number(pid_t pid, const char *name)
{
    AUTO_FREE char *path = NULL;
    size_t len = strlen(name);
    char line[256];
    long n = -1;
    FILE *in;

    if (asprintf(&path, "/proc/%d/status", (int)pid) < 0)
        return -1;
    in = fopen(path, "re");
    while (in && n < 0 && fgets(line, sizeof line, in))
        if (strncmp(line, name, len) == 0 && line[len] == ':')
            n = strtol(line + len + 1, NULL, 10);
    if (in)
        fclose(in);
    return n;
}

/* The daemon is who holds the image's lock.  Only where that cannot be seen, or may be another
 * mount's, is the mount asked itself: it may be the one that hangs.  Anybody can make a mount that
 * looks like ours and points elsewhere, so the process must be the mounter's: root must not end
 * another's by a stranger's word. */
static void
find_daemon(struct target *t)
{
    struct holder h;
    struct stat st;

    if (stat(t->mount.source, &st) == 0 && where_is_only(&st) && holder_find(&h, &st) &&
        strcmp(h.comm, "vnvram") == 0)
        t->pid = h.pid;
    if (t->pid == 0)
        read_status(t);
    if (t->pid <= 0)
        return;
    t->pidfd = pidfd_open(t->pid, 0);
    if (t->pidfd >= 0 && process_number(t->pid, "Uid") != (long)t->mount.user) {
        close(t->pidfd);
        t->pidfd = -1;
        t->pid = 0;
    }
}

/* ---- who is in the way -------------------------------------------------------------------------
 */

static bool
link_is_below(int dir, const char *name, const char *mountpoint)
{
    size_t len = strlen(mountpoint);
    char path[4096];
    ssize_t n = readlinkat(dir, name, path, sizeof path);

    return n >= (ssize_t)len && memcmp(path, mountpoint, len) == 0 &&
           (n == (ssize_t)len || path[len] == '/');
}

static bool
process_is_below(const char *pid, const char *mountpoint)
{
    AUTO_FREE char *path = NULL;
    const struct dirent *e;
    bool found;
    DIR *d;

    if (asprintf(&path, "/proc/%s/fd", pid) < 0)
        return false;
    d = opendir(path);
    if (!d)
        return false;
    found = link_is_below(dirfd(d), "../cwd", mountpoint) ||
            link_is_below(dirfd(d), "../root", mountpoint) ||
            link_is_below(dirfd(d), "../exe", mountpoint);
    while (!found && (e = readdir(d)))
        found = link_is_below(dirfd(d), e->d_name, mountpoint);
    closedir(d);
    return found;
}

struct users {
    unsigned others;
    bool tpm; /* the daemon's own child */
};

static void
tell_user(const struct target *t, pid_t pid)
{
    struct holder h = {.pid = pid};

    holder_name(&h);
    report(0, "%s: in use by process %d (%s)", t->mount.dir, (int)pid, h.comm);
}

/* Who uses the mount; @tell: the first few are reported. */
static struct users
find_users(const struct target *t, bool tell)
{
    struct users u = {0};
    DIR *proc = opendir("/proc");
    const struct dirent *e;

    while (proc && (e = readdir(proc))) {
        pid_t pid = isdigit((unsigned char)e->d_name[0]) ? atoi(e->d_name) : 0;

        if (pid == 0 || pid == getpid() || !process_is_below(e->d_name, t->mount.dir))
            continue;
        if (t->pid > 0 && process_number(pid, "PPid") == t->pid)
            u.tpm = true;
        else if (u.others++ < USERS_SHOWN && tell)
            tell_user(t, pid);
    }
    if (proc)
        closedir(proc);
    return u;
}

/* ---- the ways ----------------------------------------------------------------------------------
 */

static bool
has_ended(const struct target *t, int timeout_ms)
{
    struct pollfd p = {.fd = t->pidfd, .events = POLLIN};
    int r;

    if (t->pidfd < 0)
        return true;
    do
        r = poll(&p, 1, timeout_ms);
    while (r < 0 && errno == EINTR);
    return r > 0;
}

/* A number that has become free is the next mount's, which may be another image's. */
static int
is_target(void *arg, const struct mount_entry *m)
{
    const struct target *t = arg;

    return m->dev == t->mount.dev && mount_entry_is_ours(m) &&
           strcmp(m->source, t->mount.source) == 0;
}

/* A bind mount, say: the daemon serves it on. */
static int
look_beside(void *arg, const struct mount_entry *m)
{
    const struct target *t = arg;

    if (is_target(arg, m) == 0)
        return 0;
    return report(-EBUSY,
                  "%s: unmounted, but %s is the same mount (mount --bind), and process %d goes on "
                  "for it; what to do: \"vnvram unmount %s\"",
                  t->mount.dir, m->dir, (int)t->pid, m->dir);
}

static bool
has_mount(const char *pid, const struct target *t, const struct stat *own)
{
    AUTO_FREE char *ns = NULL, *mounts = NULL;
    AUTO_FD int fd = -1;
    struct stat st;

    if (asprintf(&ns, "/proc/%s/ns/mnt", pid) < 0 ||
        asprintf(&mounts, "/proc/%s/mountinfo", pid) < 0 || stat(ns, &st) < 0 ||
        st.st_ino == own->st_ino)
        return false;
    fd = open(mounts, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && mountinfo_each_in(fd, is_target, (void *)t) > 0;
}

/* A mount namespace that was made meanwhile, and takes no part in what is mounted here, has a mount
 * of its own, and the daemon serves it. */
static void
look_in_namespaces(const struct target *t)
{
    DIR *proc = opendir("/proc");
    const struct dirent *e;
    struct stat own;
    bool found = stat("/proc/self/ns/mnt", &own) < 0;

    while (proc && !found && (e = readdir(proc)))
        if (isdigit((unsigned char)e->d_name[0]) && has_mount(e->d_name, t, &own)) {
            found = true;
            report_at(REPORT_WARNING, 0,
                      "%s: still mounted in the mount namespace of process %s: end that, or "
                      "unmount it there (nsenter -t %s -m umount ...)",
                      t->mount.dir, e->d_name, e->d_name);
        }
    if (proc)
        closedir(proc);
}

static int
wait_for_end(const struct target *t)
{
    int r;

    if (has_ended(t, LOOK_AFTER_MS))
        return 0;
    r = mountinfo_each(look_beside, (void *)t);
    if (r < 0)
        return r;
    look_in_namespaces(t);
    if (has_ended(t, END_WAIT_MS - LOOK_AFTER_MS))
        return 0;
    return report(-EBUSY, "%s: unmounted, but process %d still works on %s", t->mount.dir,
                  (int)t->pid, t->mount.source);
}

/* For who is not root fusermount3(1) unmounts, and it looks for the mount there and nowhere else.
 */
static int
check_mtab(const struct target *t)
{
    if (access("/etc/mtab", R_OK) == 0)
        return 0;
    return report(-errno,
                  "%s: cannot unmount: fusermount3 needs /etc/mtab (%s); nothing was changed; what "
                  "to do: as root, ln -s ../proc/self/mounts /etc/mtab",
                  t->mount.dir, errno_text(-errno));
}

static int
run_fusermount(const char *dir)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        execlp("fusermount3", "fusermount3", "-u", "-z", "--", dir, (char *)NULL);
        _exit(127);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

static int
detach(const struct target *t)
{
    int r = umount2(t->mount.dir, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -errno : 0;

    if (r == -EPERM) {
        r = check_mtab(t);
        if (r < 0)
            return r;
        r = run_fusermount(t->mount.dir);
    }
    return r < 0 ? report(r, "%s: cannot unmount: %s", t->mount.dir, errno_text(r)) : 0;
}

static int
ask_daemon(const struct target *t)
{
    if (t->pidfd < 0)
        return report(-ESRCH, "%s: cannot tell which process serves it", t->mount.dir);
    if (pidfd_send_signal(t->pidfd, SIGTERM, NULL, 0) < 0 && errno != ESRCH)
        return report(-errno, "%s: cannot ask process %d to end: %s", t->mount.dir, (int)t->pid,
                      errno_text(-errno));
    return 0;
}

/* Somebody else may have unmounted it meanwhile, and what lies beneath is not ours: 1, 0, or
 * -errno if that cannot be told. */
static int
is_there(const struct target *t)
{
    struct mount_entry m = {0};
    int r = mountinfo_find(&m, t->mount.dir);
    int there = r == 0 ? m.dev == t->mount.dev : r == -ENOENT ? 0 : r;

    mount_entry_fini(&m);
    return there;
}

/* Without privilege, or where the TPM's process keeps the mount busy, the daemon has to do it; and
 * only when nobody would lose a file.  -EAGAIN: somebody uses the mount; the @last time that is
 * said. */
static int
try_to_unmount(const struct target *t, bool last)
{
    int r = is_there(t);
    struct users u;

    if (r > 0)
        r = umount2(t->mount.dir, UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
    if (r == 0)
        return wait_for_end(t);
    if (r != -EPERM && r != -EBUSY)
        return report(r, "%s: cannot unmount: %s", t->mount.dir, errno_text(r));
    u = find_users(t, last);
    if (u.others > 0 || (r == -EBUSY && !u.tpm))
        return -EAGAIN;
    r = r == -EPERM ? check_mtab(t) : 0;
    if (r == 0)
        r = ask_daemon(t);
    return r < 0 ? r : wait_for_end(t);
}

/* Whoever looks at a mount, as vnvram status does, has a file of it open for a moment. */
static int
unmount_orderly(const struct target *t)
{
    int r = -EAGAIN;

    for (int ms = 0; r == -EAGAIN && ms <= PASSING_MS; ms += PASSING_POLL_MS) {
        if (ms > 0)
            poll(NULL, 0, PASSING_POLL_MS);
        r = try_to_unmount(t, ms == PASSING_MS);
    }
    return r == -EAGAIN ? report(-EBUSY,
                                 "%s: in use; what to do: end what uses it, or see --lazy and "
                                 "--force",
                                 t->mount.dir)
                        : r;
}

/* Ends the daemon whoever uses the mount: what is committed stays, open files are lost to their
 * owners. */
static int
unmount_by_force(const struct target *t)
{
    for (int i = 0; i < 2; i++) {
        int r = ask_daemon(t);

        if (r < 0 || has_ended(t, FORCE_WAIT_MS))
            return r;
    }
    report_at(REPORT_WARNING, 0, "%s: process %d does not end: killed", t->mount.dir, (int)t->pid);
    if (pidfd_send_signal(t->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
        return report(-errno, "%s: cannot kill process %d: %s", t->mount.dir, (int)t->pid,
                      errno_text(-errno));
    return wait_for_end(t);
}

/* A killed daemon's mount stays behind, visible.  Lazily here: nobody can use it any more. */
static int
clear_dead(const struct target *t)
{
    return is_there(t) > 0 && mountinfo_is_dead(t->mount.dir) ? detach(t) : 0;
}

int
cmd_unmount(struct options *o)
{
    AUTO(target_fini) struct target t = {.pidfd = -1};
    int r = where_find(&t.mount, o->args[0]);

    if (r < 0)
        return finding_exit_code(r);
    if (mountinfo_is_dead(t.mount.dir))
        return finding_exit_code(detach(&t));
    if (o->lazy)
        return finding_exit_code(detach(&t));
    find_daemon(&t);
    r = o->force ? unmount_by_force(&t) : unmount_orderly(&t);
    if (r == 0 && o->force)
        r = clear_dead(&t);
    return finding_exit_code(r);
}
