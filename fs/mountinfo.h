/* SPDX-License-Identifier: BSD-3-Clause */
/* mountinfo.h - what is mounted where, from /proc/self/mountinfo: without touching any mount, since
 * one whose daemon hangs would hang us too. */
#ifndef VNVRAM_FS_MOUNTINFO_H
#define VNVRAM_FS_MOUNTINFO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct mount_entry {
    char *dir, *type, *source; /* unescaped */
    dev_t dev;
    uid_t user; /* who mounted it, as FUSE says; root for others */
    gid_t group;
    bool allow_other;
};

/* True when the mount is one of vnvram's. */
bool mount_entry_is_ours(const struct mount_entry *m);
void mount_entry_fini(struct mount_entry *m);
/* *@to is freed first.  0 or -ENOMEM. */
int mount_entry_copy(struct mount_entry *to, const struct mount_entry *from);

/* The topmost mount on @dir, an absolute real path.  0, -ENOENT, or an error of reading. */
int mountinfo_find(struct mount_entry *m, const char *dir);
/* Calls @fn for each mount, in order, until it returns non-zero, and returns that. */
typedef int mountinfo_fn(void *arg, const struct mount_entry *m);
int mountinfo_each(mountinfo_fn *fn, void *arg);
/* The same with a descriptor of /proc/self/mountinfo, for who can open nothing any more. */
int mountinfo_each_in(int fd, mountinfo_fn *fn, void *arg);

/* realpath() of a directory that may be a dead mount.  NULL with errno set; free() it. */
char *mountinfo_realpath(const char *dir);
/* True when a FUSE mount lies on @dir whose daemon is gone. */
bool mountinfo_is_dead(const char *dir);

#endif
