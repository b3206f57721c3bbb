/* SPDX-License-Identifier: BSD-3-Clause */
/* recover.c - which superblock and which directory of an image tell its state (doc/format.md,
 * "Opening"). Reads only. */
#include "base/bytes.h"
#include "base/report.h"
#include "base/scope.h"
#include "core/store_impl.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- what lies on a device at all ---------------------------------------------------------------
 */

enum { PROBE_CHUNK = 1024 * 1024 };

struct probe {
    bool any;   /* a byte that is not zero */
    bool magic; /* a structure of ours */
};

static int
probe_rest(struct dev *d, struct probe *p)
{
    AUTO_FREE uint8_t *buf = dev_alloc(PROBE_CHUNK);
    uint64_t end = d->size / BLOCK_SIZE * BLOCK_SIZE;

    if (!buf)
        return -ENOMEM;
    for (uint64_t off = 0; off < end && !p->magic;) {
        size_t n = end - off < PROBE_CHUNK ? (size_t)(end - off) : (size_t)PROBE_CHUNK;
        int r = dev_pread(d, buf, n, off);

        if (r < 0)
            return r;
        for (size_t i = 0; i < n; i += BLOCK_SIZE) {
            if (format_has_magic(buf + i))
                p->magic = true;
        }
        p->any |= !bytes_are_zero(buf, n);
        off += n;
    }
    return 0;
}

int
store_probe(struct dev *d)
{
    AUTO_FREE uint8_t *buf = dev_alloc(BLOCK_SIZE);
    struct probe p = {0};
    struct superblock sb;
    int r;

    if (!buf)
        return -ENOMEM;
    for (unsigned copy = 0; copy < 2; copy++) {
        r = superblock_load(d, copy, buf, &sb);
        if (r != -ENODATA && r != -ERANGE)
            return r == -EUCLEAN || r == -EPROTONOSUPPORT ? 0 : r;
    }
    r = probe_rest(d, &p);
    if (r < 0)
        return r;
    if (p.magic)
        return -EUCLEAN;
    if (!p.any)
        p.any = dev_tail_is_data(d);
    return p.any ? -EMEDIUMTYPE : -ENODATA;
}

/* ---- superblocks --------------------------------------------------------------------------------
 */

struct copy {
    uint8_t *buf;
    struct superblock sb;
    int r; /* of superblock_load() */
};

static void free_copies(struct copy (*c)[2])
{
    free((*c)[0].buf);
    free((*c)[1].buf);
}

/* A bad sector under one copy (-EIO) is what there is another for.  Were that one older than it
 * should be, the directory would tell. */
static int
read_copies(struct dev *d, struct copy c[2])
{
    for (unsigned i = 0; i < 2; i++) {
        c[i].buf = dev_alloc(BLOCK_SIZE);
        if (!c[i].buf)
            return -ENOMEM;
        c[i].r = superblock_load(d, i, c[i].buf, &c[i].sb);
        if (c[i].r == -EIO)
            memset(c[i].buf, 0, BLOCK_SIZE); /* whatever part was read */
    }
    return (c[0].r == -EIO && c[1].r < 0) || (c[1].r == -EIO && c[0].r < 0) ? -EIO : 0;
}

/* Neither copy can be used: the one finding that says why. */
static int
explain_no_superblock(struct dev *d, const struct copy c[2])
{
    int r;

    if (c[0].r == -EPROTONOSUPPORT || c[1].r == -EPROTONOSUPPORT)
        return report(-EPROTONOSUPPORT,
                      "%s: made by a newer version or with a feature this version does not know; "
                      "use the vnvram that made it",
                      d->name);
    if (d->size < FIRST_DIRECTORY && (c[0].r == -EUCLEAN || format_has_magic(c[0].buf)))
        return report(-ERANGE, "%s: truncated to %" PRIu64 " bytes; restore it from a copy",
                      d->name, d->size);
    if (c[0].r == -EUCLEAN || c[1].r == -EUCLEAN)
        return report(-EUCLEAN, "%s: damaged: both superblocks are unreadable", d->name);
    r = store_probe(d);
    if (r == -ENODATA && d->size < FIRST_DIRECTORY)
        return report(-ERANGE, "%s: too small: %" PRIu64 " bytes hold no image", d->name, d->size);
    if (r == -ENODATA)
        return report(r, "%s: blank image: every byte is zero; 'vnvram format' makes one", d->name);
    if (r == -EMEDIUMTYPE)
        return report(r, "%s: not a vnvram image: it holds something else", d->name);
    if (r == -EUCLEAN)
        return report(r, "%s: damaged: both superblocks are gone, but content of ours is there",
                      d->name);
    return r;
}

/* Index of the copy to believe first, the newer one. */
static unsigned
newer_copy(const struct copy c[2])
{
    if (c[0].r < 0)
        return 1;
    if (c[1].r < 0)
        return 0;
    return c[1].sb.sequence > c[0].sb.sequence;
}

/* The other copy must be unreadable, older, or the same to the byte; one whose checksum is right
 * but whose tag is wrong was made by somebody without the key. */
static int
judge_other(struct dev *d, const struct copy *best, const struct copy *other,
            struct superblocks *out)
{
    bool frame_ok = format_has_magic(other->buf) && format_crc_ok(other->buf, BLOCK_SIZE);
    bool other_key = other->r == 0 && other->sb.key_epoch != best->sb.key_epoch;
    int r;

    if (frame_ok && !other_key) {
        r = format_verify(out->sealer, SEAL_SUPERBLOCK, other->buf, BLOCK_SIZE);
        if (r == -EBADMSG)
            return report(r, "%s: forged: a superblock was changed by somebody without the key",
                          d->name);
        if (r < 0 && r != -EUCLEAN)
            return r;
        if (r == 0 && other->r == -EPROTONOSUPPORT)
            return report(other->r, "%s: a superblock was made by a newer version", d->name);
        frame_ok = r == 0;
    }
    if (!frame_ok || other->r < 0) {
        out->other_bad = true;
        report_at(REPORT_WARNING, 0,
                  "%s: one of two superblocks is unreadable; "
                  "'vnvram check --repair' restores it from the other",
                  d->name);
    } else if (memcmp(best->buf, other->buf, BLOCK_SIZE) != 0) {
        if (best->sb.sequence == other->sb.sequence || best->sb.seal_mode != other->sb.seal_mode ||
            memcmp(best->sb.uuid, other->sb.uuid, UUID_SIZE) != 0)
            return report(-EUCLEAN, "%s: damaged: the two superblocks contradict each other",
                          d->name);
        out->other_stale = true;
        out->other = other_key ? out->sb : other->sb;
    }
    return 0;
}

/* The newer copy does not take the key, or says that its cipher is another or that it needs none
 * (@r); perhaps the key opens the older one.  If that proves the newer one authentic, the key has
 * been removed since; else somebody tampered with it. */
static int
judge_rejected(struct dev *d, const struct copy *best, const struct copy *other,
               store_unlock_fn *unlock, void *arg, int r)
{
    AUTO(sealer_freep) struct sealer *sealer = NULL;
    bool comparable =
        other->r == 0 && other->sb.seal_mode != SEAL_NONE &&
        (best->sb.seal_mode == SEAL_NONE || other->sb.key_epoch == best->sb.key_epoch);

    if (comparable && memcmp(other->buf, best->buf, BLOCK_SIZE) != 0 &&
        unlock(arg, &other->sb, &sealer) == 0 &&
        format_verify(sealer, SEAL_SUPERBLOCK, best->buf, BLOCK_SIZE) < 0)
        return report(-EBADMSG, "%s: forged: a superblock was changed by somebody without the key",
                      d->name);
    return r; /* reported by unlock() */
}

int
recover_superblocks(struct dev *d, store_unlock_fn *unlock, void *arg, struct superblocks *out)
{
    AUTO(free_copies) struct copy c[2] = {0};
    AUTO(sealer_freep) struct sealer *sealer = NULL;
    unsigned best;
    int r = read_copies(d, c);

    if (r < 0)
        return r;
    if (c[0].r < 0 && c[1].r < 0)
        return explain_no_superblock(d, c);
    best = newer_copy(c);
    *out = (struct superblocks){.sb = c[best].sb, .best = best};
    r = unlock(arg, &c[best].sb, &sealer);
    if (r == -EKEYREJECTED || r == -EPROTONOSUPPORT || r == -EKEYREVOKED)
        return judge_rejected(d, &c[best], &c[1 - best], unlock, arg, r);
    if (r < 0)
        return r; /* reported there */
    out->sealer = sealer;
    r = format_verify(sealer, SEAL_SUPERBLOCK, c[best].buf, BLOCK_SIZE);
    if (r < 0)
        return report(r,
                      r == -EBADMSG
                          ? "%s: forged: the superblock was changed by somebody without the key"
                          : "%s: damaged: the superblock's digest is wrong",
                      d->name);
    r = judge_other(d, &c[best], &c[1 - best], out);
    if (r < 0)
        return r;
    if (out->sb.image_size > d->size)
        return report(-ERANGE, "%s: truncated: %" PRIu64 " of %" PRIu64 " bytes are there", d->name,
                      d->size, out->sb.image_size);
    out->sealer = steal(&sealer);
    return 0;
}

/* ---- directories --------------------------------------------------------------------------------
 */

struct candidate {
    struct directory dir;
    struct directory_claim claim;
    int r;         /* of directory_load() */
    unsigned bad;  /* banks that do not hold what the directory says */
    bool only_own; /* every bad bank was written by this directory's own generation */
    int worst;     /* of bad banks: -EUCLEAN or -ESTALE */
};

static void free_candidates(struct candidate (*c)[2])
{
    directory_fini(&(*c)[0].dir);
    directory_fini(&(*c)[1].dir);
}

/* Verifies every current content of @c; -EBADMSG and I/O errors end it, torn and stale banks count.
 */
static int
verify_banks(struct dev *d, struct sealer *sealer, const struct superblock *sb, bool degraded,
             struct candidate *c)
{
    c->only_own = true;
    for (uint32_t i = 0; i < c->dir.n_entries; i++) {
        const struct entry *e = &c->dir.entries[i];
        AUTO_FREE uint8_t *raw = NULL;
        int r;

        if (e->current.generation == 0)
            continue;
        r = bank_load(d, sealer, sb, &e->current, &raw);
        if (r == 0)
            continue;
        if (r == -EBADMSG)
            return report(r,
                          "%s: forged: the content of '%s' (slot %" PRIu32 ") was changed by "
                          "somebody without the key",
                          d->name, e->name, e->current.slot);
        if (r != -EUCLEAN && r != -ESTALE && !(r == -EIO && degraded))
            return r;
        c->bad++;
        c->worst = r;
        if (e->current.generation != c->dir.generation)
            c->only_own = false;
    }
    return 0;
}

static void
report_bad_banks(struct dev *d, struct sealer *sealer, const struct superblock *sb,
                 const struct candidate *c)
{
    for (uint32_t i = 0; i < c->dir.n_entries; i++) {
        const struct entry *e = &c->dir.entries[i];
        AUTO_FREE uint8_t *raw = NULL;
        int r;

        if (e->current.generation == 0)
            continue;
        r = bank_load(d, sealer, sb, &e->current, &raw);
        if (r < 0)
            report(r, "%s: '%s' (slot %" PRIu32 ", bank %u, generation %" PRIu64 "): %s", d->name,
                   e->name, e->current.slot, e->current.bank, e->current.generation,
                   r == -ESTALE ? "another content lies in its place" : "damaged");
    }
}

/* A directory that does not authenticate is forged, but for one case: a reseal was interrupted, and
 * the other directory, which does authenticate, says so. */
static int
judge_forged(struct dev *d, const struct superblock *sb, struct candidate c[2])
{
    for (unsigned i = 0; i < 2; i++) {
        const struct candidate *other = &c[1 - i];

        if (c[i].r != -EBADMSG)
            continue;
        if (other->r == 0 && other->dir.resealing && c[i].claim.key_epoch != sb->key_epoch) {
            c[i].r = -ENOKEY; /* of another key: not ours to read */
            continue;
        }
        return report(-EBADMSG, "%s: forged: a directory was changed by somebody without the key",
                      d->name);
    }
    return 0;
}

/* A directory that a bad sector hides may be the newer one: only @degraded goes on without it, and
 * says so. */
static int
load_candidates(struct dev *d, struct sealer *sealer, const struct superblock *sb, bool degraded,
                struct candidate c[2])
{
    for (unsigned i = 0; i < 2; i++) {
        c[i].r = directory_load(d, sealer, sb, i, &c[i].dir, &c[i].claim);
        if (c[i].r == -EIO && degraded) {
            report_at(REPORT_WARNING, 0,
                      "%s: one of two directories cannot be read: what the other one tells may be "
                      "older than what was committed last",
                      d->name);
            continue;
        }
        if (c[i].r == -EPROTONOSUPPORT)
            return report(c[i].r, "%s: a directory was made by a newer version", d->name);
        if (c[i].r != 0 && c[i].r != -ENODATA && c[i].r != -EUCLEAN && c[i].r != -EBADMSG)
            return c[i].r;
    }
    if (c[0].r == 0 && c[1].r == 0 && c[0].dir.generation == c[1].dir.generation)
        return report(-EUCLEAN, "%s: damaged: two directories of one generation", d->name);
    return judge_forged(d, sb, c);
}

/* An older superblock than the directory knows: put back by somebody, or both copies lost a write.
 */
static int
check_sequence(struct dev *d, const struct superblock *sb, const struct directory *dir)
{
    if (dir->superblock_sequence <= sb->sequence)
        return 0;
    return report(-ESTALE,
                  "%s: rolled back: the superblock is older (%" PRIu64 ") than the directory "
                  "demands (%" PRIu64 ")",
                  d->name, sb->sequence, dir->superblock_sequence);
}

/* Takes @c's directory as the state to show. */
static int
choose(struct dev *d, const struct superblock *sb, struct candidate *c,
       const struct candidate *other, struct recovery *out)
{
    int r = check_sequence(d, sb, &c->dir);

    if (r < 0)
        return r;
    if (other->r == 0 || other->r == -ENOKEY)
        out->other = other->claim;
    out->dir = c->dir;
    c->dir = (struct directory){0};
    return 0;
}

static int
damage(struct dev *d, struct sealer *sealer, const struct superblock *sb,
       const struct candidate *newest)
{
    report_bad_banks(d, sealer, sb, newest);
    /* Whole and authentic, but not what a settled directory names: put there by somebody. */
    if (newest->worst == -ESTALE && newest->dir.clean && sealer->ops->mode != SEAL_NONE &&
        !newest->dir.owner.guarded) /* then a former owner may have done it */
        return report(-EBADMSG, "%s: forged: older content was put in place of newer", d->name);
    return report(-EUCLEAN,
                  "%s: damaged; nothing was changed. 'vnvram check' explains, "
                  "'vnvram mount -o degraded' serves what is intact",
                  d->name);
}

static int
report_stray(const struct dev *d, uint64_t former, uint64_t epoch, bool degraded)
{
    return report_at(degraded ? REPORT_WARNING : REPORT_ERROR, degraded ? 0 : -EUCLEAN,
                     "%s: damaged: a former owner (epoch %" PRIu64
                     ") has written a directory after another host took it over (epoch %" PRIu64
                     "): what was committed last may be lost",
                     d->name, former, epoch);
}

bool
is_stray(const struct directory *newest, const struct directory *older)
{
    return newest->owner.epoch != 0 && newest->generation > newest->owner.first &&
           memcmp(older->owner.nonce, newest->owner.nonce, OWNER_NONCE_SIZE) != 0;
}

/* The same of one that nothing readable stands beside, or only such as it.  0 when the records
 * cannot be read: who owns the image has read them before. */
static uint64_t
find_floor(struct dev *d, const struct superblock *sb)
{
    struct owner_record rec = {0};

    owner_look(d, sb->uuid, &rec);
    return rec.floor;
}

static int
judge_floor(struct dev *d, const struct superblock *sb, const struct candidate c[2], bool degraded)
{
    uint64_t floor = find_floor(d, sb);

    for (unsigned i = 0; i < 2; i++) {
        uint64_t epoch = c[i].r == 0 ? c[i].dir.owner.epoch : 0;

        if (epoch != 0 && epoch < floor)
            return report_stray(d, epoch, floor, degraded);
    }
    return 0;
}

/* What lay in its place may have been newer than all that is left. */
static int
judge_stray(const struct dev *d, const struct directory *newest, const struct directory *older,
            bool degraded)
{
    if (!is_stray(newest, older))
        return 0;
    return report_stray(d, older->owner.epoch, newest->owner.epoch, degraded);
}

int
recover_directory(struct dev *d, struct sealer *sealer, const struct superblock *sb, bool degraded,
                  struct recovery *out)
{
    AUTO(free_candidates) struct candidate c[2] = {0};
    struct candidate *newest, *older;
    int r = load_candidates(d, sealer, sb, degraded, c);

    *out = (struct recovery){0};
    if (r < 0)
        return r;
    if (c[0].r == -EIO && c[1].r == -EIO)
        return -EIO; /* reported there */
    if (c[0].r < 0 && c[1].r < 0)
        return report(-EUCLEAN, "%s: damaged: both directories are unreadable", d->name);
    newest =
        c[1].r == 0 && (c[0].r < 0 || c[1].dir.generation > c[0].dir.generation) ? &c[1] : &c[0];
    older = newest == &c[0] ? &c[1] : &c[0];
    for (unsigned i = 0; i < 2; i++) {
        if (c[i].claim.generation > out->seen)
            out->seen = c[i].claim.generation;
    }
    r = judge_floor(d, sb, c, degraded);
    if (r == 0 && older->r == 0)
        r = judge_stray(d, &newest->dir, &older->dir, degraded);
    if (r == 0)
        r = verify_banks(d, sealer, sb, degraded, newest);
    if (r < 0)
        return r;
    if (newest->bad == 0) {
        out->recovered = older->r < 0 && older->r != -EIO;
        return choose(d, sb, newest, older, out);
    }
    if (degraded) {
        report_bad_banks(d, sealer, sb, newest);
        return choose(d, sb, newest, older, out);
    }
    if (newest->dir.clean || !newest->only_own || older->r < 0)
        return damage(d, sealer, sb, newest);
    r = verify_banks(d, sealer, sb, false, older);
    if (r < 0)
        return r;
    if (older->bad > 0)
        return damage(d, sealer, sb, newest);
    out->recovered = true;
    return choose(d, sb, older, newest, out);
}
