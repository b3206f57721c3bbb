/* SPDX-License-Identifier: BSD-3-Clause */
/* parcel.h - named contents on their way into an image or out of it: what import gathers before it
 * holds the image, and what export has taken from one generation before it writes. */
#ifndef VNVRAM_CLI_PARCEL_H
#define VNVRAM_CLI_PARCEL_H

#include "cli/options.h"
#include "core/format.h"
#include "crypt/vault.h"

struct parcel {
    char name[NAME_MAX_LEN + 1];
    struct vault *content;
    uint64_t room;         /* import: a slot of so many bytes, if there is one; 0: what it takes */
    bool has_attr;         /* .attr is to be taken, else owner, mode and times are chosen */
    struct file_attr attr; /* export: as in the image */
    uint64_t generation;   /* export: that wrote the content */
    const char *source;    /* for reports; stays the caller's */
};

struct parcels {
    struct parcel *list;
    size_t n;
};

#define PARCELS_INIT                                                                               \
    {                                                                                              \
        .list = NULL                                                                               \
    }

/* Adds one of @name and takes *@content over.  Reports a name that an image cannot hold (-EINVAL,
 * -ENAMETOOLONG) or that is there already (-EEXIST). */
int parcels_add(struct parcels *p, const char *name, struct vault **content, const char *source);
struct parcel *parcels_find(const struct parcels *p, const char *name);
void parcels_fini(struct parcels *p);

/* Reports errno of something done to @source: -ENOENT, or -EIO for all else, since it is not the
 * image that is in use, stale or whatever errno may say. */
int parcel_report_errno(const char *source, const char *doing);

/* Reads to the end.  A finding about @fd's file is never one about an image: all errors but
 * -ENOMEM and -EFBIG come as -EIO; reported, calling it @source. */
int parcel_read(int fd, const char *source, struct vault **content);

struct parcel_commit {
    bool replace;                 /* names that are there may be replaced */
    bool was_encrypted;           /* say so when they will be in the clear */
    const struct file_attr *root; /* of the mount's root, for an image without files; or NULL */
    const char **remove; /* files that go in the same commit, where there are any: replaced, too */
    size_t n_remove;
};

/* Puts all of them into the unmounted image at @path as one commit, or none; clean afterwards.
 * Reads the key first, then waits for the image's lock. */
int parcels_commit(const struct parcels *p, struct options *o, const char *path,
                   const struct parcel_commit *how);

/* The image that files were taken from. */
struct parcel_origin {
    struct store_info info;
    struct file_attr root;
};

struct parcel_take {
    char **names; /* these, or, when .n is 0, all that are not hidden ... */
    size_t n;
    bool (*want)(const struct options *o, const char *name); /* ... and that it wants; or NULL */
    bool hidden;                                             /* hidden ones, too */
    bool secret;                                             /* their memory must be locked */
    struct parcel_origin *origin;                            /* to be filled in, or NULL */
};

/* Takes files from the image at @path, which may be mounted, as one generation holds them.  -ENOENT
 * (reported) when one of .names is not there. */
int parcels_take(struct parcels *p, struct options *o, const char *path,
                 const struct parcel_take *what);

#endif
