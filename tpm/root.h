/* SPDX-License-Identifier: BSD-3-Clause */
/* root.h - the TPM process's hold on the mount: a descriptor of its root that, where the rights
 * allow, does not keep umount(8) from working, and a watch for the mount's going.
 *
 * With an open_tree(2) clone the host's umount succeeds at once, and the file system stays usable
 * through the clone until it is closed: time for an orderly shutdown.  Without one the open root
 * makes umount say EBUSY; a lazy umount is noticed all the same. */
#ifndef VNVRAM_TPM_ROOT_H
#define VNVRAM_TPM_ROOT_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

struct root {
    int dir;    /* the root, for openat(2) and fsync(2) */
    int tree;   /* the clone, or -1 */
    int mounts; /* /proc/self/mountinfo, or -1: nothing to watch; poll for POLLPRI */
    dev_t dev;
    uid_t owner; /* of the root */
    gid_t group;
    char path[PATH_MAX];
};

/* @privileged: try the clone.  -ESTALE: what is at @path has not @dev as its st_dev. */
int root_open(struct root *r, const char *path, dev_t dev, bool privileged);
/* Lets the mount go.  The watch stays open: it holds nothing, and another thread may be polling it.
 */
void root_close(struct root *r);
/* After POLLPRI on r->mounts: true when the mount is no longer in this mount namespace. */
bool root_is_gone(const struct root *r);

#endif
