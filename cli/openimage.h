/* SPDX-License-Identifier: BSD-3-Clause */
/* openimage.h - an unmounted image opened by a command that changes it, or one that is read beside
 * whoever has it open. */
#ifndef VNVRAM_CLI_OPENIMAGE_H
#define VNVRAM_CLI_OPENIMAGE_H

#include "cli/options.h"
#include "core/store.h"

struct open_image {
    struct anchor *anchor; /* NULL: none */
    struct store *store;
    struct dev *dev; /* the store's, once there is one */
};

/* Reads the key (and asks for it) before the image at @path is held, then waits for its lock, and
 * recovers it where the last commit was torn.  Findings have been reported.  @image is zero before,
 * and to be closed whatever this returns. */
int image_open_to_change(struct open_image *image, struct options *o, const char *path);
/* For reading, without its lock: a daemon may write it meanwhile. */
int image_open_to_read(struct open_image *image, struct options *o, const char *path);
void image_close(struct open_image *image);

#endif
