/* SPDX-License-Identifier: BSD-3-Clause */
#include "tpm/watch.h"
#include "base/scope.h"
#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>

/* The bits are the same ones, in Linux. */
static_assert(POLLIN == EPOLLIN && POLLPRI == EPOLLPRI && POLLOUT == EPOLLOUT &&
                  POLLERR == EPOLLERR && POLLHUP == EPOLLHUP,
              "poll and epoll differ");

void
watch_init(struct watch *w)
{
    *w = (struct watch){.epoll = -1};
}

static bool
is_same(const struct watch *w, uint64_t edition, const struct pollfd *fds, nfds_t n)
{
    bool same = w->edition == edition && w->n == n;

    for (nfds_t i = 0; same && i < n; i++)
        same = w->fds[i].fd == fds[i].fd && (fds[i].fd < 0 || w->fds[i].events == fds[i].events);
    return same;
}

/* A set that is not made by now would not be kept up to date: a descriptor that somebody else has,
 * too, stays in a set after it was closed here, and cannot be taken out. */
static void
forget(struct watch *w)
{
    scope_close(&w->epoll);
    w->epoll = -1;
    w->failed = false;
}

static void
make(struct watch *w)
{
    AUTO_FD int epoll = epoll_create1(EPOLL_CLOEXEC);

    w->failed = epoll < 0;
    for (nfds_t i = 0; !w->failed && i < w->n; i++) {
        struct epoll_event event = {.events = (uint32_t)w->fds[i].events, .data.u64 = i};

        w->failed = w->fds[i].fd >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, w->fds[i].fd, &event) < 0;
    }
    if (!w->failed)
        w->epoll = steal_fd(&epoll);
}

static int
wait(const struct watch *w, struct pollfd *fds, nfds_t n, int timeout_ms)
{
    struct epoll_event events[WATCH_MAX];
    int found = epoll_wait(w->epoll, events, WATCH_MAX, timeout_ms);

    for (nfds_t i = 0; i < n; i++)
        fds[i].revents = 0;
    for (int i = 0; i < found; i++)
        fds[events[i].data.u64].revents = (short)events[i].events;
    return found;
}

/* The file of the mounts tells of a change once, and making the set may have been what it was told,
 * whether there is one now or not. */
static int
look_at_all(struct pollfd *fds, nfds_t n)
{
    int found = 0;

    for (nfds_t i = 0; i < n; i++) {
        fds[i].revents = fds[i].fd >= 0 ? fds[i].events & POLLPRI : 0;
        found += fds[i].revents != 0;
    }
    return found;
}

int
watch_poll(struct watch *w, uint64_t edition, struct pollfd *fds, nfds_t n, int timeout_ms)
{
    assert(n <= WATCH_MAX);
    if (!is_same(w, edition, fds, n)) {
        forget(w);
        w->edition = edition;
        w->n = n;
        for (nfds_t i = 0; i < n; i++)
            w->fds[i] = fds[i];
        return poll(fds, n, timeout_ms);
    }
    if (w->epoll < 0 && !w->failed) {
        int found = 0;

        make(w);
        found = look_at_all(fds, n);
        if (found > 0)
            return found;
    }
    return w->failed ? poll(fds, n, timeout_ms) : wait(w, fds, n, timeout_ms);
}
