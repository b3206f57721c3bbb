/* SPDX-License-Identifier: BSD-3-Clause */
/* nbdpeer.h - an NBD server in a thread, on a Unix domain socket, which dies when it is told: then
 * its connections end, its cache is lost, and a new one is there at once. */
#ifndef VNVRAM_TESTS_NBDPEER_H
#define VNVRAM_TESTS_NBDPEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum nbdpeer_loss { LOSE_ALL, LOSE_SOME, LOSE_NONE };

struct nbdpeer_plan {
    unsigned long at; /* the request at which it happens, from 1; 0: never */
    bool after;       /* the request has been done, but not answered */
    enum nbdpeer_loss loss;
    bool stall;       /* instead of dying, answer nothing more on this connection; do what was asked
                         when the client has gone, or with .after at once */
    unsigned slow_ms; /* instead of dying, wait so long */
    unsigned error;   /* instead of dying, answer this */
    bool away;        /* do not come back */
    unsigned futile;  /* come back, and end so many connections as soon as they are there */
    bool shrink, read_only, no_flush; /* come back like that */
    const uint8_t *back;              /* come back with this on the medium */
    bool again;                       /* at every multiple of .at */
    const struct nbdpeer_plan *then;  /* what to do after it has died, counting anew */
};

struct nbdpeer;

/* One at a time.  A medium of @size bytes of zeros.  @flags as of NBD's export: 4 flush, 8 FUA, 2
 * read-only. */
struct nbdpeer *nbdpeer_new(size_t size, unsigned flags);
void nbdpeer_free(struct nbdpeer *p);
const char *nbdpeer_uri(const struct nbdpeer *p);
void nbdpeer_plan(struct nbdpeer *p, const struct nbdpeer_plan *plan); /* counts anew */
bool nbdpeer_has_died(struct nbdpeer *p);
/* Connections since the plan. */
unsigned long nbdpeer_connections(struct nbdpeer *p);
/* Requests that it has seen since the plan; those that write. */
unsigned long nbdpeer_seen(struct nbdpeer *p);
unsigned long nbdpeer_writes(struct nbdpeer *p);
/* What is on the medium, the cache lost: a copy, to be freed. */
uint8_t *nbdpeer_medium(struct nbdpeer *p);
void nbdpeer_set_medium(struct nbdpeer *p, const uint8_t *bytes);

#endif
