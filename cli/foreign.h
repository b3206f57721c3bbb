/* SPDX-License-Identifier: BSD-3-Clause */
/* foreign.h - what a device holds that is not ours: file systems, partition tables, RAID and volume
 * members, known by their signatures (libblkid). */
#ifndef VNVRAM_CLI_FOREIGN_H
#define VNVRAM_CLI_FOREIGN_H

#include "core/dev.h"

/* Names what lies on @d: "an ext4 file system, labelled 'root'".  NULL when nothing is known, or
 * when it cannot be told (reported then).  free() it. */
char *foreign_name(struct dev *d);
/* Takes every signature away, so that nobody takes the device for what it was.  It flushes nothing.
 */
int foreign_wipe(struct dev *d);

#endif
