/* SPDX-License-Identifier: BSD-3-Clause */
/* tenure.c - a store on a device that other hosts may reach: it takes the image before it reads it,
 * is asked at each flush whether it still has it, and lets it go (core/owner.h). */
#include "base/report.h"
#include "core/store_impl.h"
#include <errno.h>
#include <string.h>

static const char taken[] = "another host has taken the image over";

/* Nothing that has been written since the last flush is acknowledged. */
static int
lose(struct store *s, int r, const char *why)
{
    owner_abandon(s->own);
    if (s->read_only == 0) {
        s->read_only = r;
        s->read_only_why = why;
    }
    return report(-EIO,
                  "%s: %s: read-only from now on; what was acknowledged before is safe, the last "
                  "change is not made",
                  s->dev->name, why);
}

/* A dev_guard_fn. */
static int
tenure_guard(void *arg, struct dev *d)
{
    struct store *s = arg;
    int r = owner_check(s->own);

    (void)d;
    if (r == -EBUSY)
        return lose(s, r, taken);
    return r < 0 ? lose(s, -EIO, "the owner records cannot be read") : 0;
}

int
tenure_begin(struct store *s)
{
    int r = s->own ? owner_take(s->own, s->dev, s->sb.uuid, false) : 0;

    if (r == 0 && s->own)
        dev_set_guard(s->dev, tenure_guard, s);
    return r;
}

int
tenure_keep(struct store *s)
{
    return owner_is_held(s->own) ? dev_sync(s->dev) : 0;
}

/* One generation is left out: it may be that of a directory which a former owner is still writing.
 * A directory of our own epoch that is not ours is of somebody who took the image when we did. */
void
tenure_mark(struct store *s)
{
    const struct owner_mark *was = &s->dir.owner;
    bool met;

    s->mark = (struct owner_mark){0};
    s->marked = true;
    if (!owner_is_held(s->own))
        return;
    met = was->epoch >= owner_mine(s->own)->epoch;
    if (met)
        report_at(REPORT_WARNING, 0, "%s: another host has taken it at the same time",
                  s->dev->name);
    s->marked = false;
    s->seen = (s->seen > s->dir.generation ? s->seen : s->dir.generation) + 1;
    s->mark = (struct owner_mark){
        .epoch = owner_mine(s->own)->epoch,
        .first = s->seen + 1,
        .guarded = owner_must_guard(s->own, was->guarded || met),
    };
    memcpy(s->mark.nonce, owner_mine(s->own)->nonce, OWNER_NONCE_SIZE);
}

int
tenure_end(struct store *s)
{
    int r;

    if (!s->own)
        return 0;
    dev_set_guard(s->dev, NULL, NULL);
    if (s->read_only != 0 && s->read_only != -EROFS) /* nothing more is written there */
        owner_abandon(s->own);
    r = owner_release(s->own);
    if (r < 0 && s->read_only == 0) {
        s->read_only = r;
        s->read_only_why = "it could not be let go, and nobody knows who has it";
    }
    return r;
}

static int
raise_floor(struct store *s)
{
    int r = owner_raise_floor(s->own);

    if (r == -EBUSY)
        return lose(s, r, taken);
    return r < 0 ? fail_store(s, r, "an owner record cannot be written") : 0;
}

int
tenure_announce(struct store *s)
{
    int r = s->marked ? 0 : demand_superblock(s);

    if (r == 0 && !s->marked && s->mark.guarded)
        r = raise_floor(s);
    if (r == 0)
        s->marked = true;
    return r;
}
