/* SPDX-License-Identifier: BSD-3-Clause */
/* store.h - an open image: its committed entries, its slots, and transactions on them.
 *
 * The rules of doc/design.md ("Commit", "Mount", "Settle") live here and nowhere else.  All
 * functions are thread-safe: one lock inside, held for the length of a commit.  The store knows
 * nothing of open files: whoever works on content that is not committed yet holds a slot for it
 * (store_slot_*).
 *
 * Errors: negative errno; findings as in base/finding.h.  What is wrong with an image, or with the
 * device beneath it, has been reported when a function returns. */
#ifndef VNVRAM_CORE_STORE_H
#define VNVRAM_CORE_STORE_H

#include "core/anchor.h"
#include "core/dev.h"
#include "core/format.h"
#include "core/owner.h"
#include "core/sealer.h"

struct store;

/* ---- format ------------------------------------------------------------------------------------
 */

struct slot_class {
    uint32_t count;
    uint32_t capacity; /* rounded up to BLOCK_SIZE by store_layout() */
};

struct reservation {
    const char *name;
    uint64_t size;
};

struct format_spec {
    const struct slot_class *classes;
    size_t n_classes;
    const struct reservation *reservations;
    size_t n_reservations;
    uint64_t image_size; /* 0: as small as the layout allows */
    uint8_t uuid[UUID_SIZE];
    struct file_attr root; /* owner, mode and times of the mount's root */
    /* Sealing; all zero for an unsealed image. */
    uint8_t seal_mode, key_size;
    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE];
    const struct owner_options *owner; /* as in struct store_options */
};

/* Lays the image out: fills geometry, size and sequence of *@sb.  -ERANGE when spec->image_size is
 * too small (*@need tells what it would take), -EINVAL for impossible classes.  @need may be NULL.
 */
int store_layout(struct superblock *sb, const struct format_spec *spec, uint64_t *need);

/* Writes a new image to @d, whatever it holds: zeroes every structure's place, then writes
 * directory and superblocks and flushes.  @sealer matches spec->seal_mode; it stays the caller's.
 * The superblock's key_epoch is 1 when sealed. */
int store_format(struct dev *d, const struct format_spec *spec, struct sealer *sealer);

/* What lies on a device: 0 (superblock found; it may yet be damaged), -ENODATA blank, -EMEDIUMTYPE
 * foreign, -EUCLEAN (no superblock, but banks or directories of ours), or an I/O error.  Reports
 * nothing. */
int store_probe(struct dev *d);

/* ---- open --------------------------------------------------------------------------------------
 */

/* Makes the sealer for @sb: -ENOKEY, -EKEYREJECTED, -EKEYREVOKED, -EPROTONOSUPPORT (reported).
 * Called once per distinct superblock copy until one opens. */
typedef int store_unlock_fn(void *arg, const struct superblock *sb, struct sealer **out);

struct store_options {
    bool read_only; /* write nothing, not even a recovery; @d may be open read-only */
    bool degraded;  /* with read_only: serve what is intact of a damaged image */
    bool repair;    /* restore an unreadable superblock copy from the good one */
    /* The image is another daemon's: it is read once, without its lock (@d is open for reading
     * only, and let go when this returns), and store_take() may take it later. */
    bool incoming;
    store_unlock_fn *unlock;
    void *unlock_arg;
    /* Decides whether the image is the newest, and follows each commit before it is acknowledged;
     * when it cannot, the store is read-only for good.  Stays the caller's, outlives the store;
     * NULL: none. */
    struct anchor *anchor;
    bool accept_rollback; /* take the image as it is, whatever the anchor says */
    /* Who we are among the hosts that may reach the image (core/owner.h): who writes owns it, from
     * before its state is read until store_close() or store_release().  NULL: nobody asks. */
    const struct owner_options *owner;
};

/* Opens the image on @d, recovering a torn last commit (reported, counted) as DESIGN's "Mount"
 * says. On success the store owns @d; on failure the caller still does. */
int store_open(struct store **out, struct dev *d, const struct store_options *opt);
/* Commits nothing; releases the image to other hosts, unless the store is read-only; closes the
 * device; NULL is fine. */
void store_close(struct store *s);
void store_closep(struct store **s);

/* ---- hand-over (core/handover.c) ----------------------------------------------------------------
 */

enum store_place {
    STORE_HERE,     /* we are the one writer, or only read */
    STORE_INCOMING, /* another daemon's, until store_take() */
    STORE_RELEASED, /* let go; store_take() takes it back if nobody has changed it */
};

/* Lets the image go: settled, closed and unlocked when this returns 0.  From then on the store
 * shows, from memory, what it showed, and every change fails with -EROFS.  @back: whatever becomes
 * of the image, store_take() takes it as it is then.  0 if it is not here; -EROFS if the store is
 * read-only, -EOPNOTSUPP if its device cannot go. */
int store_release(struct store *s, bool back);
/* Takes the image as its one writer, waiting @wait_ms at most, and reads its state again; 0 at once
 * if it is here.  -EBUSY: another daemon has it; -ESTALE: it was let go and has changed since, or
 * is older than it was, or its keys have changed; or what store_open() may find.  After an error
 * (reported) nothing has been written but, perhaps, a recovery, and nothing is held.  Not for two
 * threads at a time, nor beside store_release().  After a success of a STORE_INCOMING one all that
 * was known of entries is out of date; slots that are held stay so. */
int store_take(struct store *s, unsigned wait_ms);
enum store_place store_where(struct store *s);

/* ---- look --------------------------------------------------------------------------------------
 */

struct store_info {
    uint8_t uuid[UUID_SIZE];
    uint64_t generation, superblock_sequence, image_size;
    uint8_t seal_mode, key_size;
    uint32_t key_epoch;
    uint32_t slots_total, slots_used; /* used: by committed entries, reservations and holds */
    uint64_t bytes_total, bytes_used; /* capacity of all slots; length of all committed content */
    uint32_t files, tombstones;
    bool clean; /* the newest directory carries the clean mark */
    bool held_tpm12, held_tpm20;
    bool recovered;      /* this open undid a torn commit */
    uint64_t recoveries; /* of the image, ever */
    uint64_t flushes;    /* of the device since open, for tests and the benchmark */
    int64_t committed;   /* seconds since 1970 */
    int read_only;       /* 0, or why: -EROFS asked for, -EIO after a failed write or flush, ... */
    const char *read_only_why; /* static text, NULL when writable */
    enum store_place place;
    bool owned;                /* we own it, and this is how: */
    struct owner_record owner; /* or the last that we have written; .epoch 0: none */
    bool guarded;              /* a former owner may still be writing (struct owner_mark) */
};
void store_get_info(struct store *s, struct store_info *info);
const struct superblock *
store_superblock(const struct store *s); /* constant but for store_set_keyslots(), store_reseal()
                                            and store_grow() */
void store_get_root(struct store *s, struct file_attr *root);

/* Committed entries, all kinds, in directory order.  Copies: n of them, free() the array. */
int store_list(struct store *s, struct entry **entries, size_t *n);
int store_find(struct store *s, const char *name, struct entry *e); /* -ENOENT; any kind */
int store_find_id(struct store *s, uint64_t id, struct entry *e);   /* FILE entries only */

/* Reads and verifies content into @buf (c->length bytes).  -ESTALE when the bank has been reused
 * since (a previous content), -EUCLEAN, -EBADMSG, -EIO. */
int store_read(struct store *s, const struct content *c, void *buf);
/* Whether the bank still holds @c, by its header and tag (for .vnvram/previous listings). */
bool store_is_whole(struct store *s, const struct content *c);

/* ---- slots -------------------------------------------------------------------------------------
 */

/* Takes the smallest free slot of at least @size bytes (size 0: any) and holds it.  @name's own
 * reserved slot is preferred when it fits (may be NULL).  Among equals, slots without previous
 * content go first, then the one whose previous content is oldest.  -ENOSPC, -EFBIG past the
 * largest class. */
int store_slot_take(struct store *s, uint64_t size, const char *name, uint32_t *slot);
void store_slot_hold(struct store *s, uint32_t slot); /* one more hold on a slot in use */
void store_slot_drop(struct store *s,
                     uint32_t slot); /* free when no hold and no committed entry is left */
uint32_t store_slot_capacity(const struct store *s, uint32_t slot);
uint32_t store_largest_capacity(const struct store *s);

uint64_t store_new_id(struct store *s); /* for a new file; persistent with the next commit */

/* ---- transactions ------------------------------------------------------------------------------
 */

enum change_op {
    CHANGE_FILE,     /* id: create (name, slot, attr) or change; attr always taken; content if
                        .has_content */
    CHANGE_RENAME,   /* id takes name; whoever has it is displaced: its content becomes name's
                        previous */
    CHANGE_EXCHANGE, /* id and other swap names; previous contents go with their files */
    CHANGE_UNLINK,   /* id goes; a tombstone stays while its content is whole */
    CHANGE_ROOT,     /* attr of the root */
    CHANGE_RESERVE,  /* name, len: promise a slot of len bytes to name (a slot is taken; ENOSPC);
                        len 0: give a promise up (ENOENT) */
    CHANGE_FORGET,   /* name: drop its tombstone or previous content from the directory */
};

struct change {
    enum change_op op;
    uint64_t id, other;
    const char *name;
    uint32_t
        slot; /* CHANGE_FILE: where the file lives from now on; held by the caller or its own */
    bool has_content; /* CHANGE_FILE: data and len replace the content whole (len 0: empty) */
    const void *data; /* stays the caller's, unchanged during the call */
    size_t len;
    struct file_attr attr;
};

/* Applies @n changes, in order, as one commit: all or none, durable when it returns 0, one flush.
 * A change that does not fit the committed state (-ENOENT, -EEXIST, -EINVAL, -ENOSPC, -EFBIG) fails
 * the whole commit before anything is written; -EROFS once the store is read-only.  After a failed
 * write or flush (-EIO) the store is read-only for good.  n = 0 writes a plain new generation. */
int store_commit(struct store *s, const struct change *changes, size_t n, uint64_t *generation);

/* The commit that changes nothing but the clean mark; 0 at once when it is already clean. */
int store_settle(struct store *s);

/* Whether every change would fail with -EROFS.  Does not wait for a commit. */
bool store_is_read_only(const struct store *s);
/* What was stored is there still, unless somebody has gone past all locks: it is a file of this
 * host, on a file system that has leases, and no host takes it over from another. */
bool store_is_sole(const struct store *s);

/* Makes the store read-only for good; @why is static text.  The first reason stays. */
void store_set_read_only(struct store *s, int r, const char *why);

/* ---- snapshot ----------------------------------------------------------------------------------
 */

/* A consistent image of the committed state, marked clean, without owner.  Holds a copy of the used
 * parts in memory, shared by snapshots of one generation. */
struct snapshot;
int store_snapshot(struct store *s, struct snapshot **out);
uint64_t snapshot_size(const struct snapshot *sn);
uint64_t snapshot_generation(const struct snapshot *sn);
int snapshot_pread(const struct snapshot *sn, void *buf, size_t n,
                   uint64_t off); /* within the size */
void snapshot_put(struct snapshot *sn);

/* ---- keys (core/rekey.c) ------------------------------------------------------------------------
 */

/* Replaces the key slots in both superblocks, each copy flushed before the other is written, then
 * commits a directory that refuses older superblocks.  Durable when it returns 0.  After -ENOMEM
 * nothing has changed; after an I/O error it is reported which keys count, or that they must be
 * tried. */
int store_set_keyslots(struct store *s, uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE]);
/* New volume key: rewrites all content under @sealer (key epoch +1) and switches over atomically.
 * Takes over @sealer, whatever it returns.  After an error it is reported which key counts; the
 * next mount finishes what is left to do. */
int store_reseal(struct store *s, struct sealer *sealer,
                 uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE], uint8_t key_size);

/* ---- growing (core/grow.c)
 * -----------------------------------------------------------------------
 */

/* What @sb becomes with @n classes of slots more: behind all that is there, which stays in its
 * place, but for directories that are too small.  -EINVAL for impossible classes, -ENOSPC when the
 * superblock has no room for more. */
int store_layout_grown(struct superblock *sb, const struct slot_class *classes, size_t n);
/* Makes the image so, in one step that a power cut leaves undone or done.  -ERANGE (reported) when
 * the device is not that large.  Not while anybody else uses the store: its geometry changes. */
int store_grow(struct store *s, const struct slot_class *classes, size_t n);

#endif
