/* SPDX-License-Identifier: BSD-3-Clause */
/* memdev.h - a device over bytes that somebody else owns.  It allocates nothing after memdev_new().
 */
#ifndef VNVRAM_TESTS_MEMDEV_H
#define VNVRAM_TESTS_MEMDEV_H

#include "core/dev.h"

/* @bytes outlives the device and is what is on the medium at all times. */
struct dev *memdev_new(void *bytes, uint64_t size);

#endif
