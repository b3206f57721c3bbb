/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/anchor.h"
#include "base/report.h"
#include <errno.h>

int
anchor_from_options(struct anchor **a, const struct options *o, bool read_only)
{
    *a = NULL;
    if (!o->anchor && (o->anchor_create || o->accept_rollback))
        return report(-EINVAL, "anchor_create and accept_rollback are of use with anchor= only");
    if (o->anchor_create && read_only)
        return report(-EINVAL, "anchor_create needs an image that can be written");
    return o->anchor ? anchor_file_open(a, o->anchor, read_only, o->anchor_create) : 0;
}
