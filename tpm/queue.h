/* SPDX-License-Identifier: BSD-3-Clause */
/* queue.h - what has come for the TPM, and its answers.  One job of each source may be outstanding.
 * Jobs come out in the order in which they went in.  Nothing waits: who listens puts them in, and
 * the TPM's thread looks when it has done the one before. */
#ifndef VNVRAM_TPM_QUEUE_H
#define VNVRAM_TPM_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum job_source { JOB_LINK, JOB_CONTROL, JOB_DATA, JOB_SOURCES };

struct job {
    enum job_source source;
    uint32_t code; /* JOB_CONTROL: enum wire_code */
    int locality;  /* of this command only; -1: as set */
    uint8_t *body; /* a TPM command, or the body of a request of the control channel */
    size_t len;
};

/* Wipes and frees the body. */
void job_fini(struct job *j);

struct queue {
    pthread_mutex_t lock; /* for all, but what is asked with each command can be seen without */
    atomic_bool stop;
    bool on;                             /* the TPM is: cancelling makes sense */
    bool in_job;                         /* the TPM is in a TPM command */
    enum job_source running;             /* ... of this source */
    bool cancel[JOB_SOURCES];            /* its command is to end early */
    uint64_t order, orders[JOB_SOURCES]; /* 0: no job */
    struct job jobs[JOB_SOURCES];
    atomic_bool has_answer[JOB_SOURCES];
    uint8_t *answers[JOB_SOURCES];
    size_t answer_lens[JOB_SOURCES];
};

void queue_init(struct queue *q);

/* For who listens. */

/* Copies @body.  False: one of that source is outstanding, or there is no memory. */
bool queue_put(struct queue *q, const struct job *j);
void queue_stop(struct queue *q);
bool queue_is_stopping(struct queue *q);
/* Asks the TPM command of @source that runs or waits to end early. */
void queue_cancel(struct queue *q, enum job_source source);
/* The TPM is on, so that there may be something to cancel. */
bool queue_is_on(struct queue *q);
/* Asks again, if it has not ended: a cancel that comes just before it starts is lost.  True while
 * there is one to ask. */
bool queue_cancel_again(struct queue *q);
/* The answer of a source, to be freed; false: none. */
bool queue_fetch(struct queue *q, enum job_source source, uint8_t **answer, size_t *len);

/* For the TPM. */

/* False: none, or it is to stop. */
bool queue_take(struct queue *q, struct job *j);
/* The job has ended. */
void queue_done(struct queue *q, bool on);
/* Takes over @answer; NULL: none, the channel is to be closed. */
void queue_answer(struct queue *q, enum job_source source, uint8_t *answer, size_t len);

#endif
