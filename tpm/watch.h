/* SPDX-License-Identifier: BSD-3-Clause */
/* watch.h - poll(2) for who asks about the same descriptors again and again.  What it was asked the
 * last time is kept as an epoll(7) set, which takes the kernel a third of the work for each wait.
 */
#ifndef VNVRAM_TPM_WATCH_H
#define VNVRAM_TPM_WATCH_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

enum { WATCH_MAX = 8 };

struct watch {
    int epoll;   /* -1: there is no set, */
    bool failed; /* and none of what is asked can be made */
    uint64_t edition;
    nfds_t n;
    struct pollfd fds[WATCH_MAX]; /* what was asked last */
};

/* Nothing was asked yet. */
void watch_init(struct watch *w);

/* As poll(2), of at most WATCH_MAX descriptors.  @edition must be another one whenever one of them
 * may be another file than the last time, since the number alone does not tell.  POLLPRI may come
 * though there is nothing: who asks for it looks. */
int watch_poll(struct watch *w, uint64_t edition, struct pollfd *fds, nfds_t n, int timeout_ms);

#endif
