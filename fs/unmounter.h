/* SPDX-License-Identifier: BSD-3-Clause */
/* unmounter.h - a small process that detaches a mount when it is asked to.
 *
 * A process must not use its own mount, and umount2() may: it writes back what is cached, through
 * the daemon itself.  So the call is made by a child that was forked before the image, the keys and
 * the FUSE descriptor were opened, and that keeps the privilege which the daemon may give up. */
#ifndef VNVRAM_FS_UNMOUNTER_H
#define VNVRAM_FS_UNMOUNTER_H

#include <stdbool.h>
#include <sys/types.h>

struct unmounter;

/* Forks it for mounts on @dir (absolute, real path).  Call it single-threaded.  @sandbox: it gives
 * up all but the right to unmount; not for who needs fusermount3(1), whose privilege it is. */
int unmounter_new(struct unmounter **out, const char *dir, bool sandbox);
/* Asks it to detach the topmost mount on its directory if that one's st_dev is @dev: nobody else's
 * is ever detached.  Does not wait. */
int unmounter_ask(struct unmounter *u, dev_t dev);
/* Waits for the answer to the oldest unmounter_ask(): 0, -ENOENT when that mount was not there, an
 * errno; -ETIMEDOUT after @timeout_ms. */
int unmounter_wait(struct unmounter *u, int timeout_ms);
void unmounter_free(struct unmounter *u); /* ends and reaps it; NULL is fine */
void unmounter_freep(struct unmounter **u);

#endif
