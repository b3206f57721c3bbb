/* SPDX-License-Identifier: BSD-3-Clause */
/* ops.c - FUSE requests: which object is meant, what node.h, virt.h or devfile.h make of it, one
 * reply. No lock is held here; whatever was computed under one is a copy, or a view that stays as
 * it is. */
#include "base/scope.h"
#include "fs/devfile.h"
#include "fs/fs.h"
#include "fs/node.h"
#include "fs/settle.h"
#include "fs/virt.h"
#include "fs/xattr.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* All changes come through this mount, so what the kernel knows stays true. */
static const double FOREVER = 365.0 * 24 * 60 * 60;
enum { MAX_WRITE = 1024 * 1024, MAX_BACKGROUND = 1024, CONTROL_TEXT = NAME_MAX_LEN + 64 };

struct fs {
    struct store *store;
    struct fs_options opt;
    struct nodes *nodes;
    struct virt *virt;
    struct settle *settle;   /* NULL when read-only */
    struct devfile *devfile; /* NULL: no tpm0 */
    pthread_mutex_t lock;
    struct file_attr tpm; /* tpm0's, not persistent */
    /* Until an image that came from another daemon has been written to, it may go back there, and
     * come again as another one: the kernel is told to ask each time. */
    bool came;
    atomic_bool settled_here;
};

static struct fs *
fs_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

/* What programs know how to take. */
static int
error_of(int r)
{
    return r == -EUCLEAN || r == -EBADMSG ? EIO : -r;
}

static void
reply_result(fuse_req_t req, int r)
{
    fuse_reply_err(req, error_of(r));
}

static struct handle *
handle_of(const struct fuse_file_info *fi)
{
    return (struct handle *)(uintptr_t)fi->fh;
}

static struct virt_file *
virt_file_of(const struct fuse_file_info *fi)
{
    return (struct virt_file *)(uintptr_t)fi->fh;
}

/* ---- attributes ------------------------------------------------------------------------------ */

/* As the mount options want owner and mode shown. */
static void
override(const struct fs *fs, struct stat *st)
{
    if (fs->opt.uid != (uid_t)-1)
        st->st_uid = fs->opt.uid;
    if (fs->opt.gid != (gid_t)-1)
        st->st_gid = fs->opt.gid;
    if (fs->opt.umask != (mode_t)-1)
        st->st_mode &= ~(fs->opt.umask & 07777);
}

static void
fill_attr(const struct fs *fs, uint64_t ino, mode_t type, const struct file_attr *a, uint64_t size,
          struct stat *st)
{
    *st = (struct stat){
        .st_ino = ino,
        .st_mode = type | a->mode,
        .st_nlink = type == S_IFDIR ? 2 : 1,
        .st_uid = a->uid,
        .st_gid = a->gid,
        .st_size = (off_t)size,
        .st_blksize = BLOCK_SIZE,
        .st_blocks = (blkcnt_t)((size + 511) / 512),
        .st_atim = a->atime,
        .st_mtim = a->mtime,
        .st_ctim = a->ctime,
    };
    override(fs, st);
}

static void
fill_file(const struct fs *fs, const struct node_stat *n, struct stat *st)
{
    fill_attr(fs, n->id + INO_FIRST_FILE, S_IFREG, &n->attr, n->size, st);
    st->st_nlink = n->linked;
}

static void
fill_tpm(struct fs *fs, struct stat *st)
{
    struct file_attr a;

    pthread_mutex_lock(&fs->lock);
    a = fs->tpm;
    pthread_mutex_unlock(&fs->lock);
    fill_attr(fs, INO_TPM, S_IFREG, &a, 0, st);
}

static int
get_stat(struct fs *fs, fuse_ino_t ino, struct stat *st)
{
    struct node_stat n;
    struct file_attr root;
    int r = 0;

    if (ino == INO_ROOT) {
        nodes_get_root(fs->nodes, &root);
        fill_attr(fs, ino, S_IFDIR, &root, 0, st);
    } else if (ino == INO_TPM) {
        fill_tpm(fs, st);
    } else if (ino_is_virt(ino)) {
        r = virt_stat(fs->virt, ino, st);
    } else {
        r = node_stat(fs->nodes, ino - INO_FIRST_FILE, &n);
        if (r == 0)
            fill_file(fs, &n, st);
    }
    return r;
}

/* How long the kernel may remember what it is told; ask before looking.  The contents of .vnvram
 * change without its knowledge. */
static double
memory_of(const struct fs *fs)
{
    return fs->settled_here ? FOREVER : 0;
}

/* A draft's name goes without a word to the kernel. */
static double
memory_of_name(const struct fs *fs, const char *name)
{
    return name_is_draft(name) ? 0 : memory_of(fs);
}

static double
timeout_of(fuse_ino_t ino, double memory)
{
    return ino_is_virt(ino) ? 0 : memory;
}

static void
fill_entry(const struct stat *st, double memory, struct fuse_entry_param *e)
{
    *e = (struct fuse_entry_param){
        .ino = st->st_ino,
        .attr = *st,
        .attr_timeout = timeout_of(st->st_ino, memory),
        .entry_timeout = timeout_of(st->st_ino, memory),
    };
}

static void
op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    double memory = memory_of(fs_of(req));
    struct stat st;
    int r = get_stat(fs_of(req), ino, &st);

    (void)fi;
    if (r < 0)
        reply_result(req, r);
    else
        fuse_reply_attr(req, &st, timeout_of(ino, memory));
}

static void
read_change(const struct stat *st, int to_set, struct attr_change *ch)
{
    static const struct {
        int from;
        unsigned to;
    } map[] = {
        {FUSE_SET_ATTR_MODE, SET_MODE},
        {FUSE_SET_ATTR_UID, SET_UID},
        {FUSE_SET_ATTR_GID, SET_GID},
        {FUSE_SET_ATTR_SIZE, SET_SIZE},
        {FUSE_SET_ATTR_ATIME, SET_ATIME},
        {FUSE_SET_ATTR_MTIME, SET_MTIME},
        {FUSE_SET_ATTR_ATIME_NOW, SET_ATIME_NOW},
        {FUSE_SET_ATTR_MTIME_NOW, SET_MTIME_NOW},
    };

    *ch = (struct attr_change){
        .mode = st->st_mode & 07777,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .size = (uint64_t)st->st_size,
        .atime = st->st_atim,
        .mtime = st->st_mtim,
    };
    for (size_t i = 0; i < sizeof map / sizeof *map; i++)
        if (to_set & map[i].from)
            ch->set |= map[i].to;
}

/* tpm0's owner and mode may be changed, for as long as the mount lives; its size may not, quietly.
 */
static void
change_tpm(struct fs *fs, const struct attr_change *ch)
{
    AUTO_UNLOCK pthread_mutex_t *held = lock_mutex(&fs->lock);

    if (ch->set & SET_MODE)
        fs->tpm.mode = ch->mode;
    if (ch->set & SET_UID)
        fs->tpm.uid = ch->uid;
    if (ch->set & SET_GID)
        fs->tpm.gid = ch->gid;
    clock_gettime(CLOCK_REALTIME, &fs->tpm.ctime);
}

static int
set_stat(struct fs *fs, fuse_ino_t ino, const struct fuse_file_info *fi,
         const struct attr_change *ch, struct stat *st)
{
    struct node_stat n;
    struct file_attr root;
    int r = 0;

    if (ino == INO_ROOT) {
        r = nodes_change_root(fs->nodes, ch, &root);
        fill_attr(fs, ino, S_IFDIR, &root, 0, st);
    } else if (ino == INO_TPM) {
        change_tpm(fs, ch);
        fill_tpm(fs, st);
    } else if (ino_is_virt(ino)) {
        r = ch->set & SET_SIZE ? -EACCES : -EPERM;
    } else {
        r = node_change(fs->nodes, ino - INO_FIRST_FILE, fi ? handle_of(fi) : NULL, ch, &n);
        if (r == 0)
            fill_file(fs, &n, st);
    }
    return r;
}

static void
op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    double memory = memory_of(fs_of(req));
    struct attr_change ch;
    struct stat st = {0};
    int r;

    read_change(attr, to_set, &ch);
    r = set_stat(fs_of(req), ino, fi, &ch, &st);
    if (r < 0)
        reply_result(req, r);
    else
        fuse_reply_attr(req, &st, timeout_of(ino, memory));
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Whether a file may have the name there; a tpm0 or .vnvram that exists has been found by the
 * kernel. */
static int
check_place(fuse_ino_t parent, const char *name)
{
    if (strlen(name) > NAME_MAX_LEN)
        return -ENAMETOOLONG;
    return parent != INO_ROOT || virt_name_is_reserved(name) ? -EPERM : 0;
}

static int
lookup(struct fs *fs, fuse_ino_t parent, const char *name, struct stat *st)
{
    struct node_stat n;
    int r;

    if (strlen(name) > NAME_MAX_LEN)
        return -ENAMETOOLONG;
    if (parent != INO_ROOT || strcmp(name, ".vnvram") == 0) {
        r = virt_lookup(fs->virt, parent, name, st);
        if (r == 0)
            override(fs, st);
        return r;
    }
    if (strcmp(name, "tpm0") == 0) {
        fill_tpm(fs, st);
        return fs->devfile ? 0 : -ENOENT;
    }
    r = node_lookup(fs->nodes, name, &n);
    if (r == 0)
        fill_file(fs, &n, st);
    return r;
}

static void
forget(struct fs *fs, fuse_ino_t ino, uint64_t n)
{
    if (ino_is_file(ino))
        node_forget(fs->nodes, ino - INO_FIRST_FILE, n);
}

/* Who is gone does not forget: the kernel drops the reply to an interrupted request. */
static void
reply_entry(fuse_req_t req, const struct fuse_entry_param *e)
{
    struct fs *fs = fs_of(req);

    if (fuse_reply_entry(req, e) == -ENOENT)
        forget(fs, e->ino, 1);
}

static void
op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    double memory = memory_of_name(fs_of(req), name);
    struct fuse_entry_param e = {.entry_timeout = memory}; /* "no such name", to be remembered */
    struct stat st;
    int r = lookup(fs_of(req), parent, name, &st);

    if (r == 0)
        fill_entry(&st, memory, &e);
    if (r == 0 || (r == -ENOENT && parent == INO_ROOT))
        reply_entry(req, &e);
    else
        reply_result(req, r);
}

static void
op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
    forget(fs_of(req), ino, nlookup);
    fuse_reply_none(req);
}

static void
op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        forget(fs_of(req), forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

static struct file_attr
creator(fuse_req_t req, mode_t mode)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);

    return (struct file_attr){.mode = mode & 07777, .uid = ctx->uid, .gid = ctx->gid};
}

static void
op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct fs *fs = fs_of(req);
    struct file_attr who = creator(req, mode);
    double memory = memory_of(fs);
    struct fuse_entry_param e;
    struct node_stat n;
    struct stat st;
    int r = check_place(parent, name);

    (void)rdev;
    if (r == 0 && (mode & S_IFMT) != 0 && !S_ISREG(mode))
        r = -EPERM;
    if (r == 0)
        r = node_mknod(fs->nodes, name, &who, &n);
    if (r < 0) {
        reply_result(req, r);
        return;
    }
    fill_file(fs, &n, &st);
    fill_entry(&st, memory, &e);
    reply_entry(req, &e);
}

/* A flat directory of regular files: there is no place for anything else. */
static int
refuse(const char *name)
{
    return strlen(name) > NAME_MAX_LEN ? -ENAMETOOLONG : -EPERM;
}

static void
op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    (void)parent;
    (void)mode;
    reply_result(req, refuse(name));
}

static void
op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
    (void)link;
    (void)parent;
    reply_result(req, refuse(name));
}

static void
op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    (void)ino;
    (void)parent;
    reply_result(req, refuse(name));
}

static void
op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    (void)parent;
    reply_result(req, refuse(name));
}

static void
op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    int r = check_place(parent, name);

    reply_result(req, r < 0 ? r : node_unlink(fs_of(req)->nodes, name));
}

static void
op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
          const char *newname, unsigned flags)
{
    int r = check_place(parent, name);

    if (r == 0)
        r = check_place(newparent, newname);
    reply_result(req, r < 0 ? r : node_rename(fs_of(req)->nodes, name, newname, flags));
}

/* ---- open files ------------------------------------------------------------------------------ */

/* The TPM writes a blob with each of many commands.  Past the cache, that takes one request instead
 * of four (the file's attributes, what an extended one may say of privileges, write, fsync). */
static struct caching
caching_for(fuse_req_t req, struct handle *h)
{
    const struct fs *fs = fs_of(req);

    return node_caching(fs->nodes, h, fs->opt.tpm_pid && fuse_req_ctx(req)->pid == fs->opt.tpm_pid);
}

/* A handle that only reads has nothing to say when it is closed. */
static void
fill_open(fuse_req_t req, struct fuse_file_info *fi, struct handle *h)
{
    struct caching c = caching_for(req, h);

    fi->fh = (uintptr_t)h;
    fi->direct_io = c.direct;
    fi->keep_cache = c.keep && !fs_of(req)->came;
    fi->noflush = (fi->flags & O_ACCMODE) == O_RDONLY && !(fi->flags & O_TRUNC);
}

static void
op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
          struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    struct file_attr who = creator(req, mode);
    double memory = memory_of_name(fs, name);
    struct fuse_entry_param e;
    struct handle *h;
    struct node_stat n;
    struct stat st;
    int r = check_place(parent, name);

    if (r == 0)
        r = node_create(fs->nodes, name, &who, fi->flags, who.uid == 0, &n, &h);
    if (r < 0) {
        reply_result(req, r);
        return;
    }
    fill_file(fs, &n, &st);
    fill_entry(&st, memory, &e);
    fill_open(req, fi, h);
    if (fuse_reply_create(req, &e, fi) == -ENOENT) { /* interrupted: no release will come */
        node_release(fs->nodes, h);
        node_forget(fs->nodes, n.id, 1);
    }
}

static void
open_file(fuse_req_t req, struct fs *fs, uint64_t id, struct fuse_file_info *fi)
{
    struct handle *h;
    int r = node_open(fs->nodes, id, fi->flags, fuse_req_ctx(req)->uid == 0, &h);

    if (r < 0) {
        reply_result(req, r);
        return;
    }
    fill_open(req, fi, h);
    if (fuse_reply_open(req, fi) == -ENOENT)
        node_release(fs->nodes, h);
}

static void
open_virt(fuse_req_t req, struct fs *fs, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct virt_file *f;
    int r = (fi->flags & O_ACCMODE) != O_RDONLY ? -EACCES : virt_open(fs->virt, ino, &f);

    if (r < 0) {
        reply_result(req, r);
        return;
    }
    fi->fh = (uintptr_t)f;
    fi->direct_io = f != NULL;
    fi->noflush = 1;
    if (fuse_reply_open(req, fi) == -ENOENT)
        virt_release(fs->virt, f);
}

/* For who made the mount, and for root, whatever the modes say. */
static void
open_control(fuse_req_t req, struct fuse_file_info *fi)
{
    uid_t uid = fuse_req_ctx(req)->uid;

    if ((fi->flags & O_ACCMODE) != O_WRONLY || (uid != 0 && uid != geteuid())) {
        fuse_reply_err(req, EACCES);
    } else {
        fi->fh = 0;
        fi->direct_io = 1;
        fuse_reply_open(req, fi);
    }
}

static void
op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);

    if (ino == INO_TPM)
        devfile_open(fs->devfile, req, fi);
    else if (ino == INO_CONTROL)
        open_control(req, fi);
    else if (ino_is_virt(ino))
        open_virt(req, fs, ino, fi);
    else
        open_file(req, fs, ino - INO_FIRST_FILE, fi);
}

static void
read_file(fuse_req_t req, struct fs *fs, size_t size, off_t off, const struct fuse_file_info *fi)
{
    struct view v;
    int r = node_read(fs->nodes, handle_of(fi), size, (uint64_t)off, &v);

    if (r < 0) {
        reply_result(req, r);
        return;
    }
    fuse_reply_buf(req, (const char *)v.data, v.len);
    node_put_view(&v);
}

static void
read_virt(fuse_req_t req, struct fs *fs, fuse_ino_t ino, size_t size, off_t off,
          const struct fuse_file_info *fi)
{
    char *buf;
    size_t n;
    int r = virt_read(fs->virt, ino, virt_file_of(fi), size, (uint64_t)off, &buf, &n);

    if (r < 0) {
        reply_result(req, r);
        return;
    }
    fuse_reply_buf(req, buf, n);
    virt_free_data(fs->virt, buf, n);
}

static void
op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);

    if (ino == INO_TPM)
        devfile_read(fs->devfile, req, size, fi);
    else if (ino_is_virt(ino))
        read_virt(req, fs, ino, size, off, fi);
    else
        read_file(req, fs, size, off, fi);
}

/* The kernel asks for an fsync after each write to an O_DSYNC handle, unless that is direct. */
static int
write_file(struct fs *fs, const char *buf, size_t size, off_t off, const struct fuse_file_info *fi)
{
    struct handle *h = handle_of(fi);
    int r;

    if (node_overwrites(fs->nodes, h))
        return node_overwrite(fs->nodes, h, buf, size, (uint64_t)off);
    r = node_write(fs->nodes, h, buf, size, (uint64_t)off, fi->writepage);
    return r == 0 && node_is_synchronous(fs->nodes, h) ? node_sync_write(fs->nodes, h) : r;
}

static int
write_control(const struct fs *fs, const char *buf, size_t size)
{
    char text[CONTROL_TEXT];
    int r;

    while (size > 0 && isspace((unsigned char)buf[size - 1]))
        size--;
    if (size == 0 || size >= sizeof text || memchr(buf, '\0', size))
        return -EINVAL;
    memcpy(text, buf, size);
    text[size] = '\0';
    r = virt_order(fs->virt, text);
    if (r != -ENOMSG)
        return r;
    return fs->opt.control ? fs->opt.control(fs->opt.control_arg, text) : -EOPNOTSUPP;
}

static void
op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
         struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    int r;

    if (ino == INO_TPM) {
        devfile_write(fs->devfile, req, buf, size, fi);
        return;
    }
    if (ino == INO_CONTROL)
        r = write_control(fs, buf, size);
    else
        r = ino_is_virt(ino) ? -EBADF : write_file(fs, buf, size, off, fi);
    if (r < 0)
        reply_result(req, r);
    else
        fuse_reply_write(req, size);
}

static void
op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (ino == INO_TPM)
        devfile_flush(fs_of(req)->devfile, req, fi);
    else
        reply_result(req, ino_is_file(ino) ? node_flush(fs_of(req)->nodes, handle_of(fi)) : 0);
}

static void
op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    reply_result(req,
                 ino_is_file(ino) ? node_fsync(fs_of(req)->nodes, handle_of(fi), datasync) : 0);
}

static void
op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    int r = 0;

    if (ino == INO_TPM) {
        devfile_release(fs->devfile, req, fi);
        return;
    }
    if (ino_is_virt(ino))
        virt_release(fs->virt, virt_file_of(fi));
    else
        r = node_release(fs->nodes, handle_of(fi));
    reply_result(req, r);
}

static void
op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
             struct fuse_file_info *fi)
{
    int r = ino_is_file(ino) ? node_fallocate(fs_of(req)->nodes, handle_of(fi), mode, (uint64_t)off,
                                              (uint64_t)len)
                             : -EOPNOTSUPP;

    reply_result(req, r);
}

static void
op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
    if (ino == INO_TPM) {
        devfile_poll(fs_of(req)->devfile, req, fi, ph);
        return;
    }
    if (ph)
        fuse_pollhandle_destroy(ph);
    fuse_reply_poll(req, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM); /* as any regular file */
}

/* ---- directories ----------------------------------------------------------------------------- */

static void
op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    fuse_reply_open(req, fi);
}

static void
op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    fuse_reply_err(req, 0);
}

static void
op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)datasync;
    (void)fi;
    reply_result(req, ino == INO_ROOT ? nodes_sync(fs_of(req)->nodes) : 0);
}

/* Positions in a directory, the same for as long as the mount lives: 1 and 2 for the dots, then in
 * the root 3 for tpm0 and a file's inode number, in .vnvram the position there plus 2. */
enum { AT_DOT = 1, AT_DOTS = 2, AT_TPM = 3 };

static bool
next_in_root(struct fs *fs, uint64_t *at, struct stat *st, char name[NAME_MAX_LEN + 1])
{
    struct node_stat n;

    if (*at < AT_TPM && fs->devfile) {
        fill_tpm(fs, st);
        strcpy(name, "tpm0");
        *at = AT_TPM;
        return true;
    }
    if (!nodes_next(fs->nodes, *at < INO_FIRST_FILE ? 0 : *at - INO_FIRST_FILE, &n, name))
        return false;
    fill_file(fs, &n, st);
    *at = st->st_ino;
    return true;
}

/* The entry after position *@at, and its own. */
static bool
next_entry(struct fs *fs, fuse_ino_t dir, uint64_t *at, struct stat *st,
           char name[NAME_MAX_LEN + 1])
{
    uint64_t inner;

    if (*at < AT_DOTS) {
        strcpy(name, *at < AT_DOT ? "." : "..");
        *st = (struct stat){.st_mode = S_IFDIR,
                            .st_ino = *at < AT_DOT          ? dir
                                      : dir == INO_PREVIOUS ? (ino_t)INO_VIRT
                                                            : (ino_t)INO_ROOT};
        ++*at;
        return true;
    }
    if (dir == INO_ROOT)
        return next_in_root(fs, at, st, name);
    inner = *at - AT_DOTS;
    if (!virt_next(fs->virt, dir, &inner, st, name))
        return false;
    override(fs, st);
    *at = inner + AT_DOTS;
    return true;
}

/* With attributes each entry but the dots counts as looked up. */
static size_t
add_plus(fuse_req_t req, struct fs *fs, char *buf, size_t room, const char *name,
         const struct stat *st, uint64_t at, double memory)
{
    struct fuse_entry_param e = {.attr = *st};
    size_t need;

    if (at > AT_DOTS)
        fill_entry(st, memory, &e);
    if (ino_is_file(e.ino) && node_look(fs->nodes, e.ino - INO_FIRST_FILE) < 0)
        return 0; /* has just gone */
    need = fuse_add_direntry_plus(req, buf, room, name, &e, (off_t)at);
    if (need > room)
        forget(fs, e.ino, 1);
    return need;
}

static void
list(fuse_req_t req, fuse_ino_t dir, size_t size, off_t off, bool plus)
{
    struct fs *fs = fs_of(req);
    AUTO_FREE char *buf = malloc(size);
    char name[NAME_MAX_LEN + 1];
    double memory = memory_of(fs);
    uint64_t at = (uint64_t)off;
    size_t used = 0;
    struct stat st;

    if (!buf) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    if (dir == INO_ROOT)
        nodes_listed(fs->nodes);
    while (next_entry(fs, dir, &at, &st, name)) {
        size_t room = size - used;
        size_t n = plus ? add_plus(req, fs, buf + used, room, name, &st, at, memory)
                        : fuse_add_direntry(req, buf + used, room, name, &st, (off_t)at);

        if (n > room)
            break;
        used += n;
    }
    fuse_reply_buf(req, buf, used);
}

static void
op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, size, off, false);
}

static void
op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, size, off, true);
}

static void
op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct nodes_space space;
    int r = nodes_get_space(fs_of(req)->nodes, &space);

    (void)ino;
    if (r < 0) {
        reply_result(req, r);
        return;
    }
    fuse_reply_statfs(req, &(struct statvfs){
                               .f_bsize = BLOCK_SIZE,
                               .f_frsize = BLOCK_SIZE,
                               .f_blocks = space.bytes / BLOCK_SIZE,
                               .f_bfree = space.bytes_free / BLOCK_SIZE,
                               .f_bavail = space.bytes_free / BLOCK_SIZE,
                               .f_files = space.slots,
                               .f_ffree = space.slots_free,
                               .f_favail = space.slots_free,
                               .f_namemax = NAME_MAX_LEN,
                           });
}

/* ---- extended attributes --------------------------------------------------------------------- */

/* The protocol of both calls: the size alone when none is offered. */
static void
reply_xattr(fuse_req_t req, const char *data, size_t len, size_t size)
{
    if (size == 0)
        fuse_reply_xattr(req, len);
    else if (size < len)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, data, len);
}

static void
op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    char value[XATTR_VALUE_SIZE] = "";
    int r = xattr_is_ours(name) ? -ENODATA : -ENOTSUP;

    if (r == -ENODATA && ino_is_file(ino))
        r = xattr_get(fs_of(req)->nodes, ino - INO_FIRST_FILE, name, value);
    if (r < 0)
        reply_result(req, r);
    else
        reply_xattr(req, value, strlen(value), size);
}

static void
op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    char names[XATTR_NAMES_SIZE];

    reply_xattr(req, names, ino_is_file(ino) ? xattr_list(names) : 0, size);
}

/* Ours are what they are; of others there are none. */
static int
refuse_xattr(const char *name)
{
    return xattr_is_ours(name) ? -EPERM : -ENOTSUP;
}

static void
op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size,
            int flags)
{
    (void)ino;
    (void)value;
    (void)size;
    (void)flags;
    reply_result(req, refuse_xattr(name));
}

static void
op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    (void)ino;
    reply_result(req, refuse_xattr(name));
}

/* ---- the session ----------------------------------------------------------------------------- */

/* Not wanted: the writeback cache (the kernel's times would have to become ours), automatic
 * invalidation (nobody else changes anything), and clearing setuid bits ourselves. */
static void
op_init(void *userdata, struct fuse_conn_info *conn)
{
    const unsigned wanted = FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_PARALLEL_DIROPS |
                            FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_READDIRPLUS |
                            FUSE_CAP_READDIRPLUS_AUTO;

    (void)userdata;
    conn->want = conn->capable & wanted;
    conn->max_write = MAX_WRITE;
    /* Releases are background requests.  A dozen at a time, the default, they fall behind the opens
     * by tens of thousands when many clients are at work. */
    conn->max_background = MAX_BACKGROUND;
    conn->congestion_threshold = MAX_BACKGROUND / 4 * 3;
    conn->time_gran = 1;
}

static const struct fuse_lowlevel_ops ops = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .symlink = op_symlink,
    .link = op_link,
    .rmdir = op_rmdir,
    .unlink = op_unlink,
    .rename = op_rename,
    .create = op_create,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .fsync = op_fsync,
    .release = op_release,
    .fallocate = op_fallocate,
    .poll = op_poll,
    .opendir = op_opendir,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .statfs = op_statfs,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .setxattr = op_setxattr,
    .removexattr = op_removexattr,
};

const struct fuse_lowlevel_ops *
fs_lowlevel_ops(void)
{
    return &ops;
}

static void
on_commit(void *arg)
{
    struct fs *fs = arg;

    fs->settled_here = true;
    if (fs->settle)
        settle_poke(fs->settle);
}

static void
on_settle(void *arg)
{
    struct fs *fs = arg;

    nodes_settle(fs->nodes); /* what is wrong has been reported, and shows at the next commit */
}

static void
get_root(void *arg, struct file_attr *attr)
{
    struct fs *fs = arg;

    nodes_get_root(fs->nodes, attr);
}

static void
fs_freep(struct fs **fs)
{
    fs_free(*fs);
}

static int
make_parts(struct fs *fs)
{
    const struct nodes_options nodes = {.read_only = fs->opt.read_only,
                                        .no_atime = fs->opt.no_atime,
                                        .committed = on_commit,
                                        .arg = fs};
    const struct virt_options virt = {.status = fs->opt.status,
                                      .status_arg = fs->opt.status_arg,
                                      .root = get_root,
                                      .root_arg = fs,
                                      .committed = on_commit,
                                      .committed_arg = fs};
    int r = nodes_new(&fs->nodes, fs->store, &nodes);

    return r < 0 ? r : virt_new(&fs->virt, fs->store, &virt);
}

int
fs_new(struct fs **out, struct store *s, const struct fs_options *opt)
{
    AUTO(fs_freep) struct fs *fs = calloc(1, sizeof *fs);
    int r;

    if (!fs)
        return -ENOMEM;
    fs->store = s;
    fs->opt = *opt;
    pthread_mutex_init(&fs->lock, NULL);
    r = make_parts(fs);
    if (r < 0)
        return r;
    fs->came = store_where(s) != STORE_HERE;
    fs->settled_here = !fs->came;
    nodes_get_root(fs->nodes, &fs->tpm);
    fs->tpm.mode = 0600;
    *out = steal(&fs);
    return 0;
}

int
fs_start(struct fs *fs, struct cmddev *tpm)
{
    struct store_info info;
    int r = 0;

    if (tpm)
        r = devfile_new(&fs->devfile, tpm);
    if (r == 0 && !fs->opt.read_only)
        r = settle_new(&fs->settle, SETTLE_AFTER_MS, on_settle, fs);
    if (r < 0)
        return r;
    store_get_info(fs->store, &info);
    if (fs->settle && !info.clean)
        settle_poke(fs->settle);
    return 0;
}

int
fs_release(struct fs *fs, bool back)
{
    return nodes_release(fs->nodes, back);
}

int
fs_take(struct fs *fs, unsigned wait_ms)
{
    return nodes_take(fs->nodes, wait_ms);
}

bool
fs_next_file(struct fs *fs, uint64_t *ino)
{
    uint64_t id = *ino < INO_FIRST_FILE ? 0 : *ino - INO_FIRST_FILE;

    if (!nodes_next_id(fs->nodes, &id))
        return false;
    *ino = id + INO_FIRST_FILE;
    return true;
}

void
fs_close_all(struct fs *fs)
{
    nodes_close_all(fs->nodes);
}

int
fs_finish(struct fs *fs)
{
    settle_free(steal(&fs->settle));
    devfile_free(steal(&fs->devfile));
    return nodes_settle(fs->nodes);
}

void
fs_free(struct fs *fs)
{
    if (!fs)
        return;
    settle_free(fs->settle);
    devfile_free(fs->devfile);
    virt_free(fs->virt);
    nodes_free(fs->nodes);
    pthread_mutex_destroy(&fs->lock);
    free(fs);
}
