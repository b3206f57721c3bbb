/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/holder.h"
#include "base/scope.h"
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

static void
scope_closedir(DIR **d)
{
    if (*d)
        closedir(*d);
}

static void
scope_fclose(FILE **f)
{
    if (*f)
        fclose(*f);
}

/* One line of /proc/locks, or of fdinfo after its "lock:".  False when it is about another inode.
 */
static bool
parse_lock(const char *line, const struct stat *want, int *pid)
{
    unsigned maj, min;
    unsigned long long ino;

    return sscanf(line, "%*s %*s %*s %*s %d %x:%x:%llu", pid, &maj, &min, &ino) == 4 &&
           makedev(maj, min) == want->st_dev && ino == want->st_ino;
}

static bool
descriptor_locks(int dir, const char *name, const struct stat *want)
{
    AUTO(scope_fclose) FILE *in = NULL;
    char line[256];
    int pid, fd = openat(dir, name, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return false;
    in = fdopen(fd, "re");
    if (!in) {
        close(fd);
        return false;
    }
    while (fgets(line, sizeof line, in))
        if (strncmp(line, "lock:", 5) == 0 && parse_lock(line + 5, want, &pid))
            return true;
    return false;
}

/* fdinfo lists the locks of each open file: OFD locks too, which hide their owner in /proc/locks.
 * And reading it never touches the file, which may live on a mount that hangs. */
static bool
process_locks(const char *pid, const struct stat *want)
{
    AUTO_FREE char *path = NULL;
    AUTO(scope_closedir) DIR *d = NULL;
    const struct dirent *e;

    if (asprintf(&path, "/proc/%s/fdinfo", pid) < 0)
        return false;
    d = opendir(path);
    while (d && (e = readdir(d)))
        if (e->d_name[0] != '.' && descriptor_locks(dirfd(d), e->d_name, want))
            return true;
    return false;
}

static bool
find_by_descriptor(struct holder *h, const struct stat *want)
{
    AUTO(scope_closedir) DIR *proc = opendir("/proc");
    const struct dirent *e;

    while (proc && (e = readdir(proc)))
        if (isdigit((unsigned char)e->d_name[0]) && atoi(e->d_name) != getpid() &&
            process_locks(e->d_name, want)) {
            h->pid = atoi(e->d_name);
            return true;
        }
    return false;
}

/* What is left without rights on the holder: a lease, or a lock that is no OFD lock, tells its PID.
 */
static bool
find_by_lock(struct holder *h, const struct stat *want)
{
    AUTO(scope_fclose) FILE *in = fopen("/proc/locks", "re");
    char line[256];
    int pid;

    while (in && fgets(line, sizeof line, in))
        if (parse_lock(line, want, &pid) && pid > 0 && pid != getpid()) {
            h->pid = pid;
            return true;
        }
    return false;
}

/* One file tells in most cases; looking through all processes takes long where there are many.  But
 * a lock may have gone from who took it to another process. */
static bool
find_quickly(struct holder *h, const struct stat *want)
{
    char pid[16];

    if (!find_by_lock(h, want))
        return false;
    snprintf(pid, sizeof pid, "%d", (int)h->pid);
    return process_locks(pid, want);
}

void
holder_name(struct holder *h)
{
    AUTO_FREE char *path = NULL;
    AUTO(scope_fclose) FILE *in = NULL;

    strcpy(h->comm, "?");
    if (asprintf(&path, "/proc/%d/comm", (int)h->pid) < 0)
        return;
    in = fopen(path, "re");
    if (in && fgets(h->comm, sizeof h->comm, in))
        h->comm[strcspn(h->comm, "\n")] = '\0';
}

bool
holder_find(struct holder *h, const struct stat *st)
{
    if (!find_quickly(h, st) && !find_by_descriptor(h, st) && !find_by_lock(h, st))
        return false;
    holder_name(h);
    return true;
}
