/* SPDX-License-Identifier: BSD-3-Clause */
/* channel.h - one end of a stream socket that never blocks: what has come and is not yet used, and
 * what is still to be sent.  One thread owns it. */
#ifndef VNVRAM_TPM_CHANNEL_H
#define VNVRAM_TPM_CHANNEL_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct channel {
    int fd;          /* -1: closed */
    bool no_passing; /* descriptors that come along are not wanted */
    int passed;      /* one that is, or -1; any others were closed */
    uint8_t *in, *out;
    size_t in_len, in_size;
    size_t out_len, out_done;
    uint64_t skip;  /* bytes to come that nobody wants */
    bool busy;      /* a request is being worked on: nothing is read meanwhile */
    bool peer_gone; /* seen while busy, and acted upon after */
};

/* @fd may be -1. */
void channel_open(struct channel *c, int fd);
/* Wipes and closes all. */
void channel_close(struct channel *c);

/* What to poll for. */
struct pollfd channel_poll(const struct channel *c);
/* After poll(2): sends and reads what goes.  Closes the channel when its peer has gone. */
void channel_turn(struct channel *c, short revents);
/* True when a request may be taken from .in: none is being worked on, no reply is left to send. */
bool channel_is_idle(const struct channel *c);
/* Room in .in for a request of @size bytes; false: no memory. */
bool channel_reserve(struct channel *c, size_t size);
/* Drops the first @n bytes of .in and, where there are fewer, as many of those to come. */
void channel_consume(struct channel *c, uint64_t n);
/* Sends @len bytes, or as much as goes now. */
void channel_send(struct channel *c, const uint8_t *buf, size_t len);

#endif
