/* SPDX-License-Identifier: BSD-3-Clause */
/* nvram.h - a TPM's non-volatile memory as plain files of one directory, under swtpm's names and in
 * its envelope (envelope.h).  Knows nothing but a directory descriptor: never a path, never the
 * store.
 *
 * A blob that stays as long is overwritten in place by one pwritev(2) to an O_DSYNC descriptor,
 * which the file system takes as one request and commits.  One that grows takes an fsync(2)
 * besides, as does one that the file system will not take in one piece.  In place, because that
 * never needs a second slot.  A blob that shrinks would need two requests, and who dies between
 * them leaves a blob with the tail of the old one; so it goes by a temporary file and rename(2),
 * one commit too.  Only when there is no room for the temporary file, or it cannot get the old
 * one's owner, it is written and cut in place.
 *
 * The files stay open.  If somebody removes or replaces one while the TPM runs, the next store
 * fails: neither is anything written into a file that has no name, nor is the state that somebody
 * put there overwritten.  Every failed store is final: nvram_failure() says so for good.
 *
 * Not thread-safe: one thread owns it. */
#ifndef VNVRAM_TPM_NVRAM_H
#define VNVRAM_TPM_NVRAM_H

#include "tpm/process.h"
#include <stddef.h>
#include <stdint.h>

struct nvram;

enum nvram_item { NVRAM_PERMALL, NVRAM_VOLATILE, NVRAM_SAVESTATE, NVRAM_ITEMS };

struct nvram_options {
    enum tpm_version version;
    bool held;        /* there has been a TPM of this version: its permall must not be missing */
    bool manufacture; /* ... but may be, all the same */
    bool detached;    /* there is nothing to open yet: nvram_attach() comes later */
};

/* Opens what is there, with the rights that the caller still has.  @dir stays the caller's and must
 * outlive it. */
int nvram_open(struct nvram **out, int dir, const struct nvram_options *opt);
void nvram_close(struct nvram *n);

/* Opens what is there, after nvram_open() with .detached or nvram_detach(), which closes it. */
int nvram_attach(struct nvram *n);
void nvram_detach(struct nvram *n);

/* Takes swtpm's lock (.lock), creating it if need be, so that no swtpm runs on the directory at the
 * same time.  -EBUSY: somebody holds it. */
int nvram_lock(struct nvram *n);

/* Reads an item; the caller frees *@blob.  -ENOENT, unreported: there is none, and there may be
 * none.  All else is reported: a missing permall that must be there, damage, I/O errors. */
int nvram_load(struct nvram *n, enum nvram_item item, uint8_t **blob, size_t *len);
/* 1: it is there; 0: it is not; or reported. */
int nvram_has(struct nvram *n, enum nvram_item item);
/* Returns when it is durable. */
int nvram_store(struct nvram *n, enum nvram_item item, const uint8_t *blob, size_t len);
/* 1: removed; 0: there was none. */
int nvram_delete(struct nvram *n, enum nvram_item item);

/* 0, or the errno of the first store or delete that failed. */
int nvram_failure(const struct nvram *n);
/* NVRAM_ITEMS if libtpms' @name is none of ours. */
enum nvram_item nvram_item_by_name(const char *name);

#endif
