/* SPDX-License-Identifier: BSD-3-Clause */
/* ctrlsocket.h - the TPM's sockets in the host's file system: the control channel's and the one for
 * commands alone.
 *
 * The daemon makes them before it gives up its rights, and hands the listening descriptors to the
 * TPM's process.  Neither can remove a file of the host's later on; so a small helper process stays
 * behind that does, when the daemon says so or has died. */
#ifndef VNVRAM_CLI_CTRLSOCKET_H
#define VNVRAM_CLI_CTRLSOCKET_H

#include <stdbool.h>
#include <sys/types.h>

struct ctrlsocket {
    int listener; /* to be handed on; -1: none, or handed on */
    int server;   /* so is this */
    int keeper;   /* a socket to the helper, or -1 */
};

struct ctrlsocket_options {
    const char *path;   /* of the control channel; NULL: none */
    const char *server; /* of the socket for commands; NULL: none */
    mode_t mode;
    uid_t uid; /* -1: ours */
    gid_t gid;
    bool sandbox;
};

/* A socket that nobody listens on any more is replaced; -EBUSY: somebody does.  Call it
 * single-threaded. */
int ctrlsocket_open(struct ctrlsocket *s, const struct ctrlsocket_options *opt);
/* Closes what was handed on. */
void ctrlsocket_handed_on(struct ctrlsocket *s);
/* Removes them, if they are still the ones that were made here. */
void ctrlsocket_close(struct ctrlsocket *s);

#endif
