/* SPDX-License-Identifier: BSD-3-Clause */
/* dev.h - the device beneath an image: a seam.  core/dev_file.c is the real one; tests/faultdev.c
 * cuts power, tears sectors and fails flushes.
 *
 * Transfers are whole or fail with a negative errno; they are aligned to BLOCK_SIZE in offset,
 * length and memory (dev_alloc()).  pread may be called from any thread at any time; all others
 * only by the thread that holds the store's lock. */
#ifndef VNVRAM_CORE_DEV_H
#define VNVRAM_CORE_DEV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BLOCK_SIZE = 4096 };

struct dev;

enum dev_news {
    DEV_NO_NEWS, /* nobody has written, or this device cannot tell */
    DEV_UNKNOWN, /* it can tell, but not this time */
    DEV_TOUCHED,
};

struct dev_ops {
    /* -ERANGE past the end, with @buf filled as far as the device goes. */
    int (*pread)(struct dev *d, void *buf, size_t n, uint64_t off);
    int (*pwrite)(struct dev *d, const void *buf, size_t n, uint64_t off);
    int (*sync)(struct dev *d); /* returns 0 only when all earlier writes are on the medium */
    /* Optional, both or none: see dev_submit(). */
    int (*submit)(struct dev *d, const void *buf, size_t n, uint64_t off);
    int (*wait)(struct dev *d);
    /* From now on (@on) reads tell what is on the medium, not what a cache holds. */
    int (*medium)(struct dev *d, bool on);
    void (*close)(struct dev *d);
    /* Optional, both or none: around each commit, in pairs; see dev_begin(). */
    enum dev_news (*begin)(struct dev *d);
    void (*end)(struct dev *d);
    void (*idle)(struct dev *d); /* optional: see dev_idle() */
    /* Optional, both or none: see dev_release(). */
    void (*release)(struct dev *d);
    int (*take)(struct dev *d, unsigned wait_ms);
};

/* Whoever knows what must lie on @d.  Asked, within an operation of its own and so on its thread,
 * by a device that had lost sight of its medium and has found one again, before anything more is
 * written: 0, or a negative errno (reported) that says that it is not the same any more.  It may
 * read. */
typedef int dev_witness_fn(void *arg, struct dev *d);
/* Told, likewise, that the device takes no writes any more, and why (a string that stays): it may
 * be a read that found out. */
typedef void dev_fail_fn(void *arg, int r, const char *why);

/* Whoever may forbid writing to @d: asked by dev_pwrite() and dev_submit() before the first write
 * after a flush, and by dev_sync() after each flush.  0, or how the write or the flush fails
 * (reported).  It may read.
 */
typedef int dev_guard_fn(void *arg, struct dev *d);

/* Embedded as the first member of an implementation. */
struct dev {
    const struct dev_ops *ops;
    uint64_t size; /* bytes */
    bool read_only;
    bool shared;      /* other hosts may reach it, too: block devices and servers */
    atomic_bool sole; /* within a commit: dev_begin() tells of whoever else has written to it */
    char *name;       /* for reports; owned by the implementation */
    dev_witness_fn *witness; /* NULL: whatever is there will do */
    dev_fail_fn *fail;       /* NULL: nobody wants to know */
    void *witness_arg;
    dev_guard_fn *guard; /* NULL: nobody forbids anything */
    void *guard_arg;
    bool guard_asked; /* since the last flush, or since a commit began */
};

/* Checked wrappers.  dev_pread and dev_pwrite report() a failure once, with the name and the
 * offset. */
int dev_pread(struct dev *d, void *buf, size_t n, uint64_t off);
int dev_pwrite(struct dev *d, const void *buf, size_t n, uint64_t off);
/* A write that may still be on its way, beside others, when this returns; it may fail then.  @buf
 * stays until dev_wait() or dev_sync(), which wait for all of them.  Those of one commit may end in
 * any order: the medium keeps none itself. */
int dev_submit(struct dev *d, const void *buf, size_t n, uint64_t off);
/* Reports, once, when one has failed. */
int dev_wait(struct dev *d);
int dev_sync(struct dev *d);
int dev_medium(struct dev *d, bool on);
/* A commit's writes come between the two; commits of several threads go one after the other.
 * dev_begin() may wait a while for somebody who is copying the device, so hold no lock that readers
 * need.  It tells whether somebody else seems to have written to the device since the last
 * dev_end(). */
enum dev_news dev_begin(struct dev *d);
void dev_end(struct dev *d);
/* Nothing will be read or written for a while: what is cached of it can go. */
void dev_idle(struct dev *d);
/* Lets the device go, so that another daemon can become its one writer: nothing of it is open or
 * locked here when this returns.  Until dev_take() there are no transfers. */
void dev_release(struct dev *d);
/* Takes a device that was let go, or opened for reading only, as its one writer; waits for whoever
 * has it, @wait_ms at most.  -EBUSY (reported): somebody has it; -EOPNOTSUPP (reported): it cannot
 * be taken.  After an error it is let go. */
int dev_take(struct dev *d, unsigned wait_ms);
/* Whether it can be let go and taken at all. */
bool dev_can_move(const struct dev *d);
void dev_set_witness(struct dev *d, dev_witness_fn *witness, dev_fail_fn *fail, void *arg);
void dev_set_guard(struct dev *d, dev_guard_fn *guard, void *arg); /* NULL: none */
void dev_close(struct dev *d);                                     /* NULL is fine */
void dev_closep(struct dev **d);

/* Whether a tail shorter than a block (sizes need not be whole blocks) holds a byte that is not
 * zero. */
bool dev_tail_is_data(struct dev *d);

/* @n bytes aligned to BLOCK_SIZE and zeroed; free() them.  NULL when memory is short. */
void *dev_alloc(size_t n);
void *dev_alloc_raw(size_t n); /* not zeroed */

enum dev_open_flags {
    DEV_READ_ONLY = 1, /* else exclusive: waits up to 3 s for the lock, then -EBUSY */
    DEV_CREATE = 2,    /* create a regular file (0600) if there is none */
    DEV_NO_LOCK = 4, /* with DEV_READ_ONLY: do not ask for the lock (info, check beside a daemon) */
    DEV_NO_WAIT = 8, /* do not wait for the lock */
};

/* For devices that are not on this host. */
struct dev_options {
    unsigned reconnect_s; /* how long to wait for one that does not answer, or is not there */
    bool unsafe_cache;    /* take one for writing that cannot flush */
};
enum { RECONNECT_DEFAULT_S = 60 };
#define DEV_OPTIONS_INIT                                                                           \
    {                                                                                              \
        .reconnect_s = RECONNECT_DEFAULT_S                                                         \
    }

/* Opens what @name means: a path, or an NBD URI (core/dev_nbd.h).  @opt may be NULL. */
int dev_open(struct dev **out, const char *name, unsigned flags, const struct dev_options *opt);
bool dev_is_path(const char *name);
/* The one spelling of it: a real path, or a URI with absolute paths in it.  free() it; NULL when
 * it cannot be told (reported). */
char *dev_real_name(const char *name);

/* Opens the regular file or block device at @path.  A writer holds the one lock of the image (an
 * OFD write lock on the whole file; a block device also O_EXCL, a loop device its backing file
 * too). Returns 0, -EBUSY (reported, with the holder's PID where it is known), or another errno
 * (reported). */
int dev_file_open(struct dev **out, const char *path, unsigned flags);
/* The same, waiting @wait_ms for the lock. */
int dev_file_open_within(struct dev **out, const char *path, unsigned flags, unsigned wait_ms);

/* What is open of a device: the file itself, what claims it (blockdev.h) if .claimed, and what is
 * locked beneath it. */
enum { DEV_FILES_MAX = 10, LOCK_WAIT_MS = 3000 };
struct dev_files {
    uint64_t size;
    bool block, direct, claimed;
    unsigned n;
    int fds[DEV_FILES_MAX];
};
/* Lends them: they stay the device's. */
void dev_file_lend(const struct dev *d, struct dev_files *files);
/* How dev_take() opens the file again, in a process that can open nothing: gives descriptors that
 * dev_file_open_within() has opened and locked elsewhere.  Reported.  Other devices do without. */
typedef int dev_file_reopen(void *arg, unsigned wait_ms, struct dev_files *files);
void dev_file_set_reopen(struct dev *d, dev_file_reopen *reopen, void *arg);
/* For a daemon: from now on copies of the file wait for commits, and commits for copies
 * (core/lease.h).  Does nothing for other devices. */
int dev_file_lease(struct dev *d);
/* Grows a regular file that is shorter than @size; -ERANGE when any other device is too small. */
int dev_file_resize(struct dev *d, uint64_t size);

#endif
