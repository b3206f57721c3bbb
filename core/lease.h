/* SPDX-License-Identifier: BSD-3-Clause */
/* lease.h - keeps commits and those who copy the image file out of each other's way.
 *
 * During a commit the file is under a write lease of the kernel's: who opens it then (cp, a backup)
 * waits in open(2) until the commit has ended.  A commit that finds the file open elsewhere waits
 * for the copy to end, once, and not for long.  So a copy that is quick sees one commit's state
 * whole.
 *
 * The lease is taken at the beginning of each commit and given back at its end, two system calls:
 * between commits there is nothing to protect, so nobody waits then, and there is no break for us
 * to answer. */
#ifndef VNVRAM_CORE_LEASE_H
#define VNVRAM_CORE_LEASE_H

#include "core/dev.h"

struct lease;

enum {
    LEASE_HOLD_MS = 1500, /* the longest that commits wait for a copy */
};

/* @fd is the one descriptor of the file in this process, open for writing; it stays the caller's.
 * Where there are no leases (network file systems, block devices, a file of another user's without
 * CAP_LEASE) it is harmless and does nothing.  Ignores SIGIO from now on, with which the kernel
 * tells that somebody waits.  NULL when memory is short. */
struct lease *lease_new(int fd);
void lease_free(struct lease *l); /* NULL is fine */
/* From now on @fd is that descriptor; -1: there is none, and nothing is protected. */
void lease_use(struct lease *l, int fd);

/* Around each commit, from any thread; commits go one after the other.  lease_begin() waits, at
 * most LEASE_HOLD_MS, and tells what its ctime and size say about the time since the last
 * lease_end().
 *
 * Who asks for a ctime makes the next write change it, where times have no coarse grain, and some
 * file systems then write the inode as well: a third of a commit.  So of commits in a row, less
 * than LEASE_ROW_US apart, only the first is looked at: nobody opens, writes and closes an image in
 * between.  After the row it is not known what the ctime was. */
enum { LEASE_ROW_US = 1000 };
enum dev_news lease_begin(struct lease *l);
bool lease_works(const struct lease *l); /* whether it can tell, as of the last lease_begin() */
void lease_end(struct lease *l);

#endif
