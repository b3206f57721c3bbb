/* SPDX-License-Identifier: BSD-3-Clause */
/* confine.h - what the TPM process gives up: it parses what guests send. */
#ifndef VNVRAM_TPM_CONFINE_H
#define VNVRAM_TPM_CONFINE_H

#include <stdbool.h>
#include <sys/types.h>

/* At the start: keeps nothing of the parent's but @fd, which it moves to descriptor 3 and returns,
 * and those of the @n @others that are not 0, which it moves to 4 and on (standard input and
 * outputs become /dev/null), ignores the signals that end a session in order, dumps no core. */
int confine_inheritance(int fd, int *const others[], size_t n);
/* Becomes @uid and @gid with no further groups, no capability, and no way to get one.  Who is root
 * then, and could only use others' files by capability, uses files as @owner and @owner_gid:
 * without allow_other the kernel lets nobody into a mount but the mounter, whoever owns what is in
 * it.  Before threads. */
int confine_rights(uid_t uid, gid_t gid, uid_t owner, gid_t owner_gid);
/* From now on only files of the directory @dir can be opened, made and renamed, and no system call
 * made but what that, libtpms, the link and, if @control, the control channel need.  Before
 * threads.
 */
int confine_calls(int dir, bool control);

#endif
