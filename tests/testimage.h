/* SPDX-License-Identifier: BSD-3-Clause */
/* testimage.h - images on faultdevs, and files in a store, for tests of the core. */
#ifndef VNVRAM_TESTS_TESTIMAGE_H
#define VNVRAM_TESTS_TESTIMAGE_H

#include "core/store.h"

/* Makes it one of a sealed image, which opens with the user's key @user (testseal_unlock()). */
void testimage_seal(struct format_spec *spec, uint64_t volume, uint64_t user);
/* A new image, and @more bytes that it may grow into.  @volume: the volume key of a sealed one. */
struct dev *testimage_new(const struct format_spec *spec, uint64_t volume, uint64_t more);

/* What lies on the medium: superblock A, and which directory is of the higher generation. */
struct superblock superblock_of(const struct dev *d);
unsigned newest_directory(const struct dev *d);
/* Lets @edit change directory @index; checksum and tag are right again. */
void testimage_edit_directory(struct dev *d, unsigned index, uint64_t volume,
                              void (*edit)(struct directory *dir));

/* Creates or overwrites a file in one commit, which takes a slot for a new one.  @attr NULL: mode
 * 0600, and all else zero. */
int testimage_put(struct store *s, const char *name, const void *data, size_t len,
                  const struct file_attr *attr);
int testimage_unlink(struct store *s, const char *name); /* it is there */

#endif
