/* SPDX-License-Identifier: BSD-3-Clause */
/* store.h - a whole store as one DER stream (doc/vnvram.asn1; doc/format.md, "The DER stream"),
 * plain or sealed.  Translation between memory and memory: no I/O, no keys of its own.
 *
 * A sealed stream has a volume key of its own, in key slots like an image's: a reader asks
 * der_read_head() for them, makes the sealer, and then reads.  Nothing is decrypted or handed out
 * before the tag of the whole has been verified. */
#ifndef VNVRAM_DER_STORE_H
#define VNVRAM_DER_STORE_H

#include "core/format.h"
#include "core/sealer.h"
#include "crypt/vault.h"

enum { DER_VERSION = 1 };

struct der_head {
    uint8_t uuid[UUID_SIZE]; /* of the image */
    uint64_t generation;
    int64_t committed; /* seconds since 1970 */
    struct file_attr root;
    bool sealed; /* then: */
    uint8_t stream[UUID_SIZE];
    uint8_t key_size;
    uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE];
};

struct der_entry {
    char name[NAME_MAX_LEN + 1];
    uint64_t capacity, generation;
    struct file_attr attr;
    const uint8_t *data; /* to be written; stays the caller's */
    size_t len;
};

/* What a sealer of a sealed stream is made for: key slots, key size, and .stream in the place of an
 * image's UUID, key epoch 1 (keys_unlock()). */
void der_sealing(const struct der_head *head, struct superblock *sb);

/* Writes the stream of @n entries, which get sorted.  @s is that of head->sealed.  -EFBIG
 * (reported) past 1 GiB. */
int der_write(struct vault **out, const struct der_head *head, struct der_entry *entries, size_t n,
              struct sealer *s);

/* Reads what the stream says of itself, from @len untrusted bytes: nothing of it is authenticated.
 * Reports, calling it @source: -EMEDIUMTYPE (no such stream), -ERANGE (it is cut off),
 * -EPROTONOSUPPORT (a newer version), -EUCLEAN (damaged; not DER), -ENOMEM. */
int der_read_head(struct der_head *head, const uint8_t *buf, size_t len, const char *source);

/* Hands out each entry with its content, which @sink may steal.  A negative return ends it. */
typedef int der_sink(void *arg, const struct der_entry *e, struct vault **content);
/* Findings as above, and -EBADMSG (forged).  When it fails, some entries may have been handed out:
 * nothing must be done with them before it has returned 0. */
int der_read(const uint8_t *buf, size_t len, const char *source, struct sealer *s, der_sink *sink,
             void *arg);

#endif
