/* SPDX-License-Identifier: BSD-3-Clause */
/* node.h - the files of an image as programs see them: names, handles, content that is being worked
 * on, and the points at which it becomes persistent (doc/design.md, "The file system").
 *
 * Content is coherent between all handles at once; what is in the store changes only at a commit:
 * fsync; flush of a handle that wrote; rename; unlink; a change of attributes; a truncate by name;
 * release, for what no flush committed.  Working content lives in memory, in slots that are already
 * taken, so that room runs out at a write and never at a close.
 *
 * Thread-safe.  Two locks: commits, and whatever changes a name, go one at a time; the second
 * guards memory only and is not held during a commit, so reading and writing go on meanwhile.
 *
 * Functions return 0 or a negative errno.  After a failed commit everything that would change a
 * file returns -EROFS, and reads go on. */
#ifndef VNVRAM_FS_NODE_H
#define VNVRAM_FS_NODE_H

#include "core/store.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nodes;
struct handle;

struct nodes_options {
    bool read_only;
    bool no_atime;                /* reading and listing leave it alone */
    void (*committed)(void *arg); /* after each commit; may be NULL; must not call back */
    void *arg;
    void (*clock)(struct timespec *now); /* NULL: CLOCK_REALTIME */
};

/* The store stays the caller's and must outlive the nodes. */
int nodes_new(struct nodes **out, struct store *s, const struct nodes_options *opt);
/* Commits attributes that wait for a commit, then the clean mark.  Never content: what nobody
 * closed or synced is gone when nodes_free() follows.  An image that came from another daemon, and
 * that nothing has been committed to since, stays as it came: those attributes wait on. */
int nodes_settle(struct nodes *ns);
void nodes_free(struct nodes *ns); /* NULL is fine */
/* store_release() and store_take() with all that hangs on them.  While the image is elsewhere what
 * would change a file returns -EROFS, and reads go on.  Bytes that are not committed stay where
 * they are and wait for the image to come back; when it comes as another daemon left it, they are
 * gone, and the next flush or fsync of a handle that wrote them fails with -EIO.  Attributes that
 * wait for a commit are committed before it goes, unless it goes as it came.
 * @back: if it does, it may come again as another one. */
int nodes_release(struct nodes *ns, bool back);
int nodes_take(struct nodes *ns, unsigned wait_ms);

/* ---- the directory --------------------------------------------------------------------------- */

struct node_stat {
    uint64_t id;
    struct file_attr attr;
    uint64_t size;
    uint32_t capacity; /* of its slot */
    bool linked;       /* has a name */
};

enum {
    SET_MODE = 1,
    SET_UID = 2,
    SET_GID = 4,
    SET_SIZE = 8,
    SET_ATIME = 16,
    SET_MTIME = 32,
    SET_ATIME_NOW = 64,
    SET_MTIME_NOW = 128,
};
struct attr_change {
    unsigned set; /* SET_*; 0 still updates ctime */
    uint32_t mode, uid, gid;
    uint64_t size;
    struct timespec atime, mtime;
};

void nodes_get_root(struct nodes *ns, struct file_attr *root);
int nodes_change_root(struct nodes *ns, const struct attr_change *ch, struct file_attr *root);
int nodes_sync(
    struct nodes *ns); /* commits names that are not in the store yet (fsync of the directory) */

/* The file with the least id above @after, for listing; ids never change.  False at the end. */
bool nodes_next(struct nodes *ns, uint64_t after, struct node_stat *st,
                char name[NAME_MAX_LEN + 1]);
bool nodes_next_id(struct nodes *ns, uint64_t *id); /* the same, with those without a name */
void nodes_listed(struct nodes *ns);                /* moves the directory's atime on */

struct nodes_space {
    uint64_t bytes, bytes_free; /* capacity of all slots, and of those nobody has taken */
    uint32_t slots, slots_free;
};
int nodes_get_space(struct nodes *ns, struct nodes_space *space);

/* ---- names ----------------------------------------------------------------------------------- */

/* Names come without '/' and are not reserved ones; longer than NAME_MAX_LEN: -ENAMETOOLONG. */

/* A file that is created by a name that begins so is a draft: not listed, in the store under no
 * name, and gone with its last handle, unless a rename has made it a file by then.  What ends
 * whoever writes it leaves nothing, as with O_TMPFILE, which FUSE has in newer kernels only. */
#define DRAFT_PREFIX ".vnvram-draft."

bool name_is_draft(const char *name);

/* Each success counts one lookup; so do node_create() and node_mknod().  A node lives until its
 * name, its handles and its lookups are gone. */
int node_lookup(struct nodes *ns, const char *name, struct node_stat *st);
int node_look(struct nodes *ns, uint64_t id); /* one more lookup of a listed node */
void node_forget(struct nodes *ns, uint64_t id, uint64_t n);

/* Opens a new file (O_EXCL: -EEXIST if there is one), or the one that is there.  O_TRUNC drops
 * setuid and setgid bits unless the caller is @privileged; for all else the kernel asks for that
 * itself. */
int node_create(struct nodes *ns, const char *name, const struct file_attr *who, int flags,
                bool privileged, struct node_stat *st, struct handle **h);
int node_mknod(struct nodes *ns, const char *name, const struct file_attr *who,
               struct node_stat *st);
int node_unlink(struct nodes *ns, const char *name);
int node_rename(struct nodes *ns, const char *from, const char *to, unsigned flags);

/* ---- files ----------------------------------------------------------------------------------- */

int node_stat(struct nodes *ns, uint64_t id, struct node_stat *st);
/* @h: NULL, or the handle of an ftruncate, whose size is committed as a write is. */
int node_change(struct nodes *ns, uint64_t id, struct handle *h, const struct attr_change *ch,
                struct node_stat *st);
int node_open(struct nodes *ns, uint64_t id, int flags, bool privileged, struct handle **h);

/* How the kernel is to treat a handle.  @want_direct: past its cache, if nobody has the file open
 * otherwise; while one handle is direct, all are. */
struct caching {
    bool direct;
    bool keep; /* what it has cached of the file is still true */
};
struct caching node_caching(struct nodes *ns, struct handle *h, bool want_direct);
/* It wanted to be direct, is so, and O_DSYNC: for node_overwrite(). */
bool node_overwrites(struct nodes *ns, const struct handle *h);
/* It is direct, and O_DSYNC: the kernel asks for no fsync after its writes. */
bool node_is_synchronous(struct nodes *ns, const struct handle *h);

/* What a read gives: bytes that stay as they are until node_put_view(). */
struct view {
    const uint8_t *data;
    size_t len;
    struct blob *blob;
};
int node_read(struct nodes *ns, struct handle *h, size_t n, uint64_t off, struct view *v);
void node_put_view(struct view *v);
/* @page: written through a mapping, so that no handle's flush speaks for it.  Of what is there
 * already only the times change. */
int node_write(struct nodes *ns, struct handle *h, const void *buf, size_t n, uint64_t off,
               bool page);
/* Replaces the whole content by one of the same size, and commits it.  -EOPNOTSUPP for any other
 * range: it may be part of a write that the kernel has split, and half of one must not be
 * committed. */
int node_overwrite(struct nodes *ns, struct handle *h, const void *buf, size_t n, uint64_t off);
int node_fallocate(struct nodes *ns, struct handle *h, int mode, uint64_t off, uint64_t len);
int node_flush(struct nodes *ns, struct handle *h);
int node_fsync(struct nodes *ns, struct handle *h, bool data); /* @data: as fdatasync */
int node_sync_write(struct nodes *ns, struct handle *h);       /* as O_DSYNC or O_SYNC has it */
int node_release(struct nodes *ns, struct handle *h); /* the handle is gone, whatever it returns */
void nodes_close_all(struct nodes *ns); /* releases every handle; nobody else works on the nodes */

/* What user.vnvram.* tells. */
struct node_info {
    uint32_t slot;
    struct content content; /* as committed; generation 0: none */
    uint32_t crc32;         /* of the committed content */
    uint32_t capacity;
    bool sealed;
    bool dirty; /* something is not committed yet */
};
int node_get_info(struct nodes *ns, uint64_t id, bool want_crc, struct node_info *info);

#endif
