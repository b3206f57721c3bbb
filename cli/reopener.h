/* SPDX-License-Identifier: BSD-3-Clause */
/* reopener.h - a small process that opens the image, and its anchor, when they are to be taken.
 *
 * The daemon has given up the right to open anything by then.  And it cannot just keep what was
 * open: who has let an image go must not be able to write to it, and others' commits would wait for
 * a descriptor that is only kept (core/lease.h).  So the files are opened and locked by a child
 * that was forked before, and their descriptors, to which the locks belong, are handed over. */
#ifndef VNVRAM_CLI_REOPENER_H
#define VNVRAM_CLI_REOPENER_H

#include "core/dev.h"
#include <stdbool.h>

struct reopener;

/* Forks it for @image and @anchor (NULL: none).  It opens them by these names, made absolute but
 * not resolved: what a name leads to may be another node by then.  Call it single-threaded. */
int reopener_new(struct reopener **out, const char *image, const char *anchor, bool sandbox);
/* From now on dev_take() on @d, the image's or (@anchor) the anchor's, asks it. */
void reopener_serve(struct reopener *r, struct dev *d, bool anchor);
void reopener_free(struct reopener *r); /* ends it, if it can be ended soon; NULL is fine */

#endif
