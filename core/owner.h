/* SPDX-License-Identifier: BSD-3-Clause */
/* owner.h - which host may write an image that many can reach (doc/format.md, "Owner records";
 * doc/design.md, "One writer across hosts").
 *
 * Two records lie where no commit ever writes.  Who takes an image writes both, one after the
 * other, flushes them, and only then reads the image; who owns one looks at both after each flush,
 * and acknowledges nothing unless they are what it knows.  So either the owner sees the claim of
 * whoever takes the image from it, or that one sees what the owner has acknowledged.
 *
 * On one host a lock has decided before.  Errors: negative errno, reported unless said otherwise.
 */
#ifndef VNVRAM_CORE_OWNER_H
#define VNVRAM_CORE_OWNER_H

#include "core/dev.h"
#include "core/format.h"

/* The record that counts, whoever it is of: 0, -ENODATA (both are blank), -EUCLEAN (one of the two
 * is damaged or, unless @uuid is NULL, of another image; *@rec is the other, or zero), or an I/O
 * error.  Only I/O errors are reported. */
int owner_look(struct dev *d, const uint8_t *uuid, struct owner_record *rec);

/* "2026-11-30T14:05:00Z" */
enum { OWNER_TIME_TEXT = 32 };
const char *owner_time_text(char buf[OWNER_TIME_TEXT], int64_t t);

/* Whether an image has an owner. */
enum owner_use {
    OWNER_IF_SHARED, /* on devices that other hosts may reach: dev.shared */
    OWNER_ALWAYS,
    OWNER_NEVER, /* records are neither read nor written */
};

/* Who we are, and how far we go. */
struct owner_options {
    enum owner_use use;
    uint8_t host_id[HOST_ID_SIZE]; /* zero: not known, and then nothing can be owned */
    uint8_t boot_id[HOST_ID_SIZE];
    char host_name[HOST_NAME_SIZE + 1];
    /* Of the first taking only: */
    bool takeover;    /* take it from another host, or whatever the records say */
    bool fenced;      /* no former owner can write any more: do without what guards against it */
    unsigned wait_ms; /* how long to wait for another host to release it */
};

bool owner_is_kept(const struct owner_options *opt, const struct dev *d); /* @opt may be NULL */

/* One host's hold on one image. */
struct ownership;

/* NULL when memory is short.  *@opt is copied. */
struct ownership *owner_new(const struct owner_options *opt);
void owner_free(struct ownership *o); /* writes nothing; NULL is fine */

/* Whether an image may be made on @d, which may hold another: 0, or reported.  Writes nothing. */
int owner_may_take(const struct owner_options *opt, struct dev *d);

/* Waits until no other host owns it, @wait_ms at most; owner_take() tells whether one does.  0, or
 * an I/O error. */
int owner_wait(struct ownership *o, struct dev *d, const uint8_t uuid[UUID_SIZE], unsigned wait_ms);
/* Takes the image @uuid on @d: when this returns 0 the claim is on the medium, and what is read
 * from here on holds all that any former owner has acknowledged.  -EBUSY: another host owns it, or
 * takes it at the same time.  @anew: an image is about to be made there, so damaged records may be
 * what else has been there.  From here on the device's witness is the records'. */
int owner_take(struct ownership *o, struct dev *d, const uint8_t uuid[UUID_SIZE], bool anew);
/* Whether both records still are what we know: 0, -EBUSY when they are not (not reported), or an
 * I/O error.  Takes no memory.  0 at once when it is not held. */
int owner_check(struct ownership *o);
/* From here on no directory of an earlier epoch counts, whoever writes it: one that is ours lies in
 * each place.  Errors as of owner_check(), and of writing. */
int owner_raise_floor(struct ownership *o);
/* A dev_witness_fn: as owner_check(). */
int owner_witness(void *o, struct dev *d);
/* Checks, and lets other hosts take it without a takeover.  Whatever it returns it is not held any
 * more.  0 at once when it is not held. */
int owner_release(struct ownership *o);
/* It is lost, or nothing more may be written: it is not held any more, and the record stays. */
void owner_abandon(struct ownership *o);

bool owner_is_held(const struct ownership *o); /* NULL: false */
/* The last record that we have written. */
const struct owner_record *owner_mine(const struct ownership *o);
/* Who had it before us had not released it. */
bool owner_was_owned(const struct ownership *o);
/* Whether that one may still be writing, since it was another host or nobody knows which, and is
 * not known to be fenced; @before: or one before it. */
bool owner_must_guard(const struct ownership *o, bool before);

#endif
