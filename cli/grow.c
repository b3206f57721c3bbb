/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram grow: more slots for an image that nobody has open. */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/anchor.h"
#include "cli/cli.h"
#include "cli/image.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/* An image opened to be changed. */
struct grown {
    struct anchor *anchor; /* NULL: none */
    struct store *store;
    struct dev *dev; /* until the store owns it */
};

static void
grown_close(struct grown *g)
{
    store_close(g->store);
    anchor_close(g->anchor);
    dev_close(g->dev);
}

/* The key is read, and asked for, before the image is held. */
static int
open_image(struct grown *g, struct options *o, struct dev **d)
{
    struct store_options opt = {.unlock = keys_unlock, .unlock_arg = &o->key};
    int r = keys_read(&o->key, false);

    if (r == 0)
        r = dev_open(&g->dev, o->args[0], 0, &o->dev);
    if (r == 0)
        r = anchor_from_options(&g->anchor, o, false);
    opt.anchor = g->anchor;
    if (r == 0)
        r = store_open(&g->store, g->dev, &opt);
    if (r < 0)
        return r;
    *d = steal(&g->dev);
    return 0;
}

/* How large the image must be; explains what cannot be. */
static int
grown_size(const struct grown *g, const struct options *o, uint64_t *size)
{
    AUTO_FREE struct superblock *sb = malloc(sizeof *sb);
    int r;

    if (!sb)
        return report(-ENOMEM, "out of memory");
    *sb = *store_superblock(g->store);
    r = store_layout_grown(sb, o->classes, o->n_classes);
    *size = sb->image_size;
    if (r == -ENOSPC)
        return report(
            r,
            "%s: an image has at most %d classes of slots and %d slots: give fewer, larger "
            "ones, or \"vnvram clone\" it into a new image",
            o->args[0], MAX_SEGMENTS, MAX_SLOTS);
    return r < 0 ? report(r, "%s: such slots cannot be added", o->args[0]) : 0;
}

static int
grow(struct options *o)
{
    AUTO(grown_close) struct grown g = {0};
    struct store_info before, after;
    char added[SIZE_TEXT], text[SIZE_TEXT];
    struct dev *d = NULL;
    uint64_t size = 0;
    int r = open_image(&g, o, &d);

    if (r < 0)
        return r;
    store_get_info(g.store, &before);
    r = grown_size(&g, o, &size);
    if (r == 0)
        r = d->size >= size ? 0 : dev_file_resize(d, size);
    if (r == 0)
        r = store_grow(g.store, o->classes, o->n_classes);
    if (r < 0)
        return r;
    store_get_info(g.store, &after);
    printf("%s: %" PRIu32 " slots added, for %s more: %" PRIu32 " slots in %s\n", o->args[0],
           after.slots_total - before.slots_total,
           size_text(added, after.bytes_total - before.bytes_total), after.slots_total,
           size_text(text, after.image_size));
    return 0;
}

int
cmd_grow(struct options *o)
{
    if (o->n_classes == 0) {
        report(-EINVAL, "grow: give the slots to add with --slots, such as --slots 2x640K");
        return EXIT_USAGE;
    }
    return image_advise(o->args[0], grow(o));
}
