/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/progress.h"
#include "base/scope.h"
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_MS = 500, TERMINAL_MS = 200, LOG_MS = 1000, STACK_SIZE = 256 * 1024 };

static struct {
    bool on, terminal;
    unsigned depth; /* of begins */
    bool running;   /* .thread is */
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool over, drawn;
    const char *what;
    uint64_t total;
    struct timespec since;
    atomic_uint_fast64_t done;
} p = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

void
progress_show(bool on)
{
    p.on = on;
    p.terminal = isatty(STDERR_FILENO);
}

static void
put(const char *text, int n)
{
    if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
        p.on = false; /* nobody is there to be told */
}

static void
erase(void)
{
    static const char clear[] = "\r\033[K";

    if (p.drawn && p.terminal)
        put(clear, sizeof clear - 1);
    p.drawn = false;
}

static void
draw(void)
{
    uint64_t done = atomic_load(&p.done);
    char line[160], part[32] = "";
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    if (p.total > 0)
        snprintf(part, sizeof part, ": %u%%",
                 done >= p.total ? 100U : (unsigned)((double)done * 100 / (double)p.total));
    put(line, snprintf(line, sizeof line, "%svnvram: %s%s, %" PRId64 " s%s", p.terminal ? "\r" : "",
                       p.what, part, (int64_t)(now.tv_sec - p.since.tv_sec),
                       p.terminal ? "\033[K" : "\n"));
    p.drawn = true;
}

static void
add_ms(struct timespec *t, unsigned ms)
{
    t->tv_sec += ms / 1000;
    t->tv_nsec += (long)(ms % 1000) * 1000000;
    if (t->tv_nsec >= 1000000000) {
        t->tv_nsec -= 1000000000;
        t->tv_sec++;
    }
}

static void *
run(void *arg)
{
    struct timespec next = p.since;

    (void)arg;
    add_ms(&next, FIRST_MS);
    pthread_mutex_lock(&p.lock);
    while (!p.over) {
        if (pthread_cond_clockwait(&p.changed, &p.lock, CLOCK_MONOTONIC, &next) == 0)
            continue;
        draw();
        clock_gettime(CLOCK_MONOTONIC, &next);
        add_ms(&next, p.terminal ? TERMINAL_MS : LOG_MS);
    }
    erase();
    pthread_mutex_unlock(&p.lock);
    return NULL;
}

/* Signals are for the thread that works. */
static bool
start_thread(void)
{
    pthread_attr_t attr;
    sigset_t all, before;
    int r = pthread_attr_init(&attr);

    if (r != 0)
        return false;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    r = pthread_create(&p.thread, &attr, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return r == 0;
}

void
progress_begin(const char *what, uint64_t total)
{
    if (!p.on || p.depth++ > 0)
        return;
    p.what = what;
    p.total = total;
    p.over = false;
    atomic_store(&p.done, 0);
    clock_gettime(CLOCK_MONOTONIC, &p.since);
    p.running = start_thread(); /* without one, nothing is shown */
}

void
progress_add(uint64_t n)
{
    if (p.depth == 1)
        atomic_fetch_add(&p.done, n);
}

void
progress_end(void)
{
    if (p.depth == 0 || --p.depth > 0 || !p.running)
        return;
    pthread_mutex_lock(&p.lock);
    p.over = true;
    pthread_cond_signal(&p.changed);
    pthread_mutex_unlock(&p.lock);
    pthread_join(p.thread, NULL);
    p.running = false;
}

bool
progress_started(const char *what, uint64_t total)
{
    progress_begin(what, total);
    return true;
}

void
progress_endp(bool *started)
{
    if (*started)
        progress_end();
}

void
progress_hide(void)
{
    AUTO_UNLOCK pthread_mutex_t *held = NULL;

    if (!p.running)
        return;
    held = lock_mutex(&p.lock);
    erase();
}
