/* SPDX-License-Identifier: BSD-3-Clause */
/* layout.h - from --profile, --slots, --reserve, --size and --tpm to the slots of an image. */
#ifndef VNVRAM_CLI_LAYOUT_H
#define VNVRAM_CLI_LAYOUT_H

#include "cli/options.h"
#include "core/store.h"

/* Fills classes, reservations and image_size of *@spec; they point into @o.  What the options leave
 * open comes from the profile.  -EINVAL (reported) when the options contradict each other. */
int layout_from_options(struct format_spec *spec, struct options *o);

#endif
