/* SPDX-License-Identifier: BSD-3-Clause */
#include "crypt/keyslot.h"
#include "base/bytes.h"
#include "crypt/aes.h"
#include <errno.h>
#include <string.h>

enum {
    OFF_TYPE = 0,
    OFF_VERSION = 1,
    OFF_KEK_SIZE = 2,
    OFF_LANES = 3,
    OFF_MEMORY = 4,
    OFF_PASSES = 8,
    OFF_RESERVED_1 = 12,
    OFF_SALT = 16,
    OFF_WRAPPED = OFF_SALT + KEYSLOT_SALT,
    OFF_CREATED = OFF_WRAPPED + KEYSLOT_WRAPPED,
    OFF_RESERVED_2 = OFF_CREATED + 8,
    OFF_END = OFF_RESERVED_2 + 32,
};
_Static_assert((int)OFF_END == (int)KEYSLOT_SIZE, "the key slot's layout drifted from its size");

void
keyslot_encode(const struct keyslot *ks, uint8_t buf[KEYSLOT_SIZE])
{
    memset(buf, 0, KEYSLOT_SIZE);
    buf[OFF_TYPE] = (uint8_t)ks->type;
    buf[OFF_VERSION] = KEYSLOT_VERSION;
    buf[OFF_KEK_SIZE] = ks->kek_size;
    buf[OFF_LANES] = (uint8_t)ks->cost.lanes;
    store_le32(buf + OFF_MEMORY, ks->cost.memory);
    store_le32(buf + OFF_PASSES, ks->cost.passes);
    memcpy(buf + OFF_SALT, ks->salt, KEYSLOT_SALT);
    memcpy(buf + OFF_WRAPPED, ks->wrapped, KEYSLOT_WRAPPED);
    store_le64(buf + OFF_CREATED, (uint64_t)ks->created);
}

static int
check_cost(const struct keyslot *ks)
{
    if (ks->type == KEYSLOT_PASSPHRASE)
        return kdf_cost_ok(&ks->cost) ? 0 : -EPROTONOSUPPORT;
    return ks->cost.lanes || ks->cost.memory || ks->cost.passes ? -EUCLEAN : 0;
}

int
keyslot_decode(struct keyslot *ks, const uint8_t buf[KEYSLOT_SIZE])
{
    struct keyslot k = {.type = (enum keyslot_type)buf[OFF_TYPE]};
    int r;

    if (bytes_are_zero(buf, KEYSLOT_SIZE))
        return -ENODATA;
    if (k.type == KEYSLOT_FREE)
        return -EUCLEAN;
    if (k.type > KEYSLOT_RECOVERY || buf[OFF_VERSION] != KEYSLOT_VERSION)
        return -EPROTONOSUPPORT;
    k.kek_size = buf[OFF_KEK_SIZE];
    k.cost = (struct kdf_cost){.lanes = buf[OFF_LANES],
                               .memory = load_le32(buf + OFF_MEMORY),
                               .passes = load_le32(buf + OFF_PASSES)};
    memcpy(k.salt, buf + OFF_SALT, KEYSLOT_SALT);
    memcpy(k.wrapped, buf + OFF_WRAPPED, KEYSLOT_WRAPPED);
    k.created = (int64_t)load_le64(buf + OFF_CREATED);
    if (!aes_key_size_ok(k.kek_size) || !bytes_are_zero(buf + OFF_RESERVED_1, 4) ||
        !bytes_are_zero(buf + OFF_RESERVED_2, OFF_END - OFF_RESERVED_2) ||
        (k.type == KEYSLOT_RAW) != bytes_are_zero(k.salt, KEYSLOT_SALT))
        return -EUCLEAN;
    if ((r = check_cost(&k)) < 0)
        return r;
    *ks = k;
    return 0;
}

const char *
keyslot_type_name(enum keyslot_type type)
{
    static const char *const names[] = {"free", "raw key", "passphrase", "recovery key"};

    return type <= KEYSLOT_RECOVERY ? names[type] : "unknown";
}
