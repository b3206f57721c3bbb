/* SPDX-License-Identifier: BSD-3-Clause */
#include "core/lease.h"
#include "base/clock.h"
#include "base/scope.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

enum {
    POLL_US = 1000,
    HOLD_US = LEASE_HOLD_MS * 1000,
    /* What commits may wait grows back this much faster than time passes without waiting: copies in
     * a row all get their turn, and yet no client waits much longer than for one. */
    REGAIN = 8,
    /* Who outlasts a wait is not waited for again for so long, then twice as long: a copy that
     * takes minutes costs little, and a file that stays open for good next to nothing. */
    GIVE_UP_S = 10,
    GIVE_UP_MAX_S = 3600,
};

struct lease {
    pthread_mutex_t lock; /* held from begin to end */
    int fd;
    bool works; /* there are leases here */
    bool armed;
    int64_t allowance, since;   /* us: how long may be waited, and as of when */
    int64_t given_up, patience; /* us: until when nobody is waited for; how long the next time */
    struct stat last;           /* the file after our last write, if .known */
    bool known;
    bool in_row;   /* this commit follows closely upon the one before */
    int64_t ended; /* us: the one before */
};

static void
note(struct lease *l)
{
    l->known = fstat(l->fd, &l->last) == 0;
}

struct lease *
lease_new(int fd)
{
    struct lease *l = calloc(1, sizeof *l);

    if (!l)
        return NULL;
    pthread_mutex_init(&l->lock, NULL);
    l->fd = fd;
    l->allowance = HOLD_US;
    l->since = clock_us();
    l->patience = GIVE_UP_S * INT64_C(1000000);
    note(l);
    signal(SIGIO, SIG_IGN); /* by default it kills */
    return l;
}

void
lease_free(struct lease *l)
{
    if (!l)
        return;
    pthread_mutex_destroy(&l->lock);
    free(l);
}

/* Inside a commit's frame, or out of it. */
void
lease_use(struct lease *l, int fd)
{
    if (l->armed)
        fcntl(l->fd, F_SETLEASE, F_UNLCK);
    l->armed = l->works = false;
    l->fd = fd;
    if (fd >= 0)
        note(l);
}

/* An open that waits for our lease to end counts as one already, so a copy is never passed over by
 * one commit after the other.  -EAGAIN: the file is open elsewhere; anything else: no leases here.
 */
static int
arm(struct lease *l)
{
    int r = fcntl(l->fd, F_SETLEASE, F_WRLCK) < 0 ? -errno : 0;

    l->armed = r == 0;
    l->works = r == 0 || r == -EAGAIN;
    return r;
}

static void
regain(struct lease *l, int64_t now)
{
    l->allowance += (now - l->since) * REGAIN;
    if (l->allowance > HOLD_US)
        l->allowance = HOLD_US;
    l->since = now;
}

/* Somebody has kept the file open for longer than may be waited. */
static void
give_up(struct lease *l, int64_t now)
{
    l->given_up = now + l->patience;
    if (l->patience < GIVE_UP_MAX_S * INT64_C(1000000))
        l->patience *= 2;
}

/* 0: the lease is there, and nobody was in the way. */
static int
hold(struct lease *l)
{
    int64_t start = clock_us(), now = start;
    bool waits = start >= l->given_up;
    int r;

    regain(l, start);
    while ((r = arm(l)) == -EAGAIN && waits && now - start < l->allowance) {
        nanosleep(&(struct timespec){.tv_nsec = POLL_US * 1000L}, NULL);
        now = clock_us();
    }
    l->allowance -= now - start;
    l->since = now;
    if (r == -EAGAIN && waits)
        give_up(l, now);
    if (r == 0) {
        l->given_up = 0;
        l->patience = GIVE_UP_S * INT64_C(1000000);
    }
    return start == now ? r : -EAGAIN;
}

/* Times have the grain of a clock tick where the kernel knows no finer ones: a write within the
 * tick of our own last one is not noticed. */
static bool
is_changed(const struct lease *l)
{
    struct stat st;

    if (fstat(l->fd, &st) < 0)
        return true;
    return st.st_size != l->last.st_size || st.st_ctim.tv_sec != l->last.st_ctim.tv_sec ||
           st.st_ctim.tv_nsec != l->last.st_ctim.tv_nsec;
}

enum dev_news
lease_begin(struct lease *l)
{
    int r;

    pthread_mutex_lock(&l->lock);
    r = hold(l);
    l->in_row = r == 0 && clock_us() - l->ended < LEASE_ROW_US;
    if (!l->works || l->in_row)
        return DEV_NO_NEWS;
    if (!l->known)
        return DEV_UNKNOWN;
    return is_changed(l) ? DEV_TOUCHED : DEV_NO_NEWS;
}

bool
lease_works(const struct lease *l)
{
    return l->works;
}

/* Somebody whose open waits for the lease gets in the moment that it is given back, and may write
 * and be gone again before the next commit.  Without a lease somebody is in already. */
static bool
nobody_waits(const struct lease *l)
{
    return l->armed && fcntl(l->fd, F_GETLEASE) == F_WRLCK;
}

void
lease_end(struct lease *l)
{
    bool calm = nobody_waits(l);

    if (l->works && !(l->in_row && calm))
        note(l);
    else
        l->known = false;
    if (l->armed)
        fcntl(l->fd, F_SETLEASE, F_UNLCK);
    l->armed = false;
    l->ended = calm ? clock_us() : 0;
    pthread_mutex_unlock(&l->lock);
}
