/* SPDX-License-Identifier: BSD-3-Clause */
#include "swtpm/linear.h"
#include "base/bytes.h"
#include "base/report.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { VERSION = 1, ENTRIES = 15, ENTRY_SIZE = 12, MAGIC_SIZE = 8 };
enum { OFF_MAGIC = 0, OFF_VERSION = 8, OFF_ZERO = 9, OFF_HEADER_SIZE = 10, OFF_ENTRIES = 12 };
static_assert(OFF_ENTRIES + ENTRIES * ENTRY_SIZE == (int)SWTPM_LINEAR_HEADER,
              "the entries fill the header");

static const uint8_t magic[MAGIC_SIZE] = {'n', 'i', 'l', 'm', 'p', 't', 'w', 's'};

bool
swtpm_linear_probe(const uint8_t *buf, size_t len)
{
    return len >= MAGIC_SIZE && memcmp(buf, magic, MAGIC_SIZE) == 0;
}

static int
check_head(const uint8_t *buf, size_t len, const char *name)
{
    if (len > 0 && bytes_are_zero(buf, len))
        return report(-ENODATA, "%s: is blank: no swtpm has written to it", name);
    if (!swtpm_linear_probe(buf, len))
        return report(-EMEDIUMTYPE, "%s: is no linear file of swtpm", name);
    if (len < SWTPM_LINEAR_HEADER)
        return report(-ERANGE, "%s: is truncated: %zu bytes of a header of %d", name, len,
                      SWTPM_LINEAR_HEADER);
    if (buf[OFF_VERSION] != VERSION)
        return report(buf[OFF_VERSION] == 0 ? -EUCLEAN : -EPROTONOSUPPORT,
                      "%s: a linear file of version %u; %d is supported", name, buf[OFF_VERSION],
                      VERSION);
    if (load_le16(buf + OFF_HEADER_SIZE) != SWTPM_LINEAR_HEADER || buf[OFF_ZERO] != 0)
        return report(-EUCLEAN, "%s: its header is damaged: a size of %u bytes", name,
                      load_le16(buf + OFF_HEADER_SIZE));
    return 0;
}

static int
check_item(const struct swtpm_linear *l, unsigned i, uint64_t size, const char *name)
{
    const uint64_t off = l->items[i].off, len = l->items[i].len, room = l->items[i].room;

    if (off == 0)
        return len == 0 && room == 0
                   ? 0
                   : report(-EUCLEAN, "%s: its header is damaged: item %u is nowhere", name, i);
    if (off < SWTPM_LINEAR_HEADER || len == 0 || len > room)
        return report(-EUCLEAN,
                      "%s: its header is damaged: item %u has %" PRIu64 " bytes in %" PRIu64
                      " at %" PRIu64,
                      name, i, len, room, off);
    for (unsigned k = 0; k < i; k++) {
        const uint64_t other = l->items[k].off;

        if (other != 0 && off < other + l->items[k].room && other < off + room)
            return report(-EUCLEAN, "%s: its header is damaged: items %u and %u overlap", name, k,
                          i);
    }
    if (off + len > size)
        return report(-ERANGE,
                      "%s: is truncated: item %u ends at %" PRIu64 ", the file at %" PRIu64, name,
                      i, off + len, size);
    return 0;
}

int
swtpm_linear_decode(struct swtpm_linear *l, const uint8_t *buf, size_t len, uint64_t size,
                    const char *name)
{
    struct swtpm_linear found = {0};
    bool any = false;
    int r = check_head(buf, len, name);

    if (r < 0)
        return r;
    for (unsigned i = 0; i < SWTPM_ITEMS; i++) {
        const uint8_t *entry = buf + OFF_ENTRIES + i * ENTRY_SIZE;

        found.items[i].off = load_le32(entry);
        found.items[i].len = load_le32(entry + 4);
        found.items[i].room = load_le32(entry + 8);
        r = check_item(&found, i, size, name);
        if (r < 0)
            return r;
        any |= found.items[i].off != 0;
    }
    if (!bytes_are_zero(buf + OFF_ENTRIES + SWTPM_ITEMS * ENTRY_SIZE,
                        (ENTRIES - SWTPM_ITEMS) * ENTRY_SIZE))
        return report(-EPROTONOSUPPORT, "%s: holds more than the states of one TPM", name);
    if (!any)
        return report(-ENODATA, "%s: is blank: holds no state", name);
    *l = found;
    return 0;
}

static uint64_t
power_of_two(uint32_t least)
{
    uint64_t n = 1;

    while (n < least)
        n *= 2;
    return n;
}

uint64_t
swtpm_linear_layout(struct swtpm_linear *l)
{
    uint64_t end = SWTPM_LINEAR_HEADER;

    for (unsigned i = 0; i < SWTPM_ITEMS; i++) {
        const uint64_t room = l->items[i].len ? power_of_two(l->items[i].len) : 0;

        if (end + room > INT32_MAX)
            return 0;
        l->items[i].off = room ? (uint32_t)end : 0;
        l->items[i].room = (uint32_t)room;
        end += room;
    }
    return end;
}

void
swtpm_linear_encode(const struct swtpm_linear *l, uint8_t out[SWTPM_LINEAR_HEADER])
{
    memset(out, 0, SWTPM_LINEAR_HEADER);
    memcpy(out + OFF_MAGIC, magic, MAGIC_SIZE);
    out[OFF_VERSION] = VERSION;
    store_le16(out + OFF_HEADER_SIZE, SWTPM_LINEAR_HEADER);
    for (unsigned i = 0; i < SWTPM_ITEMS; i++) {
        uint8_t *entry = out + OFF_ENTRIES + i * ENTRY_SIZE;

        store_le32(entry, l->items[i].off);
        store_le32(entry + 4, l->items[i].len);
        store_le32(entry + 8, l->items[i].room);
    }
}
