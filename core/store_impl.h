/* SPDX-License-Identifier: BSD-3-Clause */
/* store_impl.h - what the files behind store.h share; nobody else includes it. */
#ifndef VNVRAM_CORE_STORE_IMPL_H
#define VNVRAM_CORE_STORE_IMPL_H

#include "core/store.h"
#include <pthread.h>

/* What is known to lie in a directory's place. */
struct place {
    uint8_t *bytes; /* NULL: not known */
    uint64_t len;
    bool rested; /* since it was written there was time for bits to rot */
};

struct store {
    pthread_mutex_t lock; /* guards all below but sb's geometry and uuid, which only
                             store_grow() changes */
    struct dev *dev;
    enum store_place place;
    struct dev *view;      /* what is read while the image is not here; NULL: it is */
    struct anchor *anchor; /* NULL: none */
    bool accept_rollback;
    struct ownership *own;  /* NULL: nobody asks which host writes */
    struct owner_mark mark; /* what directories say of it from now on; zero: nothing */
    bool marked;            /* both say so */
    struct sealer *sealer;
    struct superblock sb;
    unsigned sb_best;     /* which copy (0 = A, 1 = B) was read; the other is written first */
    struct directory dir; /* what the last successful flush made durable */
    uint64_t seen;        /* highest generation that any directory on the medium ever claimed */
    uint64_t next_id;
    uint32_t n_slots;
    uint32_t *holds; /* per slot: work on content that is not committed yet, open files */
    bool recovered;
    bool unsure;   /* somebody may have written to a bank: to be looked at when it settles */
    bool unjudged; /* somebody has touched the device, and memory was short to tell whether it is as
                      it was */
    uint64_t flushes;
    const struct directory *in_flight; /* being written, not flushed yet; or NULL */
    _Atomic int read_only;             /* for store_is_read_only(), which does without the lock */
    const char *read_only_why;
    struct snapshot *snapshot; /* of dir's generation, or NULL */
    struct place places[2];
};

/* ---- image.c: single structures on the device, verified -----------------------------------------
 */

uint64_t superblock_offset(unsigned copy);

/* Reads the superblock copy into @buf (BLOCK_SIZE, aligned) and decodes it, without its tag. */
int superblock_load(struct dev *d, unsigned copy, uint8_t *buf, struct superblock *sb);
/* Encodes and seals a copy into @buf (BLOCK_SIZE). */
int superblock_seal(uint8_t *buf, const struct superblock *sb, struct sealer *sealer);
/* The same, and writes it; no flush. */
int superblock_write(struct dev *d, unsigned copy, const struct superblock *sb,
                     struct sealer *sealer);

/* Reads and verifies directory @index: 0, -ENODATA (nothing there), -EUCLEAN (torn or damaged),
 * -EBADMSG (checksum right, tag wrong), -EPROTONOSUPPORT, or an I/O error.  *@claim is zero when
 * the checksum is wrong. */
int directory_load(struct dev *d, struct sealer *sealer, const struct superblock *sb,
                   unsigned index, struct directory *dir, struct directory_claim *claim);
int directory_write(struct dev *d, struct sealer *sealer, const struct superblock *sb,
                    struct directory *dir); /* fills dir->digest */
/* What directory_write() writes; free() *@out.  @was: the bytes of an older one of the same
 * geometry, which saves looking at what is alike; or NULL. */
int directory_seal(struct sealer *sealer, const struct superblock *sb, struct directory *dir,
                   const uint8_t *was, uint8_t **out, uint64_t *len);

/* Reads the bank that should hold @c and verifies that it does.  *@raw is header and padded
 * content, still sealed; free() it.  -ESTALE: another content lies there, whole; -EUCLEAN: torn or
 * damaged; -EBADMSG: forged or transplanted. */
int bank_load(struct dev *d, struct sealer *sealer, const struct superblock *sb,
              const struct content *c, uint8_t **raw);
/* The same, decrypted: c->length bytes from BANK_HEADER on, for the caller to wipe. */
int bank_open(struct dev *d, struct sealer *sealer, const struct superblock *sb,
              const struct content *c, uint8_t **raw);
/* Submits @len bytes as content of @c's slot, bank and generation; fills c->length and c->digest.
 * *@bank is what is on its way: free() it after dev_wait() or dev_sync(). */
int bank_write(struct dev *d, struct sealer *sealer, const struct superblock *sb, struct content *c,
               const void *data, size_t len, uint8_t **bank);

/* ---- layout.c: places in an image ---------------------------------------------------------------
 */

bool slot_class_ok(const struct slot_class *c);
/* What the directories of an image with so many slots need. */
uint32_t layout_directory_capacity(uint64_t slots);
/* Places one class as a segment at @off; returns where the next may start. */
uint64_t layout_place_class(struct segment *g, const struct slot_class *class, uint64_t off);
/* Zeroes [off, off + len): whatever lay there must not be taken for ours later.  Takes no memory.
 */
int zero_range(struct dev *d, uint64_t off, uint64_t len);

/* ---- commit.c
 * ------------------------------------------------------------------------------------ */

/* Writes @next into the inactive directory and flushes; on success it is the store's directory.
 * Takes over *@next.  The lock is held. */
int commit_directory(struct store *s, struct directory *next);
/* A copy of the committed directory, with the next generation and neither clean nor resealing. */
int next_directory(struct store *s, struct directory *next);
/* A transaction's frame: between commits of others, with the lock held.  Anything but the image as
 * the store knows it makes the store read-only for good. */
struct store *commit_begin(struct store *s);
void commit_endp(struct store **s);
/* Within it: 0, -EROFS, or -ENOMEM (reported): nobody knows yet whether the image is as it was. */
int commit_allowed(const struct store *s);
/* Moves the anchor to the committed directory. */
int commit_anchor(struct store *s);
/* The one flush; a failure makes the store read-only for good. */
int commit_flush(struct store *s);
int settle_locked(struct store *s);
/* Whether the superblocks on the device are those that the store knows; a copy that was bad before
 * may be so.  0, -EUCLEAN or -ENOMEM, not reported. */
int check_our_superblock(struct store *s);
int fail_store(struct store *s, int r, const char *why);

/* ---- place.c ------------------------------------------------------------------------------------
 */

/* Submits @next to its place, but for what is known to lie there; fills next->digest.  No flush. */
int place_write(struct store *s, struct directory *next);
/* Something else has been, or may have been, written into the places. */
void places_forget(struct store *s);
/* Nobody is in a hurry, or was: each is written whole the next time. */
void places_rest(struct store *s);

/* ---- witness.c
 * ---------------------------------------------------------------------------------- */

/* A dev_witness_fn for the store @arg: 0 if what was flushed lies there, beside at most what is in
 * flight; -EUCLEAN if not; -EBUSY if another host has taken it.  The lock is held, or nobody else
 * knows the store yet. */
int store_witness(void *arg, struct dev *d);
/* A dev_fail_fn: the store is read-only for good.  The lock likewise. */
void store_dev_failed(void *arg, int r, const char *why);

/* ---- recover.c
 * ----------------------------------------------------------------------------------- */

struct recovery {
    struct directory dir;
    uint64_t seen;
    bool recovered;               /* the newest commit was torn, or a directory is unreadable */
    struct directory_claim other; /* the directory that is not shown; generation 0: unreadable */
};
/* Finds the state to show, as doc/format.md's "Opening" says; reports findings. */
int recover_directory(struct dev *d, struct sealer *sealer, const struct superblock *sb,
                      bool degraded, struct recovery *out);

/* Once a taking has written both directories none of another one can lie there, unless a former
 * owner has written it since. */
bool is_stray(const struct directory *newest, const struct directory *older);

struct superblocks {
    struct superblock sb;
    unsigned best;
    bool other_stale;        /* the other copy is valid and older: */
    struct superblock other; /* this, if it is of the same key */
    bool other_bad;          /* the other copy is unreadable */
    struct sealer *sealer;
};
int recover_superblocks(struct dev *d, store_unlock_fn *unlock, void *arg, struct superblocks *out);

/* ---- store.c, snapshot.c, handover.c ------------------------------------------------------------
 */

/* Makes what was found the store's state, if the anchor does not mind; takes over @rec's directory
 * then. */
int adopt_recovery(struct store *s, struct recovery *rec, bool accept_rollback);
/* What recovery writes: first the superblock, then a settled directory over the torn one.  @sbs:
 * NULL if they are as they should be. */
int write_recovery(struct store *s, const struct superblocks *sbs, bool repair);
/* store_snapshot() with the lock held. */
int snapshot_locked(struct store *s, struct snapshot **out);
/* Goes over to a view, and lets the device go. */
int leave_locked(struct store *s, enum store_place place);
/* The device that contents are read from. */
static inline struct dev *
reading(const struct store *s)
{
    return s->view ? s->view : s->dev;
}

/* ---- tenure.c: this host among others -----------------------------------------------------------
 */

/* Between them the image is ours alone; both do nothing where no owner is kept. */
int tenure_begin(struct store *s);
/* After the state has been read: what a former owner had written, but not flushed, is on the medium
 * when this returns 0, so that it may be shown, and the state before it be written over. */
int tenure_keep(struct store *s);
/* After what was read has become the store's: from here on directories say whose they are. */
void tenure_mark(struct store *s);
/* Lets other hosts have it, unless what lies there is not known any more. */
int tenure_end(struct store *s);
/* Sees to it that both directories say whose they are, so that one of a former owner that comes
 * late is told apart.  Before the first change under each taking. */
int tenure_announce(struct store *s);

/* ---- rekey.c ------------------------------------------------------------------------------------
 */

/* Zeroes every bank that holds no current content, and flushes.  A failed write makes the store
 * read-only. */
int wipe_unused_banks(struct store *s);
/* Two settled directories that demand the superblock of now: spoiling one must not let an old one
 * back. */
int demand_superblock(struct store *s);

/* ---- grow.c -------------------------------------------------------------------------------------
 */

/* Zeroes the directories of the superblock @old, and flushes, where those of now lie elsewhere.  A
 * failed write makes the store read-only. */
int wipe_directories(struct store *s, const struct superblock *old);

/* Lookups in a directory; -1 when absent. */
int directory_find(const struct directory *dir, const char *name);
int directory_find_id(const struct directory *dir, uint64_t id); /* FILE entries */

#endif
