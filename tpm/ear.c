/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/ear.h"
#include "base/report.h"
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { MOMENT_NS = 2000000 };

/* One recall for each time that the other thread found the ear taken. */
static bool
is_recalled(struct ear *e)
{
    eventfd_t n;

    return eventfd_read(e->recall, &n) == 0;
}

static void *
stand_in(void *arg)
{
    struct ear *e = arg;
    uint64_t n;

    for (;;) {
        if (read(e->timer, &n, sizeof n) < 0 && errno != EINTR)
            _exit(EXIT_FAILURE);
        if (pthread_mutex_trylock(&e->held) != 0)
            continue; /* the job has ended long ago */
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

/* The timer is never stopped: that the thread wakes up for nothing, once after the last job, costs
 * less than to stop it after each. */
void
ear_lend(struct ear *e)
{
    static const struct itimerspec moment = {.it_value = {.tv_nsec = MOMENT_NS}};

    pthread_mutex_unlock(&e->held);
    timerfd_settime(e->timer, 0, &moment, NULL);
}

void
ear_take(struct ear *e)
{
    if (pthread_mutex_trylock(&e->held) == 0)
        return;
    eventfd_write(e->recall, 1);
    pthread_mutex_lock(&e->held);
}
