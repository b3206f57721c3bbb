/* SPDX-License-Identifier: BSD-3-Clause */
/* link.h - the daemon's side of the TPM process: a command device (fs/cmddev.h) over the socket.
 *
 * One thread of its own reads the socket and runs completions and the event callback.  Nothing here
 * ever waits for the TPM process, but for tpm_link_free(). */
#ifndef VNVRAM_TPM_LINK_H
#define VNVRAM_TPM_LINK_H

#include "fs/cmddev.h"
#include "tpm/process.h"

enum tpm_state {
    TPM_STATE_STARTING, /* not ready yet */
    TPM_STATE_RUNNING,
    TPM_STATE_FAILED,  /* failure mode after a failed store; the reason was reported */
    TPM_STATE_STOPPED, /* orderly shutdown done */
    TPM_STATE_GONE,    /* the process ended without one */
};

/* @state is the new state; @why (NULL or text valid during the call) explains FAILED and GONE.  For
 * a start that failed: STATE_GONE with @r the finding or errno.  Runs on the link's thread. */
typedef void tpm_event_fn(void *arg, enum tpm_state state, int r, const char *why);

struct tpm_link;

/* Takes over @fd and @pid. */
int tpm_link_new(struct tpm_link **out, int fd, pid_t pid, tpm_event_fn *event, void *arg);
struct cmddev *tpm_link_cmddev(struct tpm_link *l);
pid_t tpm_link_pid(const struct tpm_link *l);
enum tpm_state tpm_link_state(struct tpm_link *l);
const char *tpm_state_name(enum tpm_state s);

/* Does what the process asks for: 0 or a negative errno (reported).  Runs on the link's thread; set
 * it before tpm_link_start(). */
typedef int tpm_move_fn(void *arg, enum tpm_move move, unsigned wait_ms);
void tpm_link_on_move(struct tpm_link *l, tpm_move_fn *move);

/* Tells the process to start on the mount at @path, whose root has @dev as st_dev, as @uid and
 * @gid, which the kernel must let in: those of the mounter, unless allow_other.  @held: the image's
 * directory says that it has held a TPM of this version; @privileged: use open_tree(). */
struct tpm_start {
    const char *path;
    dev_t dev;
    uid_t uid;
    gid_t gid;
    bool held;
    bool privileged;
};
int tpm_link_start(struct tpm_link *l, const struct tpm_start *start);
/* Asks for an orderly shutdown; the event callback tells the end. */
int tpm_link_stop(struct tpm_link *l);
/* Ends the process, in order if it can (for 5 s, then SIGKILL), reaps it, joins the thread.  Call
 * it when the session is over, or a process that waits for it cannot end. */
void tpm_link_free(struct tpm_link *l);

#endif
