/* SPDX-License-Identifier: BSD-3-Clause */
/* control.h - the sockets of the control channel, and the data channel that its client hands over:
 * who is connected, where a request or a TPM command ends, what goes back.  What a request does is
 * machine.h's.
 *
 * Nothing blocks, and a peer that makes no sense gets an error or is closed.  One client at a time;
 * the next waits in the socket's queue until that one has gone.  One thread at a time. */
#ifndef VNVRAM_TPM_CONTROL_H
#define VNVRAM_TPM_CONTROL_H

#include "tpm/channel.h"
#include "tpm/queue.h"

enum { CONTROL_FDS = 3, CONTROL_BUFFER = 4096 };

struct control_ops {
    /* A client came or went. */
    void (*attached)(void *arg, bool attached);
    /* The end: SHUTDOWN was asked for and has been answered, or the last client has gone. */
    void (*end)(void *arg);
};

struct control {
    const struct control_ops *ops;
    void *arg;
    struct queue *queue;
    int listener;      /* -1: the one client was there from the beginning */
    bool is_12;        /* TPM 1.2: its form of errors */
    bool terminate;    /* end when the client leaves */
    bool may_be_pad;   /* see wire_padding() */
    bool has_spoken;   /* else it only looked whether somebody listens here */
    bool shut_down;    /* SHUTDOWN is in the works */
    bool was_attached; /* as last told */
    bool prefixed;     /* the command in the works came in the TCG's form, and so goes its answer */
    uint32_t code;     /* of the request in the works */
    struct channel client, data;
};

/* Takes over @fd: a listening socket or a connected one. */
void control_open(struct control *c, int fd);
void control_close(struct control *c);
/* Fills @p with what to poll for. */
void control_poll(const struct control *c, struct pollfd p[CONTROL_FDS]);
/* After poll(2), and, with nothing polled, after there is a new answer in the queue. */
void control_turn(struct control *c, const struct pollfd p[CONTROL_FDS]);

#endif
