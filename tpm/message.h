/* SPDX-License-Identifier: BSD-3-Clause */
/* message.h - what the daemon and its TPM process say to each other: one SOCK_SEQPACKET message
 * each, a type and a body.  Both ends are the same program, so host byte order is fine; but the TPM
 * process handles what guests send, so the daemon believes nothing that it has not checked.
 *
 *   to the process    START       struct message_start: begin
 *                     COMMAND     a TPM command; one may be outstanding
 *                     CANCEL      end the outstanding command early
 *                     STOP        shut down in order, then exit
 *                     MOVED       int32_t: how the MOVE went
 *   to the daemon     RESPONSE    the response to the outstanding command
 *                     STATE       struct message_state: what the TPM is now
 *                     LOG         struct message_log: a line for the daemon's reports
 *                     ATTACHED    a byte: is there a client of the control channel?
 *                     MOVE        struct message_move: let the image go, or take it; one at a time
 */
#ifndef VNVRAM_TPM_MESSAGE_H
#define VNVRAM_TPM_MESSAGE_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

enum message_type {
    MESSAGE_START = 1,
    MESSAGE_COMMAND,
    MESSAGE_CANCEL,
    MESSAGE_STOP,
    MESSAGE_RESPONSE,
    MESSAGE_STATE,
    MESSAGE_LOG,
    MESSAGE_ATTACHED,
    MESSAGE_MOVE,
    MESSAGE_MOVED
};

enum { MESSAGE_TEXT = 512, MESSAGE_BODY = PATH_MAX + 64 };

struct message_start {
    uint64_t dev;
    uint32_t uid, gid;
    uint32_t held, privileged; /* booleans */
    char path[PATH_MAX];
};

struct message_state {
    uint32_t state; /* enum tpm_state */
    int32_t r;
    char why[MESSAGE_TEXT]; /* empty: no more to say */
};

struct message_log {
    uint32_t level; /* enum report_level */
    char line[MESSAGE_TEXT];
};

struct message_move {
    uint32_t move; /* enum tpm_move */
    uint32_t wait_ms;
};

struct message {
    uint32_t type;
    size_t len; /* of body */
    uint8_t body[MESSAGE_BODY];
};

/* 0 or a negative errno; with @flags MSG_DONTWAIT, -EAGAIN when the other side has not read for
 * long. */
int message_send(int fd, enum message_type type, const void *body, size_t len, int flags);
/* 0, -ENOTCONN when the other side has closed, -EBADMSG (no message of ours), or another errno. */
int message_receive(int fd, struct message *m);

#endif
