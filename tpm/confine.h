/* SPDX-License-Identifier: BSD-3-Clause */
/* confine.h - what the TPM process gives up: it parses what guests send. */
#ifndef VNVRAM_TPM_CONFINE_H
#define VNVRAM_TPM_CONFINE_H

#include <sys/types.h>

/* At the start: keeps nothing of the parent's but @fd, which it moves to descriptor 3 and returns
 * (standard input and outputs become /dev/null), ignores the signals that end a session in order,
 * dumps no core. */
int confine_inheritance(int fd);
/* Becomes @uid and @gid with no further groups, no capability, and no way to get one. */
int confine_rights(uid_t uid, gid_t gid);

#endif
