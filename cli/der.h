/* SPDX-License-Identifier: BSD-3-Clause */
/* der.h - export --der and import --der: a whole store as one stream. */
#ifndef VNVRAM_CLI_DER_H
#define VNVRAM_CLI_DER_H

#include "cli/options.h"

/* Refuses options and arguments that make no sense with --der, or without it (-EINVAL, reported).
 */
int der_check(const struct options *o);
/* Both return an exit code. */
int der_export(struct options *o);
int der_import(struct options *o);

#endif
