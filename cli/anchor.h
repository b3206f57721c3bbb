/* SPDX-License-Identifier: BSD-3-Clause */
/* anchor.h - the anchor that -o anchor=FILE names. */
#ifndef VNVRAM_CLI_ANCHOR_H
#define VNVRAM_CLI_ANCHOR_H

#include "cli/options.h"
#include "core/anchor.h"

/* *@a is NULL where none was asked for.  Reports words that make no sense together (-EINVAL), and
 * what anchor_file_open() does. */
int anchor_from_options(struct anchor **a, const struct options *o, bool read_only);

#endif
