/* SPDX-License-Identifier: BSD-3-Clause */
/* process.h - the TPM process: libtpms behind a socket, its NVRAM as plain files of a directory.
 *
 * It is forked before the image, the keys and the FUSE descriptor are opened, and it knows nothing
 * of them.  Life: fork -> wait for TPM_LINK_START -> open the mount's root (an open_tree() clone
 * where privileged), check its st_dev, drop to the mount owner's rights, enter the sandbox -> load
 * or manufacture -> ready -> commands -> on unmount, TPM_LINK_STOP or a closed socket:
 * TPM2_Shutdown (if the client did not), store, close the root, exit. */
#ifndef VNVRAM_TPM_PROCESS_H
#define VNVRAM_TPM_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

enum tpm_version { TPM_VERSION_NONE = 0, TPM_VERSION_1_2 = 12, TPM_VERSION_2_0 = 20 };
enum tpm_startup { TPM_STARTUP_NONE, TPM_STARTUP_CLEAR, TPM_STARTUP_STATE };

/* What the TPM's process asks of the daemon, with a control channel. */
enum tpm_move {
    TPM_RELEASE, /* let the image go, to take it back only as it is now */
    TPM_GIVE_UP, /* let it go, and wait for it as one that is yet to come */
    TPM_TAKE,
};
enum { TPM_MOVE_MAX_MS = 30000 }; /* the longest that a take may wait */

struct tpm_options {
    enum tpm_version version;
    enum tpm_startup startup;
    bool manufacture; /* make a new TPM even where the image once held one */
    /* The control channel: a listening or a connected socket; 0: none.  With it the TPM is powered
     * on by its client, or by the first command through the link, or for .startup, if that is not
     * NONE. */
    int control;
    int server;             /* a listening socket for TPM commands, beside .control; 0: none */
    int pcap;               /* a file from pcap_create(), or 0 */
    bool moves;             /* the daemon does what enum tpm_move says */
    bool incoming;          /* the image is elsewhere yet: there are no files to open */
    bool terminate;         /* end when the control channel's client leaves */
    bool reject_locality_4; /* what only a machine's hardware may use */
    bool no_sandbox; /* for debugging; the mount owner's rights, without capabilities, all the same
                      */
};

/* Forks the TPM process, which gets its own copies of .control, .server and .pcap.  *@pid is its
 * PID, *@link the daemon's end of a SOCK_SEQPACKET pair (CLOEXEC). Call it single-threaded.  The
 * child returns never. */
int tpm_process_fork(const struct tpm_options *opt, pid_t *pid, int *link);

#endif
