/* SPDX-License-Identifier: BSD-3-Clause */
/* testseal.h - sealers for tests that seal a million images: no cryptography, but whatever a bit
 * changes, changes the tag. */
#ifndef VNVRAM_TESTS_TESTSEAL_H
#define VNVRAM_TESTS_TESTSEAL_H

#include "core/format.h"
#include "core/sealer.h"

struct sealer *testseal_plain(void); /* SEAL_NONE; static, freeing it is harmless */
/* Sealed as the store sees it: tags depend on @key and purpose, contents are scrambled by key and
 * IV. */
struct sealer *testseal_keyed(uint64_t key);

/* Key slots of an image with volume key @volume that opens with the user's key @user: both stand in
 * the clear in key slot 0. */
void testseal_keyslots(uint64_t volume, uint64_t user,
                       uint8_t keyslots[KEYSLOT_COUNT][KEYSLOT_SIZE]);
/* A store_unlock_fn; @arg is the user's key (const uint64_t *), or NULL for none. */
int testseal_unlock(void *arg, const struct superblock *sb, struct sealer **out);

#endif
