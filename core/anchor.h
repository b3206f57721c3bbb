/* SPDX-License-Identifier: BSD-3-Clause */
/* anchor.h - outside of an image, which state of it was acknowledged last.
 *
 * An image can be put back: its older self is as authentic as itself.  So an anchor, kept where who
 * can put back the image cannot reach, says which directory (generation and digest) a mount must
 * find.  The store moves it after the flush of each commit and before it acknowledges: the image
 * may be one commit ahead of its anchor, and is then the anchored state's successor, whose
 * directory still lies beside the new one; it is never behind.
 *
 * The anchor is two records on a device of its own, written in turn and flushed (doc/format.md,
 * "The anchor"): whatever a power cut leaves of one, the other is whole. */
#ifndef VNVRAM_CORE_ANCHOR_H
#define VNVRAM_CORE_ANCHOR_H

#include "core/format.h"

enum { ANCHOR_SIZE = 2 * BLOCK_SIZE };

struct anchor_point {
    uint8_t uuid[UUID_SIZE];
    uint64_t generation; /* 0: none */
    uint8_t digest[SEAL_TAG_SIZE];
};

struct anchor;

/* Reads the anchor on @d.  With @create it must be blank, and knows nothing until anchor_move();
 * else blank or damaged is -EUCLEAN.  -EEXIST when @create meets an anchor.  Reported.  On success
 * the anchor owns @d; on failure the caller still does. */
int anchor_open(struct anchor **out, struct dev *d, bool create);

/* The same on the file at @path, under its lock; with @read_only without, and never moved.  @create
 * makes the file, durably; else it must be there. */
int anchor_file_open(struct anchor **out, const char *path, bool read_only, bool create);

/* Lets the file go and takes it again, as the image's (dev.h).  What another daemon made of it
 * meanwhile counts after anchor_take(). */
void anchor_release(struct anchor *a);
int anchor_take(struct anchor *a, unsigned wait_ms);
struct dev *anchor_dev(struct anchor *a);

void anchor_close(struct anchor *a); /* NULL is fine */
void anchor_closep(struct anchor **a);

const struct anchor_point *anchor_get(const struct anchor *a); /* .generation 0: just created */
const char *anchor_name(const struct anchor *a);

/* Durable when it returns 0.  After a failure (reported) the anchor on the medium is the old or the
 * new one.  Not thread-safe: the store calls it under its lock. */
int anchor_move(struct anchor *a, const struct anchor_point *to);

/* Whether the image @name that shows @shown, beside which the directory @other lies (.generation 0:
 * none that is readable), is what @a demands: 0, or reported: -ESTALE  older than the anchor, or
 * grown from an older state by other commits, or another image -EUCLEAN the anchored directory is
 * there, but not all that it refers to With @accept it is 0 all the same, with a warning. */
int anchor_judge(const struct anchor *a, const char *name, const struct anchor_point *shown,
                 const struct anchor_point *other, bool accept);
/* Whether @a is at @p already. */
bool anchor_is_at(const struct anchor *a, const struct anchor_point *p);

#endif
