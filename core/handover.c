/* SPDX-License-Identifier: BSD-3-Clause */
/* handover.c - letting an image go to another daemon, and taking one (doc/design.md, "Hand-over").
 *
 * While the image is elsewhere nothing of the device is open.  What the store shows then comes from
 * a snapshot in memory. */
#include "base/report.h"
#include "base/scope.h"
#include "core/store_impl.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- what is shown meanwhile -------------------------------------------------------------------
 */

struct view {
    struct dev dev;
    struct snapshot *snapshot;
};

static int
view_pread(struct dev *d, void *buf, size_t n, uint64_t off)
{
    return snapshot_pread(((struct view *)d)->snapshot, buf, n, off);
}

static int
view_refuse_write(struct dev *d, const void *buf, size_t n, uint64_t off)
{
    (void)d, (void)buf, (void)n, (void)off;
    return -EROFS;
}

static int
view_sync(struct dev *d)
{
    (void)d;
    return 0;
}

static int
view_medium(struct dev *d, bool on)
{
    (void)d, (void)on;
    return 0;
}

static void
view_close(struct dev *d)
{
    snapshot_put(((struct view *)d)->snapshot);
    free(d->name);
    free(d);
}

static const struct dev_ops view_ops = {
    .pread = view_pread,
    .pwrite = view_refuse_write,
    .sync = view_sync,
    .medium = view_medium,
    .close = view_close,
};

/* Takes over @sn. */
static int
view_new(struct dev **out, const char *name, struct snapshot *sn)
{
    struct view *v = calloc(1, sizeof *v);

    if (v)
        *v = (struct view){.dev = {.ops = &view_ops,
                                   .size = snapshot_size(sn),
                                   .read_only = true,
                                   .name = strdup(name)},
                           .snapshot = sn};
    if (!v || !v->dev.name) {
        free(v);
        snapshot_put(sn);
        return -ENOMEM;
    }
    *out = &v->dev;
    return 0;
}

/* ---- letting go --------------------------------------------------------------------------------
 */

static const char *
why_away(enum store_place place)
{
    return place == STORE_INCOMING ? "incoming: another daemon has the image"
                                   : "released: another daemon may have the image";
}

int
leave_locked(struct store *s, enum store_place place)
{
    AUTO(dev_closep) struct dev *view = NULL;
    struct snapshot *sn;
    int r = snapshot_locked(s, &sn);

    if (r == 0)
        r = view_new(&view, s->dev->name, sn);
    if (r == 0)
        r = tenure_end(s);
    if (r < 0)
        return r;
    s->view = steal(&view);
    s->place = place;
    s->read_only = -EROFS;
    s->read_only_why = why_away(place);
    if (s->anchor)
        anchor_release(s->anchor);
    dev_set_witness(s->dev, NULL, NULL, NULL); /* what will lie there is another's business */
    dev_release(s->dev);
    return 0;
}

int
store_release(struct store *s, bool back)
{
    AUTO(commit_endp) struct store *held = commit_begin(s);
    int r;

    (void)held;
    if (s->place != STORE_HERE)
        return 0;
    if (!dev_can_move(s->dev))
        return -EOPNOTSUPP;
    r = commit_allowed(s);
    if (r == 0)
        r = settle_locked(s);
    return r < 0 ? r : leave_locked(s, back ? STORE_INCOMING : STORE_RELEASED);
}

/* ---- taking ------------------------------------------------------------------------------------
 */

static bool
same_directory(const struct directory *a, const struct directory *b)
{
    return a->generation == b->generation && memcmp(a->digest, b->digest, SEAL_TAG_SIZE) == 0;
}

/* Whether what lies there may be taken for ours.  What was let go must not have changed: the TPM
 * and open files are those of that state.  Who waits for an image takes it as it comes, but not
 * older than it was. */
static int
judge_found(const struct store *s, const struct directory *found)
{
    if (s->place == STORE_RELEASED && !same_directory(found, &s->dir))
        return report(-ESTALE,
                      "%s: it has changed since it was let go (generation %" PRIu64
                      " then, %" PRIu64 " now): another daemon went on with it, and it is not "
                      "taken back",
                      s->dev->name, s->dir.generation, found->generation);
    if (found->generation < s->dir.generation)
        return report(-ESTALE,
                      "%s: rolled back: generation %" PRIu64 " was there, now it is %" PRIu64,
                      s->dev->name, s->dir.generation, found->generation);
    return 0;
}

/* Reads the state again, from the medium; the lock is held. */
static int
load_again(struct store *s)
{
    struct recovery rec;
    int r = check_our_superblock(s);

    if (r == -ENOMEM)
        return report(r, "%s: %s", s->dev->name, errno_text(r));
    if (r < 0)
        return report(-ESTALE,
                      "%s: another image lies there, or its keys have changed: mount it anew",
                      s->dev->name);
    r = recover_directory(s->dev, s->sealer, &s->sb, false, &rec);
    if (r < 0)
        return r;
    r = judge_found(s, &rec.dir);
    if (r == 0)
        r = tenure_keep(s);
    if (r == 0)
        r = adopt_recovery(s, &rec, s->place == STORE_INCOMING && s->accept_rollback);
    directory_fini(&rec.dir);
    return r;
}

static int
take_locked(struct store *s, unsigned wait_ms)
{
    bool was_recovered = s->recovered;
    int r;

    places_forget(s);
    r = s->anchor ? anchor_take(s->anchor, wait_ms) : 0;

    if (r == 0)
        r = dev_sync(s->dev);
    if (r == 0)
        r = dev_medium(s->dev, true);
    if (r == 0)
        r = tenure_begin(s);
    if (r == 0)
        r = load_again(s);
    if (r == 0 && !s->own)
        r = dev_medium(s->dev, false);
    if (r < 0)
        return r;
    dev_set_witness(s->dev, store_witness, store_dev_failed, s);
    s->read_only = 0;
    s->read_only_why = NULL;
    snapshot_put(s->snapshot);
    s->snapshot = NULL;
    r = write_recovery(s, NULL, false);
    s->recovered |= was_recovered;
    return r;
}

/* Waits for whoever has it, on this host and on others. */
static int
take_device(struct store *s, unsigned wait_ms)
{
    int r = dev_take(s->dev, wait_ms);

    if (r < 0 || !s->own)
        return r;
    r = dev_medium(s->dev, true);
    if (r == 0)
        r = owner_wait(s->own, s->dev, s->sb.uuid, wait_ms);
    if (r < 0)
        dev_release(s->dev);
    return r;
}

/* It waits before it locks: the view is there to be read meanwhile. */
int
store_take(struct store *s, unsigned wait_ms)
{
    int r = s->place == STORE_HERE ? 0 : take_device(s, wait_ms);

    if (s->place == STORE_HERE || r < 0)
        return r;

    AUTO(commit_endp) struct store *held = commit_begin(s);

    (void)held;
    r = take_locked(s, wait_ms);
    if (r < 0) {
        tenure_end(s);
        s->read_only = -EROFS;
        s->read_only_why = why_away(s->place);
        if (s->anchor)
            anchor_release(s->anchor);
        dev_set_witness(s->dev, NULL, NULL, NULL);
        dev_release(s->dev);
        return r;
    }
    s->place = STORE_HERE;
    s->accept_rollback = false; /* it was said of that one */
    dev_close(steal(&s->view));
    return 0;
}
