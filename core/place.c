/* SPDX-License-Identifier: BSD-3-Clause */
/* place.c - directories into their places.
 *
 * A commit changes a block or two of a directory that may have dozens; the others lie in its place
 * already, since the commit before the last.  They are not written again.  A crash leaves the same
 * states as if they were: the first block, with generation and tag, changes each time, and what
 * lies there was flushed.
 *
 * That is as good as what is known of the place.  Known is only what this store has written there
 * itself, and only where nobody else can have been there since: writing all of it would heal the
 * place, writing half of it would make a directory that verifies never.
 *
 * The medium itself may change what lies there, too.  So a directory that settles the image is
 * written whole, and after it each place once more. */
#include "base/scope.h"
#include "core/store_impl.h"
#include <string.h>

void
places_forget(struct store *s)
{
    for (int i = 0; i < 2; i++) {
        free(s->places[i].bytes);
        s->places[i] = (struct place){0};
    }
}

void
places_rest(struct store *s)
{
    s->places[0].rested = s->places[1].rested = true;
}

static bool
is_there(const struct place *p, const uint8_t *buf, uint64_t off)
{
    return off < p->len && memcmp(p->bytes + off, buf + off, BLOCK_SIZE) == 0;
}

static int
write_changed(struct dev *d, const struct place *was, const uint8_t *buf, uint64_t len, uint64_t at)
{
    uint64_t off = 0;

    while (off < len) {
        uint64_t end = off;
        int r;

        while (end < len && !is_there(was, buf, end))
            end += BLOCK_SIZE;
        r = end > off ? dev_submit(d, buf + off, end - off, at + off) : 0;
        if (r < 0)
            return r;
        off = end + BLOCK_SIZE; /* what lies at @end is there, or nothing is */
    }
    return 0;
}

/* The bytes of the directory that counts, if they are known. */
static const uint8_t *
committed_bytes(const struct store *s)
{
    const uint8_t *bytes = s->places[s->dir.index].bytes;

    return bytes && memcmp(bytes + DIRECTORY_TAG, s->dir.digest, SEAL_TAG_SIZE) == 0 ? bytes : NULL;
}

int
place_write(struct store *s, struct directory *next)
{
    struct place *to = &s->places[next->index];
    const struct place nothing = {0};
    const struct place *was = s->dev->sole && !s->own && !to->rested ? to : &nothing;
    AUTO_FREE uint8_t *buf = NULL;
    uint64_t len;
    int r = directory_seal(s->sealer, &s->sb, next, committed_bytes(s), &buf, &len);

    if (r < 0)
        return r;
    r = write_changed(s->dev, was, buf, len, s->sb.dir_off[next->index]);
    if (r < 0)
        (void)dev_wait(s->dev); /* for part of it */
    free(to->bytes);
    *to = (struct place){.bytes = r < 0 ? NULL : steal(&buf), .len = r < 0 ? 0 : len};
    return r;
}
