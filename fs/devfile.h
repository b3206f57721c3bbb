/* SPDX-License-Identifier: BSD-3-Clause */
/* devfile.h - a command device (cmddev.h) as a file that behaves like the kernel's /dev/tpm0.
 *
 * One write is one whole command, and reads give its response, in as many pieces as the reader
 * likes. A read waits for the outstanding command, under O_NONBLOCK too (programs poll first, and
 * take EAGAIN for fatal); with none outstanding and nothing left to read it returns 0.  A write
 * while a command is outstanding, or before any byte of its response was read, says EBUSY; a write
 * after a partly read response drops the rest.
 *
 * One client at a time: while somebody has it open for writing, every other open says EBUSY.  But
 * the kernel tells of a close at once, and of the last one (release) only when it finds the time;
 * so after a close, the next open waits a while for the release to come.  Who opens it only for
 * reading (cat, tar, a backup) never becomes the client and reads nothing.  When a client goes with
 * its command outstanding, the command is cancelled and its response dropped; the next client can
 * open and write at once, and its command waits for that.
 *
 * Each function replies to @req exactly once, now or later (open and read), and waits for nothing.
 * Offsets do not matter, so there is no parameter for them.  What is not here is for the caller
 * (ops.c): a regular file of size 0; setattr of its size, O_TRUNC and fsync do nothing and
 * succeed; no mmap. */
#ifndef VNVRAM_FS_DEVFILE_H
#define VNVRAM_FS_DEVFILE_H

#include "fs/cmddev.h"
#include <fuse_lowlevel.h>

struct devfile;

/* @dev stays the caller's and must live until its last completion has run. */
int devfile_new(struct devfile **out, struct cmddev *dev);

/* Replies to the open itself (a stream, uncached, with flags that libfuse 3.14 cannot name). */
void devfile_open(struct devfile *d, fuse_req_t req, const struct fuse_file_info *fi);
void devfile_read(struct devfile *d, fuse_req_t req, size_t size, const struct fuse_file_info *fi);
void devfile_write(struct devfile *d, fuse_req_t req, const void *buf, size_t len,
                   const struct fuse_file_info *fi);
/* Takes over @ph, which may be NULL. */
void devfile_poll(struct devfile *d, fuse_req_t req, const struct fuse_file_info *fi,
                  struct fuse_pollhandle *ph);
void devfile_flush(struct devfile *d, fuse_req_t req, const struct fuse_file_info *fi);
void devfile_release(struct devfile *d, fuse_req_t req, const struct fuse_file_info *fi);

/* The session is over but its struct fuse_session is still there: answers a waiting read with
 * ENODEV. A command that is still outstanding keeps what it needs until its completion has run. */
void devfile_free(struct devfile *d);

#endif
