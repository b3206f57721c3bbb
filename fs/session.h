/* SPDX-License-Identifier: BSD-3-Clause */
/* session.h - one FUSE session: mounting, worker threads, and the ways to its end. */
#ifndef VNVRAM_FS_SESSION_H
#define VNVRAM_FS_SESSION_H

#include "fs/fs.h"
#include "fs/unmounter.h"

struct session;

struct session_options {
    const char *mountpoint;      /* absolute, real path */
    const char *source;          /* what findmnt shows: the image's path */
    struct unmounter *unmounter; /* for @mountpoint; stays the caller's, outlives the session */
    bool read_only, allow_other, debug;
    const char *extra; /* further options for the kernel, e.g. "nosuid,nodev,context=..." or NULL */
    unsigned threads;  /* worker threads, 0 for the default */
};

/* Mounts.  A dead mount of vnvram's (ENOTCONN) on the mount point is detached first, and only then.
 * -EBUSY when a living one is there. */
int session_new(struct session **out, struct fs *fs, const struct session_options *opt);
/* Starts the worker threads; returns when the mount answers (FUSE_INIT done).  The threads block
 * all signals but the one that session_abort() uses. */
int session_start(struct session *se);
dev_t session_dev(const struct session *se); /* st_dev of the mounted root */
/* Becomes readable (poll POLLIN) when the session has ended (unmounted, or aborted), or has failed.
 */
int session_end_fd(const struct session *se);
/* Requests cannot be read any more (reported).  What is left is session_stop(). */
bool session_failed(const struct session *se);
/* Whether it ended because nothing used the mount any more: all that clients sent has been served.
 */
bool session_ended_orderly(const struct session *se);
/* The kernel drops what it has cached of a file.  Call it with no lock that requests need. */
void session_forget(struct session *se, uint64_t ino);
/* Detaches the mount from the host as `umount -l` would, without the FUSE descriptor being closed;
 * the session ends when the last reference goes.  The workers serve meanwhile.  Errors are
 * reported. */
int session_detach(struct session *se);
/* Ends the session though clients still use it: requests in progress are finished, no more are
 * read. Clients get ENOTCONN from session_stop() on. */
void session_abort(struct session *se);
/* Detaches a mount that is still there, aborts what then still runs, joins the threads and cuts the
 * connection: when it returns, nobody but the caller works on the fs.  Late replies do no harm. */
void session_stop(struct session *se);
void session_free(struct session *se); /* stops it, closes the FUSE descriptor; NULL is fine */
void session_freep(struct session **se);

#endif
