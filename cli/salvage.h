/* SPDX-License-Identifier: BSD-3-Clause */
/* salvage.h - vnvram check --salvage: what still verifies, each content as a file of its own. */
#ifndef VNVRAM_CLI_SALVAGE_H
#define VNVRAM_CLI_SALVAGE_H

#include "cli/options.h"

/* Writes each content of the image at @path that is whole to the directory @dir, which is made when
 * it is not there, as NAME.gGENERATION.slotS.bankB, or loose.g... when no directory of the image
 * knows it. Existing files are never replaced: they are passed over, and the result is -EEXIST. The
 * image is read only, and may be mounted.  Lists on stdout what was written.  Returns 0 or a
 * finding (reported). */
int salvage_image(const char *path, const char *dir, struct options *o);

#endif
