/* SPDX-License-Identifier: BSD-3-Clause */
/* holder.h - who holds the lock of an image: best effort, for messages only. */
#ifndef VNVRAM_CORE_HOLDER_H
#define VNVRAM_CORE_HOLDER_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

struct holder {
    pid_t pid;
    char comm[32];
};

/* Finds another process with a lock or lease on the inode of @st.  False when unknown. */
bool holder_find(struct holder *h, const struct stat *st);
/* What the process @h->pid is called, or "?". */
void holder_name(struct holder *h);

#endif
