/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/varstore.h"
#include "base/bytes.h"
#include <errno.h>
#include <string.h>

/* The firmware volume's header (UEFI Platform Initialization specification, volume 3). */
enum {
    FV_GUID = 16,
    FV_LENGTH = 32,
    FV_MAGIC = 40,
    FV_HEADER_LENGTH = 48,
    FV_REVISION = 55,
    FV_LEAST = 56,
};
/* The variable store behind it, and a variable in it, as EDK II writes them. */
enum {
    VS_SIZE = 16,
    VS_FORMAT = 20,
    VS_STATE = 21,
    VS_HEADER = 28,
    VS_FORMATTED = 0x5a,
    VS_HEALTHY = 0xfe,
    VAR_START = 0x55aa,
    VAR_STATE = 2,
    VAR_ADDED = 0x3f,         /* bits are cleared as it changes: */
    VAR_TO_BE_DELETED = 0x3e, /* while its successor is written */
    VAR_HEADER = 32,
    VAR_AUTH_HEADER = 60,
};

/* GUIDs as they lie there. */
static const uint8_t volume_guid[16] = {0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c,
                                        0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50};
static const uint8_t store_guid[16] = {0x16, 0x36, 0xcf, 0xdd, 0x75, 0x32, 0x64, 0x41,
                                       0x98, 0xb6, 0xfe, 0x85, 0x70, 0x7f, 0xfe, 0x7d};
static const uint8_t auth_store_guid[16] = {0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43,
                                            0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92};

static bool
sums_to_zero(const uint8_t *buf, size_t len)
{
    uint16_t sum = 0;

    for (size_t i = 0; i + 1 < len; i += 2)
        sum = (uint16_t)(sum + load_le16(buf + i));
    return sum == 0 && len % 2 == 0;
}

/* Walks the variables of the store of @len bytes at @buf. */
static void
count(struct varstore *v, const uint8_t *buf, size_t len)
{
    const size_t head = v->authenticated ? VAR_AUTH_HEADER : VAR_HEADER;
    const size_t lengths = v->authenticated ? 36 : 8;
    size_t off = VS_HEADER;

    while (off <= len && len - off >= head && load_le16(buf + off) == VAR_START) {
        uint64_t n =
            head + (uint64_t)load_le32(buf + off + lengths) + load_le32(buf + off + lengths + 4);
        uint8_t state = buf[off + VAR_STATE];

        if (n > len - off)
            return;
        v->variables += state == VAR_ADDED || state == VAR_TO_BE_DELETED;
        v->deleted += state != VAR_ADDED && state != VAR_TO_BE_DELETED;
        off += (size_t)((n + 3) & ~UINT64_C(3));
        v->used = (uint32_t)(off < len ? off : len);
    }
    v->whole = len - v->used < 2 || load_le16(buf + v->used) == 0xffff;
}

int
varstore_read(struct varstore *v, const uint8_t *buf, size_t len)
{
    struct varstore found = {0};
    size_t head;

    if (len < FV_LEAST || memcmp(buf + FV_MAGIC, "_FVH", 4) != 0 ||
        memcmp(buf + FV_GUID, volume_guid, 16) != 0)
        return -ENODATA;
    found.volume = load_le64(buf + FV_LENGTH);
    found.revision = buf[FV_REVISION];
    head = load_le16(buf + FV_HEADER_LENGTH);
    if (head < FV_LEAST || head > len || !sums_to_zero(buf, head) || found.volume > len ||
        found.volume < head || found.volume - head < VS_HEADER)
        return -EUCLEAN;
    buf += head;
    found.authenticated = memcmp(buf, auth_store_guid, 16) == 0;
    if (!found.authenticated && memcmp(buf, store_guid, 16) != 0)
        return -ENODATA;
    found.size = load_le32(buf + VS_SIZE);
    if (found.size < VS_HEADER || found.size > found.volume - head ||
        buf[VS_FORMAT] != VS_FORMATTED || buf[VS_STATE] != VS_HEALTHY)
        return -EUCLEAN;
    found.used = VS_HEADER;
    count(&found, buf, found.size);
    *v = found;
    return 0;
}
