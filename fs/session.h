/* SPDX-License-Identifier: BSD-3-Clause */
/* session.h - one FUSE session: mounting, worker threads, and the ways to its end. */
#ifndef VNVRAM_FS_SESSION_H
#define VNVRAM_FS_SESSION_H

#include "fs/fs.h"

struct session;

struct session_options {
    const char *mountpoint; /* absolute, real path */
    const char *source;     /* what findmnt shows: the image's path */
    bool read_only, allow_other, debug;
    const char *extra;      /* further options for the kernel, e.g. "nosuid,nodev,context=..." or NULL */
    unsigned threads;       /* most worker threads, 0 for the default */
};

/* Mounts.  A dead FUSE mount of ours (ENOTCONN) on the mount point is detached first, and only then.
 * -EBUSY when something lives there. */
int session_new(struct session **out, struct fs *fs, const struct session_options *opt);
/* Starts the worker threads; returns when the mount answers (FUSE_INIT done). */
int session_start(struct session *se);
dev_t session_dev(const struct session *se); /* st_dev of the mounted root */
/* Becomes readable (poll POLLIN) when the session has ended (DESTROY or abort). */
int session_end_fd(const struct session *se);
/* Detaches the mount from the host as `umount -l` would, without waiting and without the FUSE descriptor
 * being closed; the session ends when the last reference goes. */
int session_detach(struct session *se);
void session_free(struct session *se); /* joins the threads, closes the FUSE descriptor */

#endif
