/* SPDX-License-Identifier: BSD-3-Clause */
/* blockdev.h - what is particular about block devices: one of them has many names (nodes, in any
 * mount namespace, of one number), and the kernel itself may be using it. */
#ifndef VNVRAM_CORE_BLOCKDEV_H
#define VNVRAM_CORE_BLOCKDEV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* The lock of the device itself, whichever node it is reached by: a flock on what sysfs says of it.
 * O_EXCL, which writers ask for too, keeps readers neither out nor in.  Returns a descriptor that
 * holds the lock, -EAGAIN when somebody else has it, or -ENOENT where sysfs cannot be reached, and
 * O_EXCL and the node's own lock have to do. */
int blockdev_claim(dev_t rdev, bool shared);
/* The file that is locked, for holder_find(). */
int blockdev_stat(dev_t rdev, struct stat *st);

/* Who but a process uses the device, in words for a report ("mounted on /srv"): NULL when nobody is
 * known.  free() it. */
char *blockdev_user(dev_t rdev);

/* -EROFS (reported) when what kept a writer out is that the device is read-only; else 0. */
int blockdev_explain_open(const char *path);
/* 0, or reported: what an image on the device open at @fd cannot have. */
int blockdev_check(int fd, const char *name, bool read_only);
/* Bytes. */
int blockdev_size(int fd, const char *name, uint64_t *size);

#endif
