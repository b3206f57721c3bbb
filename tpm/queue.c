/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/queue.h"
#include "base/scope.h"
#include "tpm/engine.h"
#include <string.h>

void
job_fini(struct job *j)
{
    if (j->body)
        explicit_bzero(j->body, j->len);
    free(steal(&j->body));
}

void
queue_init(struct queue *q)
{
    *q = (struct queue){0};
    pthread_mutex_init(&q->lock, NULL);
}

bool
queue_put(struct queue *q, const struct job *j)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&q->lock);
    struct job *slot = &q->jobs[j->source];

    if (q->orders[j->source])
        return false;
    *slot = *j;
    slot->body = malloc(j->len + 1);
    if (!slot->body)
        return false;
    if (j->len)
        memcpy(slot->body, j->body, j->len);
    q->orders[j->source] = ++q->order;
    return true;
}

void
queue_stop(struct queue *q)
{
    q->stop = true;
}

bool
queue_is_stopping(struct queue *q)
{
    return q->stop;
}

bool
queue_is_on(struct queue *q)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&q->lock);

    return q->on;
}

void
queue_cancel(struct queue *q, enum job_source source)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&q->lock);
    bool runs = q->in_job && q->running == source;

    q->cancel[source] = runs || q->orders[source];
    if (runs)
        engine_cancel();
}

bool
queue_cancel_again(struct queue *q)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&q->lock);

    if (q->in_job && (q->cancel[q->running] || q->stop))
        engine_cancel();
    return q->cancel[JOB_DATA] || q->cancel[JOB_LINK] || q->stop;
}

bool
queue_fetch(struct queue *q, enum job_source source, uint8_t **answer, size_t *len)
{
    if (!q->has_answer[source])
        return false;

    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&q->lock);

    q->has_answer[source] = false;
    *answer = steal(&q->answers[source]);
    *len = q->answer_lens[source];
    return true;
}

/* The oldest; JOB_SOURCES: none. */
static int
oldest(const struct queue *q)
{
    int found = JOB_SOURCES;

    for (int i = 0; i < JOB_SOURCES; i++)
        if (q->orders[i] && (found == JOB_SOURCES || q->orders[i] < q->orders[found]))
            found = i;
    return found;
}

bool
queue_take(struct queue *q, struct job *j)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&q->lock);
    int i = oldest(q);

    if (i == JOB_SOURCES || q->stop)
        return false;
    *j = q->jobs[i];
    q->jobs[i].body = NULL;
    q->orders[i] = 0;
    q->in_job = j->source != JOB_CONTROL;
    q->running = j->source;
    return true;
}

void
queue_done(struct queue *q, bool on)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&q->lock);

    q->on = on;
    if (q->in_job)
        q->cancel[q->running] = false;
    q->in_job = false;
}

void
queue_answer(struct queue *q, enum job_source source, uint8_t *answer, size_t len)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&q->lock);

    q->answers[source] = answer;
    q->answer_lens[source] = len;
    q->has_answer[source] = true;
}
