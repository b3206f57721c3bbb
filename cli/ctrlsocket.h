/* SPDX-License-Identifier: BSD-3-Clause */
/* ctrlsocket.h - the control channel's socket in the host's file system.
 *
 * The daemon makes it before it gives up its rights, and hands the listening descriptor to the
 * TPM's process.  Neither can remove a file of the host's later on; so a small helper process stays
 * behind that does, when the daemon says so or has died. */
#ifndef VNVRAM_CLI_CTRLSOCKET_H
#define VNVRAM_CLI_CTRLSOCKET_H

#include <stdbool.h>
#include <sys/types.h>

struct ctrlsocket {
    int listener; /* to be handed on; -1: none, or handed on */
    int keeper;   /* a socket to the helper, or -1 */
};

struct ctrlsocket_options {
    const char *path;
    mode_t mode;
    uid_t uid; /* -1: ours */
    gid_t gid;
    bool sandbox;
};

/* A socket that nobody listens on any more is replaced; -EBUSY: somebody does.  Call it
 * single-threaded. */
int ctrlsocket_open(struct ctrlsocket *s, const struct ctrlsocket_options *opt);
/* Removes it, if it is still the one that was made here. */
void ctrlsocket_close(struct ctrlsocket *s);

#endif
