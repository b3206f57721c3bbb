/* SPDX-License-Identifier: BSD-3-Clause */
/* cmddev.h - an abstract command device: takes a command, gives its response later.  fs/devfile.c
 * shows one as the file tpm0; tpm/link.c implements one over the TPM process's socket; tests have
 * an echo.
 *
 * Thread rules: submit and cancel may be called from any thread and never wait for the device.  The
 * completion runs on the device's own thread, exactly once per accepted submit, also when the
 * device dies (r < 0, no response).  No lock of the caller's is held then. */
#ifndef VNVRAM_FS_CMDDEV_H
#define VNVRAM_FS_CMDDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CMDDEV_MAX = 4096 }; /* bytes of a command or a response */

struct cmddev;

/* @resp is valid during the call only. */
typedef void cmddev_done(void *arg, int r, const uint8_t *resp, size_t len);

struct cmddev_ops {
    /* 0: @done will be called; -EBUSY: a command is outstanding; -ENODEV: the device is gone. */
    int (*submit)(struct cmddev *c, const uint8_t *cmd, size_t len, cmddev_done *done, void *arg);
    void (*cancel)(struct cmddev *c);   /* asks the device to end the outstanding command early */
    bool (*is_taken)(struct cmddev *c); /* somebody else has the device; NULL: never */
};

struct cmddev {
    const struct cmddev_ops *ops;
};

static inline int
cmddev_submit(struct cmddev *c, const uint8_t *cmd, size_t len, cmddev_done *done, void *arg)
{
    return c->ops->submit(c, cmd, len, done, arg);
}

static inline bool
cmddev_is_taken(struct cmddev *c)
{
    return c->ops->is_taken && c->ops->is_taken(c);
}

static inline void
cmddev_cancel(struct cmddev *c)
{
    c->ops->cancel(c);
}

#endif
