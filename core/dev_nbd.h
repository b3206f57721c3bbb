/* SPDX-License-Identifier: BSD-3-Clause */
/* dev_nbd.h - the device behind an NBD server (a URI as of nbd_uri.h).
 *
 * A connection may be lost at any time, and with it what the server had not flushed.  So all that
 * was written since the last flush is kept (a few MiB: then it is flushed unasked), and after
 * connecting anew the device first asks its witness whether what lies there is what it was, then
 * writes all of it again, in order, and only then goes on.  That takes at most
 * dev_options.reconnect_s since the connection was found lost; the same is the most that one
 * request, or one commit, waits for a server that does not answer.  A write or flush that is given
 * up is the last: all further ones fail.  So they do as soon as an operation, also one that reads,
 * finds another export or image after connecting anew.  Reads go on when somebody answers: whoever
 * reads knows what he should get.
 *
 * A connection that is there, and only slow, is never given up for another one to write to: what
 * it was asked to write might still be written, after what came over the next. */
#ifndef VNVRAM_CORE_DEV_NBD_H
#define VNVRAM_CORE_DEV_NBD_H

#include "core/dev.h"

struct sandbox_connect;

/* @flags and errors as for dev_file_open(), less DEV_CREATE.  The lock is this host's alone; see
 * doc/design.md, "NBD". */
int dev_nbd_open(struct dev **out, const char *uri, unsigned flags, const struct dev_options *opt);

/* What a device needs to connect again; nothing, for others. */
void dev_sandbox(const struct dev *d, struct sandbox_connect *c);
/* Whether others can listen to what is read and written. */
bool dev_is_exposed(const struct dev *d);

#endif
