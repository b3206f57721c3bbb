/* SPDX-License-Identifier: BSD-3-Clause */
#include "fs/settle.h"
#include "base/scope.h"
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>

struct settle {
    void (*run)(void *arg);
    void *arg;
    unsigned after_ms;
    pthread_t thread;
    pthread_mutex_t lock; /* all below */
    pthread_cond_t wake;
    struct timespec due; /* CLOCK_MONOTONIC; when .pending */
    bool pending, running, end;
};

static void
settle_once(struct settle *s)
{
    s->pending = false;
    s->running = true;
    pthread_mutex_unlock(&s->lock);
    s->run(s->arg);
    pthread_mutex_lock(&s->lock);
    s->running = false;
}

static void *
settle_main(void *arg)
{
    struct settle *s = arg;
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);

    while (!s->end) {
        struct timespec due = s->due;

        if (!s->pending)
            pthread_cond_wait(&s->wake, &s->lock);
        else if (pthread_cond_timedwait(&s->wake, &s->lock, &due) == ETIMEDOUT && s->pending &&
                 !s->end && due.tv_sec == s->due.tv_sec && due.tv_nsec == s->due.tv_nsec)
            settle_once(s);
    }
    return NULL;
}

/* Signals are for the daemon's main thread. */
static int
start_thread(struct settle *s)
{
    sigset_t all, old;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&s->thread, NULL, settle_main, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -r;
}

int
settle_new(struct settle **out, unsigned after_ms, void (*run)(void *arg), void *arg)
{
    AUTO_FREE struct settle *s = calloc(1, sizeof *s);
    pthread_condattr_t monotonic;
    int r;

    if (!s)
        return -ENOMEM;
    *s = (struct settle){.run = run, .arg = arg, .after_ms = after_ms};
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    r = start_thread(s);
    if (r < 0)
        return r;
    *out = steal(&s);
    return 0;
}

void
settle_poke(struct settle *s)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&s->lock);
    bool asleep = !s->pending;

    if (s->running && pthread_equal(pthread_self(), s->thread))
        return;
    clock_gettime(CLOCK_MONOTONIC, &s->due);
    s->due.tv_nsec += (long)(s->after_ms % 1000) * 1000000;
    s->due.tv_sec += s->after_ms / 1000 + s->due.tv_nsec / 1000000000;
    s->due.tv_nsec %= 1000000000;
    s->pending = true;
    if (asleep) /* else it wakes at the old time, and sees the new one */
        pthread_cond_signal(&s->wake);
}

void
settle_free(struct settle *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->end = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
