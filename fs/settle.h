/* SPDX-License-Identifier: BSD-3-Clause */
/* settle.h - the thread that settles: two seconds after the last commit it runs a function once,
 * and then sleeps until the next commit, without a timeout. */
#ifndef VNVRAM_FS_SETTLE_H
#define VNVRAM_FS_SETTLE_H

struct settle;

enum { SETTLE_AFTER_MS = 2000 };

/* @run is called on the thread with no lock held. */
int settle_new(struct settle **out, unsigned after_ms, void (*run)(void *arg), void *arg);
/* There was a commit.  Within @run it does nothing: what @run commits, it settles. */
void settle_poke(struct settle *s);
void settle_free(struct settle *s); /* joins the thread; NULL is fine */

#endif
