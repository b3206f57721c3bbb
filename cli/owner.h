/* SPDX-License-Identifier: BSD-3-Clause */
/* owner.h - this host among those that may reach an image (core/owner.h), as the options say. */
#ifndef VNVRAM_CLI_OWNER_H
#define VNVRAM_CLI_OWNER_H

#include "cli/options.h"

/* Who we are to the image called @image, for store_open() and store_format().  Stays @o's. */
const struct owner_options *owner_from_options(struct options *o, const char *image);

/* "this host since ..., epoch 3", or why that cannot be told: for people. */
enum { OWNER_TEXT = 160 };
const char *owner_text(char buf[OWNER_TEXT], int r, const struct owner_record *rec);

#endif
