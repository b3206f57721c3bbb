/* SPDX-License-Identifier: BSD-3-Clause */
/* check.c - every structure in turn, each finding said once, nothing written. */
#include "core/check.h"
#include "base/bytes.h"
#include "base/scope.h"
#include "core/store_impl.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct check {
    struct dev *d;
    struct superblock sb;
    struct sealer *sealer; /* NULL: no key, checksums only */
    check_sink *sink;
    void *sink_arg;
    struct check_result *res;
    uint64_t floor; /* of the owner records, or 0 */
};

static int
rank(int r)
{
    return r == 0 ? 0 : r == -EBADMSG ? 3 : r == -EUCLEAN ? 1 : 2;
}

static void say(struct check *c, int r, const char *where, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void
say(struct check *c, int r, const char *where, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (r < 0)
        c->res->problems++;
    if (rank(r) > rank(c->res->worst))
        c->res->worst = r;
    c->sink(c->sink_arg, r, where, text);
}

static const char *
words(int r)
{
    switch (r) {
    case -ENODATA:
        return "missing: nothing of ours is there";
    case -EUCLEAN:
        return "damaged";
    case -EBADMSG:
        return "forged: its checksum is right, its authentication is not";
    case -EPROTONOSUPPORT:
        return "made by a newer version";
    case -ESTALE:
        return "another content lies in its place";
    case -ERANGE:
        return "beyond the end: the image is truncated";
    default:
        return "cannot be read";
    }
}

/* One structure of an image that is missing, or that lies on a bad sector, is damage; only a whole
 * device without any is blank. */
static int
as_damage(int r)
{
    return r == -ENODATA || r == -EIO ? -EUCLEAN : r;
}

/* ---- superblocks --------------------------------------------------------------------------------
 */

struct copies {
    uint8_t *buf[2];
    struct superblock sb[2];
    int r[2];
};

static void
free_copies(struct copies *c)
{
    free(c->buf[0]);
    free(c->buf[1]);
}

static const char *
superblock_name(unsigned copy)
{
    return copy == 0 ? "superblock A" : "superblock B";
}

/* Nothing can be said about the rest without a superblock. */
static int
explain_none(struct check *c, const struct copies *k)
{
    bool unread = k->r[0] == -EIO || k->r[1] == -EIO;
    int r;

    for (unsigned i = 0; i < 2; i++) {
        if (unread || k->r[i] == -EPROTONOSUPPORT)
            say(c, k->r[i], superblock_name(i), "%s", words(k->r[i]));
    }
    if (c->res->worst < 0)
        return 0;
    if (c->d->size < FIRST_DIRECTORY && (k->r[0] == -EUCLEAN || format_has_magic(k->buf[0]))) {
        say(c, -ERANGE, "image", "truncated to %" PRIu64 " bytes", c->d->size);
        return 0;
    }
    r = store_probe(c->d);
    if (r == -EIO || r == -ENOMEM)
        return r;
    if (r == -ENODATA && c->d->size < FIRST_DIRECTORY)
        say(c, -ERANGE, "image", "too small: %" PRIu64 " bytes hold no image", c->d->size);
    else if (r == -ENODATA)
        say(c, r, "image", "blank: every byte is zero");
    else if (r == -EMEDIUMTYPE)
        say(c, r, "image", "not a vnvram image: it holds something else");
    else
        say(c, -EUCLEAN, "image", "damaged: no superblock is readable");
    return 0;
}

static int
load_copies(struct check *c, struct copies *k)
{
    for (unsigned i = 0; i < 2; i++) {
        k->buf[i] = dev_alloc(BLOCK_SIZE);
        if (!k->buf[i])
            return -ENOMEM;
        k->r[i] = superblock_load(c->d, i, k->buf[i], &k->sb[i]);
        if (k->r[i] == -EIO)
            memset(k->buf[i], 0, BLOCK_SIZE); /* whatever part was read */
    }
    return 0;
}

static void
check_copy(struct check *c, const struct copies *k, unsigned i, unsigned best)
{
    const struct superblock *sb = &k->sb[i], *other = &k->sb[best];
    bool other_key = k->r[i] == 0 && sb->key_epoch != other->key_epoch;
    bool contradicts = sb->sequence == other->sequence || sb->seal_mode != other->seal_mode;
    int r = k->r[i];

    c->res->structures++;
    if (format_has_magic(k->buf[i]) && format_crc_ok(k->buf[i], BLOCK_SIZE) && !other_key) {
        int v = format_verify(c->sealer, SEAL_SUPERBLOCK, k->buf[i], BLOCK_SIZE);

        r = v < 0 ? v : r;
    }
    if (r < 0)
        say(c, as_damage(r), superblock_name(i), "%s%s", words(r),
            as_damage(r) == -EUCLEAN && i != best
                ? "; the other copy is whole: 'check --repair' restores this one"
                : "");
    else if (i != best && memcmp(k->buf[0], k->buf[1], BLOCK_SIZE) != 0)
        say(c, contradicts ? -EUCLEAN : 0, superblock_name(i),
            contradicts ? "contradicts the other copy"
                        : "older than the other copy: an update was interrupted; the next mount "
                          "finishes it");
}

/* The sealer, or none where there is no key: then checksums only.  A key that does not open the
 * copy to believe may open the other, and so tell tampering from a wrong key. */
static int
unlock_copies(struct check *c, const struct copies *k, unsigned best, store_unlock_fn *unlock,
              void *arg)
{
    unsigned other = 1 - best;
    int r = unlock ? unlock(arg, &c->sb, &c->sealer) : -ENOKEY;
    bool rejected = r == -EKEYREJECTED || r == -EPROTONOSUPPORT || r == -EKEYREVOKED;
    bool comparable = k->r[other] == 0 && k->sb[other].seal_mode != SEAL_NONE &&
                      (c->sb.seal_mode == SEAL_NONE || k->sb[other].key_epoch == c->sb.key_epoch);

    if (rejected && comparable && memcmp(k->buf[0], k->buf[1], BLOCK_SIZE) != 0 &&
        unlock(arg, &k->sb[other], &c->sealer) == 0) {
        if (format_verify(c->sealer, SEAL_SUPERBLOCK, k->buf[best], BLOCK_SIZE) < 0) {
            c->sb = k->sb[other];
            r = 0;
        } else {
            sealer_free(c->sealer); /* the key was removed since */
        }
    }
    if (r == -ENOKEY) {
        c->sealer = NULL;
        return 0;
    }
    if (r < 0)
        c->sealer = NULL;
    c->res->authenticated = r == 0 && c->sb.seal_mode != SEAL_NONE;
    return r;
}

/* A record that is damaged keeps other hosts from the image, and tells nothing else. */
static int
check_owner(struct check *c)
{
    struct owner_record rec = {0};
    char since[OWNER_TIME_TEXT];
    int r = owner_look(c->d, c->sb.uuid, &rec);

    if (r == -ENOMEM)
        return r;
    c->floor = rec.floor;
    c->res->structures += r == -ENODATA ? 0 : 2;
    if (r == 0 && rec.state != OWNER_RELEASED)
        say(c, 0, "owner records", "host \"%s\" owns it, epoch %" PRIu64 ", since %s",
            rec.host_name, rec.epoch, owner_time_text(since, rec.time));
    else if (r < 0 && r != -ENODATA)
        say(c, r, "owner records", "%s; 'vnvram mount -o owner_record=on,takeover' makes new ones",
            words(r));
    return 0;
}

static int
check_superblocks(struct check *c, store_unlock_fn *unlock, void *arg, bool *found)
{
    AUTO(free_copies) struct copies k = {0};
    unsigned best;
    int r = load_copies(c, &k);

    *found = false;
    if (r < 0)
        return r;
    if (k.r[0] < 0 && k.r[1] < 0)
        return explain_none(c, &k);
    best = k.r[0] < 0 || (k.r[1] == 0 && k.sb[1].sequence > k.sb[0].sequence);
    c->sb = k.sb[best];
    r = unlock_copies(c, &k, best, unlock, arg);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < 2; i++)
        check_copy(c, &k, i, best);
    if (c->sb.image_size > c->d->size)
        say(c, -ERANGE, "image", "truncated: %" PRIu64 " of %" PRIu64 " bytes are there",
            c->d->size, c->sb.image_size);
    *found = true;
    return c->sb.image_size <= c->d->size ? check_owner(c) : 0;
}

/* ---- directories and banks ----------------------------------------------------------------------
 */

struct pair {
    struct directory dir[2];
    struct directory_claim claim[2];
    int r[2];
};

static void
free_pair(struct pair *p)
{
    directory_fini(&p->dir[0]);
    directory_fini(&p->dir[1]);
}

/* Then no mount shows it. */
static bool
is_below_floor(const struct check *c, const struct directory *dir)
{
    return dir->owner.epoch != 0 && dir->owner.epoch < c->floor;
}

static void
check_stray(struct check *c, const struct pair *p)
{
    unsigned newest = p->dir[1].generation > p->dir[0].generation;

    for (unsigned i = 0; i < 2; i++) {
        if (p->r[i] == 0 && is_below_floor(c, &p->dir[i]))
            say(c, -EUCLEAN, i == 0 ? "directory 0" : "directory 1",
                "written by a former owner (epoch %" PRIu64 ") after another host took the image "
                "over: what was committed last may be lost",
                p->dir[i].owner.epoch);
    }
    if (p->r[0] == 0 && p->r[1] == 0 && !is_below_floor(c, &p->dir[1 - newest]) &&
        is_stray(&p->dir[newest], &p->dir[1 - newest]))
        say(c, -EUCLEAN, newest ? "directory 0" : "directory 1",
            "written by a former owner after another host took the image over: what was committed "
            "last may be lost; 'vnvram mount -o degraded' serves generation %" PRIu64,
            p->dir[newest].generation);
}

static int
check_directories(struct check *c, struct pair *p)
{
    for (unsigned i = 0; i < 2; i++) {
        p->r[i] = directory_load(c->d, c->sealer, &c->sb, i, &p->dir[i], &p->claim[i]);
        if (p->r[i] == -ENOMEM)
            return p->r[i];
        c->res->structures++;
    }
    for (unsigned i = 0; i < 2; i++) {
        const char *name = i == 0 ? "directory 0" : "directory 1";
        bool resealing = p->r[1 - i] == 0 && p->dir[1 - i].resealing;

        if (p->r[i] == -EBADMSG && resealing && p->claim[i].key_epoch != c->sb.key_epoch) {
            p->r[i] = -ENOKEY;
            say(c, 0, name,
                "of another volume key: a reseal was interrupted; the next mount settles it");
        } else if (p->r[i] == -EUCLEAN && p->r[1 - i] == 0 && !is_below_floor(c, &p->dir[1 - i])) {
            say(c, p->r[i], name,
                "damaged, or a commit that was cut short; a mount shows generation %" PRIu64,
                p->dir[1 - i].generation);
        } else if (p->r[i] == -EIO && p->r[1 - i] == 0) {
            say(c, p->r[i], name,
                "cannot be read, and may be the newer one; 'vnvram mount -o degraded' serves what "
                "generation %" PRIu64 " shows",
                p->dir[1 - i].generation);
        } else if (p->r[i] < 0) {
            say(c, p->r[i] == -EIO ? p->r[i] : as_damage(p->r[i]), name, "%s", words(p->r[i]));
        } else if (p->dir[i].superblock_sequence > c->sb.sequence) {
            say(c, -ESTALE, name,
                "demands a newer superblock: the image's superblock was rolled back");
        }
    }
    check_stray(c, p);
    if (p->r[0] == 0 && p->r[1] == 0 && p->dir[0].generation == p->dir[1].generation)
        say(c, -EUCLEAN, "directory 1", "damaged: of one generation with directory 0, %" PRIu64,
            p->dir[0].generation);
    return 0;
}

struct bank_tally {
    unsigned contents, bad;
    bool torn; /* every bad bank is one that the directory's own generation wrote: a mount may fall
                  back */
    bool forged;
};

/* A content that is whole but not the one a settled directory names was put there by somebody. */
static bool
is_forged(const struct check *c, const struct directory *dir, int r)
{
    return r == -EBADMSG ||
           (r == -ESTALE && dir->clean && c->sealer && c->sb.seal_mode != SEAL_NONE);
}

/* What a person may still get of @e, whose current content is bad. */
static const char *
what_is_left(struct check *c, const struct entry *e)
{
    AUTO_FREE uint8_t *raw = NULL;

    if (e->previous.generation == 0 || bank_load(c->d, c->sealer, &c->sb, &e->previous, &raw) < 0)
        return "";
    return "; what it held before is whole, and 'check --salvage' saves it";
}

/* @quiet counts only. */
static int
check_current(struct check *c, const struct directory *dir, bool quiet, struct bank_tally *t)
{
    *t = (struct bank_tally){.torn = !dir->clean};
    for (uint32_t i = 0; i < dir->n_entries; i++) {
        const struct entry *e = &dir->entries[i];
        AUTO_FREE uint8_t *raw = NULL;
        char where[64];
        int r;

        if (e->current.generation == 0)
            continue;
        r = bank_load(c->d, c->sealer, &c->sb, &e->current, &raw);
        c->res->structures += !quiet;
        t->contents++;
        if (r == 0)
            continue;
        if (r == -ENOMEM)
            return r;
        t->bad++;
        t->forged |= is_forged(c, dir, r);
        t->torn &= !t->forged && r != -EIO && e->current.generation == dir->generation;
        snprintf(where, sizeof where, "slot %" PRIu32 " bank %u", e->current.slot, e->current.bank);
        if (!quiet)
            say(c, r == -EIO ? r : 0, where, "'%s' generation %" PRIu64 ": %s%s", e->name,
                e->current.generation, words(r), what_is_left(c, e));
    }
    return 0;
}

/* Contents before are a courtesy: their banks may be overwritten at any time by a commit that was
 * then cut short.  Only a forged one, or one on a bad sector, is a problem. */
static int
check_previous(struct check *c, const struct directory *dir)
{
    for (uint32_t i = 0; i < dir->n_entries; i++) {
        const struct entry *e = &dir->entries[i];
        AUTO_FREE uint8_t *raw = NULL;
        char where[64];
        bool told;
        int r;

        if (e->previous.generation == 0)
            continue;
        r = bank_load(c->d, c->sealer, &c->sb, &e->previous, &raw);
        c->res->structures++;
        if (r == 0)
            continue;
        if (r == -ENOMEM)
            return r;
        told = r == -EBADMSG || r == -EIO;
        snprintf(where, sizeof where, "slot %" PRIu32 " bank %u", e->previous.slot,
                 e->previous.bank);
        say(c, told ? r : 0, where, "the content before of '%s', generation %" PRIu64 ": %s",
            e->name, e->previous.generation, told ? words(r) : "no longer whole");
    }
    return 0;
}

static int
check_contents(struct check *c, struct pair *p)
{
    unsigned newest = p->r[0] < 0 || (p->r[1] == 0 && p->dir[1].generation > p->dir[0].generation);
    const struct directory *dir = &p->dir[newest], *older = &p->dir[1 - newest];
    struct bank_tally t, before;
    int r;

    if (p->r[newest] < 0)
        return 0; /* both were reported */
    r = check_current(c, dir, false, &t);
    if (r == 0 && t.bad == 0)
        return check_previous(c, dir);
    if (r < 0)
        return r;
    if (t.torn && p->r[1 - newest] == 0) {
        r = check_current(c, older, true, &before);
        if (r < 0)
            return r;
        if (before.bad == 0) {
            say(c, 0, "image", "the last commit was cut short; a mount shows generation %" PRIu64,
                older->generation);
            return 0;
        }
    }
    say(c, t.forged ? -EBADMSG : -EUCLEAN, "image",
        "%u of %u contents %s; 'vnvram mount -o degraded' serves the others", t.bad, t.contents,
        t.forged ? "were changed by somebody without the key" : "are damaged");
    return 0;
}

int
check_image(struct dev *d, store_unlock_fn *unlock, void *arg, check_sink *sink, void *sink_arg,
            struct check_result *res)
{
    struct check c = {.d = d, .sink = sink, .sink_arg = sink_arg, .res = res};
    AUTO(free_pair) struct pair p = {0};
    bool found;
    int r;

    *res = (struct check_result){0};
    r = dev_medium(d, true);
    if (r == 0)
        r = check_superblocks(&c, unlock, arg, &found);
    if (r == 0 && found && c.sb.image_size <= d->size) {
        r = check_directories(&c, &p);
        if (r == 0)
            r = check_contents(&c, &p);
    }
    sealer_free(c.sealer);
    return r < 0 ? r : res->worst;
}
