/* SPDX-License-Identifier: BSD-3-Clause */
/* xattr.h - a file's user.vnvram.* attributes, which tell where and how its content is stored. */
#ifndef VNVRAM_FS_XATTR_H
#define VNVRAM_FS_XATTR_H

#include "fs/node.h"

enum { XATTR_VALUE_SIZE = 2 * SEAL_TAG_SIZE + 1, XATTR_NAMES_SIZE = 256 };

bool xattr_is_ours(const char *name);
/* The value as text.  -ENODATA when there is no such attribute, or an error of reading the content.
 */
int xattr_get(struct nodes *ns, uint64_t id, const char *name, char value[XATTR_VALUE_SIZE]);
/* All names as listxattr(2) gives them; returns their length. */
size_t xattr_list(char names[XATTR_NAMES_SIZE]);

#endif
