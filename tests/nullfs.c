/* SPDX-License-Identifier: BSD-3-Clause */
/* nullfs.c - nullfs MOUNTPOINT: the least that a FUSE file system can do, for scripts/bench to tell
 * what of a measure is FUSE's own.  One file, "blob", that can be opened, read and closed; its
 * content stays in the page cache.  Runs in front until it is unmounted. */
#include "config.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BLOB = 2, BLOB_SIZE = 16384 };

static const double FOREVER = 1e6;
static const char content[BLOB_SIZE] = "nothing";

static struct stat
stat_of(fuse_ino_t ino)
{
    return (struct stat){.st_ino = ino,
                         .st_mode = ino == BLOB ? S_IFREG | 0600 : S_IFDIR | 0700,
                         .st_nlink = 1,
                         .st_size = ino == BLOB ? BLOB_SIZE : 0};
}

static void
op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e = {
        .ino = BLOB, .attr = stat_of(BLOB), .attr_timeout = FOREVER, .entry_timeout = FOREVER};

    if (parent != FUSE_ROOT_ID || strcmp(name, "blob") != 0)
        fuse_reply_err(req, ENOENT);
    else
        fuse_reply_entry(req, &e);
}

static void
op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    const struct stat st = stat_of(ino);

    (void)fi;
    fuse_reply_attr(req, &st, FOREVER);
}

static void
op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    fi->keep_cache = 1;
    fi->noflush = 1;
    fuse_reply_open(req, fi);
}

static void
op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    if (off >= BLOB_SIZE)
        size = 0;
    else if (size > (size_t)(BLOB_SIZE - off))
        size = (size_t)(BLOB_SIZE - off);
    fuse_reply_buf(req, content + (size ? off : 0), size);
}

static void
op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    fuse_reply_err(req, 0);
}

int
main(int argc, char **argv)
{
    static const struct fuse_lowlevel_ops ops = {.lookup = op_lookup,
                                                 .getattr = op_getattr,
                                                 .open = op_open,
                                                 .read = op_read,
                                                 .release = op_release};
    char *words[] = {(char[]){"nullfs"}, (char[]){"-o"}, (char[]){"default_permissions"}, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, words);
    struct fuse_session *se;
    int r = 1;

    if (argc != 2) {
        fprintf(stderr, "usage: nullfs MOUNTPOINT\n");
        return 2;
    }
    se = fuse_session_new(&args, &ops, sizeof ops, NULL);
    if (se && fuse_session_mount(se, argv[1]) == 0) {
        r = fuse_session_loop(se);
        fuse_session_unmount(se);
    }
    if (se)
        fuse_session_destroy(se);
    fuse_opt_free_args(&args);
    return r != 0;
}
