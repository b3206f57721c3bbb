/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/ear.h"
#include "base/clock.h"
#include "base/report.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MOMENT_NS = 2000000 };

static void
set_timer(struct ear *e, uint64_t ns)
{
    const struct itimerspec when = {.it_value = {.tv_nsec = (long)ns}};

    timerfd_settime(e->timer, 0, &when, NULL);
}

/* One recall for each time that the other thread found the ear taken. */
static bool
is_recalled(struct ear *e)
{
    eventfd_t n;

    return eventfd_read(e->recall, &n) == 0;
}

/* When the timer has run out: whether there is a job that has lasted for a moment.  A younger one
 * gets the rest of its moment. */
static bool
lasts(struct ear *e)
{
    uint64_t since, age;

    atomic_store(&e->is_set,
                 false); /* before the look: a job that begins after it sets the timer */
    since = atomic_load(&e->since);
    age = (uint64_t)clock_ns() - since;
    if (since == 0 || age >= MOMENT_NS)
        return since != 0;
    if (!atomic_exchange(&e->is_set, true))
        set_timer(e, MOMENT_NS - age);
    return false;
}

static void *
stand_in(void *arg)
{
    struct ear *e = arg;
    uint64_t n;

    for (;;) {
        if (read(e->timer, &n, sizeof n) < 0 && errno != EINTR)
            _exit(EXIT_FAILURE);
        if (!lasts(e) || pthread_mutex_trylock(&e->held) != 0)
            continue;
        while (!is_recalled(e))
            e->listen(e->arg, e->recall);
        pthread_mutex_unlock(&e->held);
    }
    return NULL;
}

int
ear_init(struct ear *e, ear_listen_fn *listen, void *arg)
{
    *e = (struct ear){.listen = listen, .arg = arg};
    pthread_mutex_init(&e->held, NULL);
    e->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    e->recall = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return e->timer < 0 || e->recall < 0
               ? report(-errno, "cannot make a timer: %s", errno_text(errno))
               : 0;
}

int
ear_start(struct ear *e)
{
    pthread_t thread;
    int r;

    r = pthread_create(&thread, NULL, stand_in, e);
    if (r)
        return report(-r, "cannot start a thread: %s", errno_text(r));
    pthread_mutex_lock(&e->held);
    ear_lend(e);
    return 0;
}

/* Setting a timer is as dear as a short command, so it is set once a moment at most, and never
 * stopped: the other thread looks how old the job is. */
void
ear_lend(struct ear *e)
{
    atomic_store(&e->since, (uint64_t)clock_ns());
    pthread_mutex_unlock(&e->held);
    if (!atomic_exchange(&e->is_set, true))
        set_timer(e, MOMENT_NS);
}

void
ear_take(struct ear *e)
{
    atomic_store(&e->since, 0);
    if (pthread_mutex_trylock(&e->held) == 0)
        return;
    eventfd_write(e->recall, 1);
    pthread_mutex_lock(&e->held);
}
