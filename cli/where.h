/* SPDX-License-Identifier: BSD-3-Clause */
/* where.h - which mount an image has, and which image a directory. */
#ifndef VNVRAM_CLI_WHERE_H
#define VNVRAM_CLI_WHERE_H

#include "fs/mountinfo.h"
#include <sys/stat.h>

/* The mount that @what names, by its mount point or by the image (a path or a URI) that is mounted.
 * Errors are reported: -ENOTCONN for none; -EBUSY where something else lies over it, or where no
 * mount can be seen and yet a process of vnvram's has the image. */
int where_find(struct mount_entry *m, const char *what);
/* An image that is handed over has two mounts, or more. */
bool where_is_only(const struct stat *image);

/* Where the image @image (a path or a URI) is mounted, or NULL; free() it. */
char *where_of_image(const char *image);
/* The image that is mounted on the directory @dir, or NULL; free() it. */
char *where_image_of(const char *dir);

#endif
