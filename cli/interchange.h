/* SPDX-License-Identifier: BSD-3-Clause */
/* interchange.h - "import --swtpm" and "export --swtpm": a TPM's state from and to what swtpm keeps
 * it in, under swtpm's keys.  In the image it is always swtpm's plain form, which the embedded TPM
 * and an swtpm without a key on the mount read; decrypted, it is in locked memory only. */
#ifndef VNVRAM_CLI_INTERCHANGE_H
#define VNVRAM_CLI_INTERCHANGE_H

#include "cli/parcel.h"

/* Options that make no sense without --swtpm, or with each other: -EINVAL, reported. */
int interchange_check(const struct options *o);

/* Gathers the states in o->args[1] and on: directories, linear files and single blobs.  With a
 * permanent state comes the removal of that TPM's other ones that do not come with it, in *@how. */
int interchange_gather(struct parcels *p, struct options *o, struct parcel_commit *how);

/* For parcels_take(): whether the file of an image is a state that o->tpm asks for. */
bool interchange_wants(const struct options *o, const char *name);
/* Makes of the states taken from the image at o->args[0] what o->swtpm_form asks for; of a linear
 * file there is only one parcel left. */
int interchange_convert(struct parcels *p, struct options *o);

#endif
