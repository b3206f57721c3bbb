/* SPDX-License-Identifier: BSD-3-Clause */
#include "fs/mountinfo.h"
#include "base/scope.h"
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

enum { BUFFER_SIZE = 64 * 1024 };

static void
scope_fclose(FILE **f)
{
    if (*f)
        fclose(*f);
}

bool
mount_entry_is_ours(const struct mount_entry *m)
{
    return strcmp(m->type, "fuse.vnvram") == 0;
}

void
mount_entry_fini(struct mount_entry *m)
{
    free(m->dir);
    free(m->type);
    free(m->source);
    *m = (struct mount_entry){0};
}

int
mount_entry_copy(struct mount_entry *to, const struct mount_entry *from)
{
    struct mount_entry m = {
        .dir = strdup(from->dir),
        .type = strdup(from->type),
        .source = strdup(from->source),
        .dev = from->dev,
        .user = from->user,
        .group = from->group,
        .allow_other = from->allow_other,
    };

    if (!m.dir || !m.type || !m.source) {
        mount_entry_fini(&m);
        return -ENOMEM;
    }
    mount_entry_fini(to);
    *to = m;
    return 0;
}

/* Undoes the \ooo that the kernel writes for space, tab, newline and backslash; in place. */
static char *
unescape(char *s)
{
    char *to = s;

    for (const char *from = s; *from;) {
        unsigned c;

        if (from[0] == '\\' && sscanf(from + 1, "%3o", &c) == 1 &&
            strspn(from + 1, "01234567") >= 3) {
            *to++ = (char)c;
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
    return s;
}

/* A number among the options of a FUSE mount, 0 (root) where there is none. */
static uint32_t
id_option(const char *options, const char *name)
{
    const char *found = options ? strstr(options, name) : NULL;

    return found ? (uint32_t)strtoul(found + strlen(name), NULL, 10) : 0;
}

/* ID PARENT MAJ:MIN ROOT DIR OPTIONS [TAG...] - TYPE SOURCE SUPEROPTIONS.  @m points into @line. */
static bool
parse_line(char *line, struct mount_entry *m)
{
    char *rest = strstr(line, " - "), *save = NULL, *field[5];
    unsigned maj, min;

    if (!rest)
        return false;
    *rest = '\0';
    rest += 3;
    for (int i = 0; i < 5; i++) {
        field[i] = strtok_r(i ? NULL : line, " ", &save);
        if (!field[i])
            return false;
    }
    if (sscanf(field[2], "%u:%u", &maj, &min) != 2)
        return false;
    m->dev = makedev(maj, min);
    m->dir = unescape(field[4]);
    m->type = strsep(&rest, " ");
    m->source = rest ? strsep(&rest, " ") : NULL;
    if (!m->source)
        return false;
    unescape(m->source);
    m->user = id_option(rest, "user_id=");
    m->group = id_option(rest, "group_id=");
    m->allow_other = rest && strstr(rest, ",allow_other");
    return true;
}

int
mountinfo_each(mountinfo_fn *fn, void *arg)
{
    AUTO_FD int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);

    return fd < 0 ? -errno : mountinfo_each_in(fd, fn, arg);
}

int
mountinfo_each_in(int fd, mountinfo_fn *fn, void *arg)
{
    AUTO_FREE char *buffer = malloc(BUFFER_SIZE); /* outlives the stream */
    AUTO_FD int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    AUTO(scope_fclose)
    FILE *in = own >= 0 && lseek(own, 0, SEEK_SET) == 0 ? fdopen(own, "r") : NULL;
    AUTO_FREE char *line = NULL;
    size_t size = 0;

    if (!in)
        return -errno;
    steal_fd(&own);
    if (buffer) /* the kernel walks the list anew for each read */
        setvbuf(in, buffer, _IOFBF, BUFFER_SIZE);
    errno = 0;
    while (getline(&line, &size, in) >= 0) {
        struct mount_entry m;
        int r = parse_line(line, &m) ? fn(arg, &m) : 0;

        if (r != 0)
            return r;
    }
    if (feof(in)) /* else it was cut short: a read failed, or memory is short */
        return 0;
    return errno != 0 ? -errno : -EIO;
}

struct search {
    const char *dir;
    struct mount_entry found;
};

static int
keep_last(void *arg, const struct mount_entry *m)
{
    struct search *s = arg;

    return strcmp(m->dir, s->dir) == 0 ? mount_entry_copy(&s->found, m) : 0;
}

int
mountinfo_find(struct mount_entry *m, const char *dir)
{
    struct search s = {.dir = dir};
    int r = mountinfo_each(keep_last, &s);

    if (r == 0 && !s.found.dir)
        r = -ENOENT;
    if (r < 0) {
        mount_entry_fini(&s.found);
        return r;
    }
    *m = s.found;
    return 0;
}

bool
mountinfo_is_dead(const char *dir)
{
    struct statvfs sv; /* unlike stat(), never answered from a cache */

    return statvfs(dir, &sv) < 0 && errno == ENOTCONN;
}

char *
mountinfo_realpath(const char *dir)
{
    char *real = realpath(dir, NULL), *out = NULL;
    AUTO_FREE char *copy = NULL, *parent = NULL;
    char *slash;

    if (real || errno != ENOTCONN)
        return real;
    copy = strdup(dir);
    if (!copy)
        return NULL;
    for (slash = copy + strlen(copy); slash > copy + 1 && slash[-1] == '/';)
        *--slash = '\0';
    slash = strrchr(copy, '/');
    if (slash)
        *slash = '\0';
    parent = realpath(!slash ? "." : slash == copy ? "/" : copy, NULL);
    if (parent &&
        asprintf(&out, "%s/%s", strcmp(parent, "/") ? parent : "", slash ? slash + 1 : copy) < 0)
        out = NULL;
    return out;
}
