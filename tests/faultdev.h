/* SPDX-License-Identifier: BSD-3-Clause */
/* faultdev.h - a device in memory that cuts power, tears sectors, loses daemons and fails flushes.
 *
 * It keeps three layers, as a disk beneath a page cache has them: the medium; pages that the cache
 * holds as clean though the medium never got them (what one failed flush leaves behind); and the
 * 4 KiB writes since the last flush, in order, each of which a power cut may keep, drop or tear.
 * Forks share blocks until one of them writes, so a state costs a few hundred bytes.
 *
 * For one thread. */
#ifndef VNVRAM_TESTS_FAULTDEV_H
#define VNVRAM_TESTS_FAULTDEV_H

#include "core/dev.h"

enum {
    SECTOR_SIZE = 512,
    SECTORS = BLOCK_SIZE / SECTOR_SIZE,
    WHOLE = 0xff, /* a write of which every sector reached the medium; 0: none did */
};

struct dev *faultdev_new(uint64_t size); /* blank; a multiple of BLOCK_SIZE */
/* The same device in a state of its own: medium, cache, writes since the last flush.  The counters
 * of the fork are zero; its faults and its watcher are not taken along. */
struct dev *faultdev_fork(const struct dev *d);

/* 4 KiB writes since the last flush, and where the @i-th of them went. */
size_t faultdev_pending(const struct dev *d);
uint64_t faultdev_pending_off(const struct dev *d, size_t i);

/* What is left of @d after
 *  - a power cut: of write i the sectors in @masks[i] reached the medium (NULL: no write did);
 *  - the death of the writer after its first @n writes: they stay in the cache, dirty;
 *  - a failed flush: of write i the sectors in @masks[i] reached the medium, and the cache holds
 * all of them as clean. */
struct dev *faultdev_cut(const struct dev *d, const uint8_t *masks);
struct dev *faultdev_kill(const struct dev *d, size_t n);
struct dev *faultdev_flush_failed(const struct dev *d, const uint8_t *masks);

/* The medium itself, past all caches; for damage and for comparisons.  Any alignment. */
void faultdev_peek(const struct dev *d, void *buf, size_t n, uint64_t off);
void faultdev_poke(struct dev *d, const void *buf, size_t n, uint64_t off);
/* The byte at @off becomes another one, whatever it was. */
void faultdev_spoil(struct dev *d, uint64_t off);

enum fault_op { FAULT_READ, FAULT_WRITE, FAULT_SYNC, FAULT_OPS };
/* The @nth operation from now (0: the next) fails with @r.  A failed write has written what lies in
 * @masks' first byte (NULL: nothing); a failed flush leaves what faultdev_flush_failed() says. */
void faultdev_fail(struct dev *d, enum fault_op op, unsigned long nth, int r, const uint8_t *masks);
unsigned long faultdev_count(const struct dev *d, enum fault_op op);

/* What the next commit is told of it. */
void faultdev_touch(struct dev *d, enum dev_news news);

/* Called before each flush that takes effect: the place to look at what a crash could leave. */
typedef void faultdev_watcher(void *arg, const struct dev *d);
void faultdev_watch(struct dev *d, faultdev_watcher *watcher, void *arg);

#endif
