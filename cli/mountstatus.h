/* SPDX-License-Identifier: BSD-3-Clause */
/* mountstatus.h - what mounts say of themselves (.vnvram/status), asked so that one that hangs
 * hangs nobody else: each is asked by a child of its own, which has the rights of whoever mounted
 * it and no others, and is not waited for beyond a deadline. */
#ifndef VNVRAM_CLI_MOUNTSTATUS_H
#define VNVRAM_CLI_MOUNTSTATUS_H

#include "fs/mountinfo.h"
#include <json-c/json.h>

enum mount_health {
    MOUNT_OK,
    MOUNT_READ_ONLY,  /* it was not asked to be: a write has failed, or somebody else has written */
    MOUNT_DEGRADED,   /* parts of the image are damaged */
    MOUNT_TPM_FAILED, /* the TPM could not store its state */
    MOUNT_DEAD,       /* its daemon is gone */
    MOUNT_SILENT,     /* its daemon does not answer */
    MOUNT_DENIED,     /* we may not ask */
    MOUNT_UNREADABLE, /* it answers, but not as a mount of ours does */
};

struct mount_status {
    struct mount_entry mount;
    enum mount_health health;
    struct json_object *answer; /* NULL unless it is one */
};

const char *mount_health_name(enum mount_health h);

/* Every mount of ours in this mount namespace, in the kernel's order, asked. *@list is the
 * caller's, to be freed by mount_status_free(). */
int mount_status_all(struct mount_status **list, size_t *n);
/* The one on @dir, an absolute real path.  -ENOENT: none of ours. */
int mount_status_one(struct mount_status *s, const char *dir);
void mount_status_fini(struct mount_status *s);
void mount_status_free(struct mount_status *list, size_t n);

/* Members of the answer; NULL, 0, false where there is none. */
const char *mount_status_text(const struct mount_status *s, const char *name);
uint64_t mount_status_number(const struct mount_status *s, const char *name);
const char *mount_status_tpm(const struct mount_status *s, const char *name);
/* The same of what the daemon knows of the image's owner; NULL where none is kept. */
const char *mount_status_owner(const struct mount_status *s, const char *name);

#endif
