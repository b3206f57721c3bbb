/* SPDX-License-Identifier: BSD-3-Clause */
/* ear.h - who listens to the sockets of the TPM's process: the TPM's own thread, so that a command
 * need not be handed over from one to another.  It lends the ear while it is in a job, and if that
 * takes more than a moment, a thread that does nothing else stands in. */
#ifndef VNVRAM_TPM_EAR_H
#define VNVRAM_TPM_EAR_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Waits for something to come, and does what is to be done.  Returns when @recall can be read, too;
 * -1: there is no such thing. */
typedef void ear_listen_fn(void *arg, int recall);

struct ear {
    ear_listen_fn *listen;
    void *arg;
    pthread_mutex_t held;   /* by who listens */
    int timer;              /* wakes the one that stands in */
    _Atomic bool is_set;    /* ... some time soon */
    _Atomic uint64_t since; /* when the job began; 0: there is none */
    int recall;             /* an eventfd: it is to give the ear back */
};

int ear_init(struct ear *e, ear_listen_fn *listen, void *arg);
/* Starts the thread.  The ear is lent: ear_take() comes next. */
int ear_start(struct ear *e);

/* For the TPM's thread. */
void ear_lend(struct ear *e);
void ear_take(struct ear *e);

#endif
