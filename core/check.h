/* SPDX-License-Identifier: BSD-3-Clause */
/* check.h - verifies every byte of an image that a checksum covers, and writes nothing. */
#ifndef VNVRAM_CORE_CHECK_H
#define VNVRAM_CORE_CHECK_H

#include "core/store.h"

/* One thing found.  @r is 0 for a remark (a torn commit that a mount will undo, an older format,
 * ...) or a finding as in base/finding.h. */
typedef void check_sink(void *arg, int r, const char *where, const char *text);

struct check_result {
    unsigned structures; /* verified */
    unsigned problems;
    bool authenticated; /* tags were verified with the key */
    int worst;          /* 0, or the finding that decides the exit code */
};

/* @unlock may be NULL, or return -ENOKEY silently: then checksums only.  What cannot be read is a
 * finding, -EIO, like others, and the rest is checked all the same.  Returns res->worst, or why the
 * check could not be made. */
int check_image(struct dev *d, store_unlock_fn *unlock, void *arg, check_sink *sink, void *sink_arg,
                struct check_result *res);

#endif
