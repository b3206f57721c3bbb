/* SPDX-License-Identifier: BSD-3-Clause */
/* fs.h - the file system: nodes and handles over a store, and the FUSE operations on them.
 *
 * fs/node.c computes under the fs's lock and is tested without a mount; fs/ops.c replies to FUSE;
 * fs/virt.c is .vnvram; fs/devfile.c is tpm0; fs/settle.c the thread that settles.  fs/session.c
 * (session.h) owns the FUSE session and its threads. */
#ifndef VNVRAM_FS_FS_H
#define VNVRAM_FS_FS_H

#include "core/store.h"
#include "fs/cmddev.h"
#include <stdio.h>

struct fuse_lowlevel_ops;
struct fs;

struct fs_options {
    bool read_only;
    bool no_atime; /* reading and listing leave it alone; the kernel does not see to that */
    /* Overrides as mount(8) knows them; (uid_t)-1, (gid_t)-1 and (mode_t)-1 leave what is stored.
     */
    uid_t uid;
    gid_t gid;
    mode_t umask;
    pid_t tpm_pid; /* whose handles go past the kernel's cache; 0: no TPM */
    /* Writes the members of .vnvram/status that the file system cannot know (pid, tpm_pid, image,
     * tpm...) after its own, each with a comma in front as json.h does it; called from FUSE
     * threads.  NULL: none. */
    void (*status)(void *arg, FILE *out);
    void *status_arg;
    /* What is written to .vnvram/control, without space at its end; a negative errno refuses it.
     * From FUSE threads.  NULL: nothing may be written. */
    int (*control)(void *arg, const char *text);
    void *control_arg;
};

/* The store stays the caller's and must outlive the fs. */
int fs_new(struct fs **out, struct store *s, const struct fs_options *opt);
/* Starts its threads; before any request is served.  @tpm is what tpm0 stands for, NULL: no tpm0.
 */
int fs_start(struct fs *fs, struct cmddev *tpm);
/* The image goes to another daemon, or comes from one (nodes_release(), nodes_take()), while the
 * mount lives.  From any thread, but not under a lock that requests need. */
int fs_release(struct fs *fs, bool back);
int fs_take(struct fs *fs, unsigned wait_ms);
/* The inode number after *@ino (0: the first) of a file, with or without a name; false at the end.
 */
bool fs_next_file(struct fs *fs, uint64_t *ino);
/* For fuse_session_new(); the session's userdata is the struct fs. */
const struct fuse_lowlevel_ops *fs_lowlevel_ops(void);
/* Before fs_finish(), and only when the session has ended because nobody had a file open any more:
 * the kernel drops releases that were not delivered when the last mount went; here they are made up
 * for. */
void fs_close_all(struct fs *fs);
/* After session_stop() and before session_free(): drops what nobody closed or synced, ends a read
 * that waits for the TPM, commits pending attributes, settles.  Commits before have been reported
 * if they failed. */
int fs_finish(struct fs *fs);
void fs_free(struct fs *fs); /* NULL is fine */

#endif
