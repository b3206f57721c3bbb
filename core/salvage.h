/* SPDX-License-Identifier: BSD-3-Clause */
/* salvage.h - every content on a device that still verifies, whatever else is damaged.  Writes
 * nothing. */
#ifndef VNVRAM_CORE_SALVAGE_H
#define VNVRAM_CORE_SALVAGE_H

#include "core/store.h"

enum salvage_role {
    SALVAGE_CURRENT,  /* the newest readable directory shows it */
    SALVAGE_PREVIOUS, /* ... remembers it as the content before */
    SALVAGE_LOOSE,    /* whole, but no readable directory knows it */
};

struct salvaged {
    enum salvage_role role;
    const char *name; /* NULL when LOOSE */
    uint64_t generation, length;
    uint32_t slot;
    unsigned bank;
};

/* @data is s->length bytes, valid during the call.  A negative return ends the salvage with it. */
typedef int salvage_sink(void *arg, const struct salvaged *s, const uint8_t *data);

/* Looks wherever a content may be.  Without a readable superblock that is every block of @d,
 * @unlock is not asked, and only contents that are not sealed can be read; what is read in vain
 * then is at most a few times the size of @d, whatever it holds.  *@n counts what was handed out,
 * *@lost the banks of ours that do not verify, and the current contents that are not found; of
 * which file a current one was lost is reported. Returns 0 also when nothing was found; findings of
 * keys (-ENOKEY, -EKEYREJECTED, ...); I/O errors of single blocks are reported and passed over. */
int store_salvage(struct dev *d, store_unlock_fn *unlock, void *arg, salvage_sink *sink,
                  void *sink_arg, unsigned *n, unsigned *lost);

#endif
