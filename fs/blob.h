/* SPDX-License-Identifier: BSD-3-Clause */
/* blob.h - the bytes of a file in memory, shared by the file, replies to readers and a commit.
 *
 * Whoever wants to change a blob that others hold too gets a copy (blob_own()), so what a reader or
 * a commit holds never changes under it.  New references are made under the files' lock only;
 * putting one back needs no lock.  Bytes past what the file holds are zero. */
#ifndef VNVRAM_FS_BLOB_H
#define VNVRAM_FS_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blob {
    unsigned refs;
    bool wipe; /* secret: overwritten before the memory is freed */
    size_t room;
    uint8_t data[];
};

/* One reference; @room bytes, zeroed.  NULL when memory is short. */
struct blob *blob_new(size_t room, bool wipe);
struct blob *blob_get(struct blob *b); /* one more; NULL gives NULL */
void blob_put(struct blob *b);         /* NULL is fine */

/* A blob that is the caller's alone, with the first @len bytes of *@b (which may be NULL) and at
 * least
 * @room bytes: *@b itself, or a copy that takes its place.  False when memory is short; *@b stays.
 */
bool blob_own(struct blob **b, size_t len, size_t room, bool wipe);

#endif
