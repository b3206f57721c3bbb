/* SPDX-License-Identifier: BSD-3-Clause */
/* virt.h - what the mount shows beside the files: .vnvram with status, image, previous/NAME and
 * control.
 *
 * .vnvram is found by name and never listed.  All of it is read-only, but for control, which takes
 * words from whoever made the mount (ops.c).  status and image are made
 * when they are opened and stay as they were then; previous/NAME is the content that a name had
 * before, for as long as its bank is whole, and its inode number says which content that is. */
#ifndef VNVRAM_FS_VIRT_H
#define VNVRAM_FS_VIRT_H

#include "core/store.h"
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>

/* Inode numbers of the whole mount. */
enum {
    INO_ROOT = 1,
    INO_VIRT = 2, /* .vnvram */
    INO_STATUS = 3,
    INO_IMAGE = 4,
    INO_PREVIOUS = 5,
    INO_TPM = 6,
    INO_CONTROL = 7,
    INO_FIRST_FILE = 16, /* + the file's id */
};
#define INO_FIRST_PREVIOUS (UINT64_C(1) << 62) /* + generation and slot of the content */

static inline bool
ino_is_file(uint64_t ino)
{
    return ino >= INO_FIRST_FILE && ino < INO_FIRST_PREVIOUS;
}

static inline bool
ino_is_virt(uint64_t ino)
{
    return (ino >= INO_VIRT && ino <= INO_PREVIOUS) || ino == INO_CONTROL ||
           ino >= INO_FIRST_PREVIOUS;
}

/* Names of the root that no file may have. */
bool virt_name_is_reserved(const char *name);

struct virt;

/* @status as in struct fs_options.  @root: whose the files of .vnvram are; called without a lock.
 */
struct virt_options {
    void (*status)(void *arg, FILE *out);
    void *status_arg;
    void (*root)(void *arg, struct file_attr *attr);
    void *root_arg;
    void (*committed)(
        void *arg); /* after an order that changed the store, without a lock; or NULL */
    void *committed_arg;
};
int virt_new(struct virt **out, struct store *s, const struct virt_options *opt);
void virt_free(struct virt *v); /* with all that is still open; NULL is fine */

/* In .vnvram and .vnvram/previous; for the root, .vnvram itself.  -ENOENT. */
int virt_lookup(struct virt *v, uint64_t parent, const char *name, struct stat *st);
int virt_stat(struct virt *v, uint64_t ino, struct stat *st);

/* The entry of the directory @dir after position @at (0: the first); false at the end.  Positions
 * of previous/ count the names that the store had, so a list taken while files change may miss one.
 */
bool virt_next(struct virt *v, uint64_t dir, uint64_t *at, struct stat *st,
               char name[NAME_MAX_LEN + 1]);

struct virt_file;

/* -ENFILE when images of too many generations are open.  A previous content needs no state: *@f is
 * NULL then. */
int virt_open(struct virt *v, uint64_t ino, struct virt_file **f);
/* *@buf is malloc()ed, *@got bytes; free it with virt_free_data(). */
int virt_read(struct virt *v, uint64_t ino, struct virt_file *f, size_t n, uint64_t off, char **buf,
              size_t *got);
void virt_free_data(struct virt *v, char *buf, size_t n);
void virt_release(struct virt *v, struct virt_file *f); /* NULL is fine */

/* "reserve SIZE NAME", written to control: promises NAME a slot of SIZE bytes, durably; 0 gives the
 * promise up.  -ENOMSG for any other word, whose business is another's; -EINVAL when it makes no
 * sense. */
int virt_order(struct virt *v, const char *text);

#endif
