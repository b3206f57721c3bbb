/* SPDX-License-Identifier: BSD-3-Clause */
/* clock.h - how long things take: a clock that nobody sets. */
#ifndef VNVRAM_BASE_CLOCK_H
#define VNVRAM_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t
clock_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int64_t
clock_us(void)
{
    return clock_ns() / 1000;
}

static inline int64_t
clock_ms(void)
{
    return clock_ns() / 1000000;
}

#endif
