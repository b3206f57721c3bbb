/* SPDX-License-Identifier: BSD-3-Clause */
/* sealed.h - the sealer of a sealed image: AES-CBC, then HMAC-SHA-256, each with its own key. */
#ifndef VNVRAM_CRYPT_SEALED_H
#define VNVRAM_CRYPT_SEALED_H

#include "core/format.h"
#include "core/sealer.h"
#include "crypt/secret.h"

enum { VOLUME_KEY_SIZE = 32 };

/* Derives the keys of an image of @uuid and @key_epoch from its volume key; @key_size is that of
 * the cipher.  Keeps nothing of @volume_key. */
int sealer_sealed_new(struct sealer **out, const struct secret *volume_key,
                      const uint8_t uuid[UUID_SIZE], uint32_t key_epoch, size_t key_size);

#endif
