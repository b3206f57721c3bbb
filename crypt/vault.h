/* SPDX-License-Identifier: BSD-3-Clause */
/* vault.h - contents of files on their way through a command: too long for the pool of keys
 * (secret.h), but locked into RAM and kept out of core dumps as it is, and wiped when freed. */
#ifndef VNVRAM_CRYPT_VAULT_H
#define VNVRAM_CRYPT_VAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vault {
    size_t len; /* may be lowered, to cut off a tail */
    uint8_t *bytes;
    size_t mapped; /* of no concern */
    bool must_lock;
};

/* @len zero bytes; more than there is memory for is -ENOMEM (reported).  With @must_lock it is
 * -EPERM (reported, with the remedy) when they cannot be locked; without, they are if possible. */
int vault_new(struct vault **out, size_t len, bool must_lock);
/* At least @len bytes, the new ones zero; what moves is wiped where it was. */
int vault_grow(struct vault *v, size_t len);
/* Again, after something has unlocked all of the process's memory (secret_unlock_all()). */
int vault_lock(const struct vault *v);
void vault_free(struct vault *v); /* NULL is fine */
void vault_freep(struct vault **v);

#endif
