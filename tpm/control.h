/* SPDX-License-Identifier: BSD-3-Clause */
/* control.h - the sockets of the control channel, and the data channel: who is connected, where a
 * request or a TPM command ends, what goes back.  What a request does is machine.h's.
 *
 * The data channel is a socket that the control channel's client hands over and that goes with it,
 * or a connection to the server socket, which needs no such client.
 *
 * Nothing blocks, and a peer that makes no sense gets an error or is closed.  One client of each
 * socket at a time; the next waits in the socket's queue until that one has gone, but is turned
 * away from the server socket by a data channel that was handed over: that may stay for days.  One
 * thread at a time. */
#ifndef VNVRAM_TPM_CONTROL_H
#define VNVRAM_TPM_CONTROL_H

#include "tpm/channel.h"
#include "tpm/queue.h"

enum { CONTROL_FDS = 4, CONTROL_BUFFER = 4096 };

struct control_ops {
    /* Somebody has the TPM by these sockets now, or nobody has any more. */
    void (*attached)(void *arg, bool attached);
    /* The end: SHUTDOWN was asked for and has been answered, or the last client has gone. */
    void (*end)(void *arg);
};

struct control {
    const struct control_ops *ops;
    void *arg;
    struct queue *queue;
    int listener;      /* -1: the one client was there from the beginning */
    int server;        /* a listening socket for TPM commands alone; -1: none */
    bool is_12;        /* TPM 1.2: its form of errors */
    bool terminate;    /* end when the client leaves */
    bool may_be_pad;   /* see wire_padding() */
    bool has_spoken;   /* else it only looked whether somebody listens here */
    bool shut_down;    /* SHUTDOWN is in the works */
    bool was_attached; /* the control channel's client was there */
    bool was_taken;    /* as last told */
    bool is_served;    /* the data channel is a connection to .server */
    bool is_cancelled; /* the command of a peer that has gone, already */
    bool prefixed;     /* the command in the works came in the TCG's form, and so goes its answer */
    uint32_t code;     /* of the request in the works */
    uint64_t edition;  /* +1 for each socket that is new */
    struct channel client, data;
};

/* Takes over @fd, a listening socket or a connected one, and @server (-1: none). */
void control_open(struct control *c, int fd, int server);
void control_close(struct control *c);
/* Fills @p with what to poll for. */
void control_poll(const struct control *c, struct pollfd p[CONTROL_FDS]);
/* After poll(2), and, with nothing polled, after there is a new answer in the queue. */
void control_turn(struct control *c, const struct pollfd p[CONTROL_FDS]);

#endif
