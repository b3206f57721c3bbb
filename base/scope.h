/* SPDX-License-Identifier: BSD-3-Clause */
/* scope.h - guards that free a local when it goes out of scope.
 *
 * A guarded local is initialised where it is declared.  steal() passes ownership on: it returns the
 * value and leaves NULL (or, with steal_fd, -1) behind. */
#ifndef VNVRAM_BASE_SCOPE_H
#define VNVRAM_BASE_SCOPE_H

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define AUTO(fn) __attribute__((cleanup(fn)))
#define AUTO_FREE AUTO(scope_free)
#define AUTO_FD AUTO(scope_close)
#define AUTO_UNLOCK AUTO(scope_unlock) __attribute__((unused)) /* but for its end */

#define steal(p)                                                                                   \
    ({                                                                                             \
        __typeof__(p) steal_p_ = (p);                                                              \
        __typeof__(*steal_p_) steal_v_ = *steal_p_;                                                \
        *steal_p_ = NULL;                                                                          \
        steal_v_;                                                                                  \
    })

static inline int
steal_fd(int *fd)
{
    int v = *fd;

    *fd = -1;
    return v;
}

static inline void
scope_free(void *p)
{
    free(*(void **)p);
}

static inline void
scope_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* A held mutex as a guarded local: AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&m); */
static inline pthread_mutex_t *
lock_mutex(pthread_mutex_t *m)
{
    pthread_mutex_lock(m);
    return m;
}

static inline void
scope_unlock(pthread_mutex_t **m)
{
    if (*m)
        pthread_mutex_unlock(*m);
}

#endif
