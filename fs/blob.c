/* SPDX-License-Identifier: BSD-3-Clause */
#include "fs/blob.h"
#include <stdlib.h>
#include <string.h>

struct blob *
blob_new(size_t room, bool wipe)
{
    struct blob *b;

    if (room > SIZE_MAX - sizeof *b)
        return NULL;
    b = calloc(1, sizeof *b + room);
    if (b)
        *b = (struct blob){.refs = 1, .wipe = wipe, .room = room};
    return b;
}

struct blob *
blob_get(struct blob *b)
{
    if (b)
        __atomic_fetch_add(&b->refs, 1, __ATOMIC_RELAXED);
    return b;
}

void
blob_put(struct blob *b)
{
    if (!b || __atomic_fetch_sub(&b->refs, 1, __ATOMIC_ACQ_REL) > 1)
        return;
    if (b->wipe)
        explicit_bzero(b->data, b->room);
    free(b);
}

/* Grows by doubling, so that a file written in small pieces is not copied at each of them. */
static size_t
roomier(size_t room, size_t least)
{
    size_t twice = room <= SIZE_MAX / 2 ? room * 2 : SIZE_MAX;

    if (least <= 4096)
        return 4096;
    return least > twice ? least : twice;
}

bool
blob_own(struct blob **b, size_t len, size_t room, bool wipe)
{
    struct blob *old = *b, *copy;

    if (old && old->room >= room && __atomic_load_n(&old->refs, __ATOMIC_ACQUIRE) == 1)
        return true;
    copy =
        blob_new(old && old->room >= room ? old->room : roomier(old ? old->room : 0, room), wipe);
    if (!copy)
        return false;
    if (len)
        memcpy(copy->data, old->data, len);
    *b = copy;
    blob_put(old);
    return true;
}
