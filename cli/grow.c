/* SPDX-License-Identifier: BSD-3-Clause */
/* vnvram grow: more slots for an image that nobody has open. */
#include "base/finding.h"
#include "base/report.h"
#include "base/scope.h"
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/openimage.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/* How large the image must be; explains what cannot be. */
static int
grown_size(const struct open_image *image, const struct options *o, uint64_t *size)
{
    AUTO_FREE struct superblock *sb = malloc(sizeof *sb);
    int r;

    if (!sb)
        return report(-ENOMEM, "out of memory");
    *sb = *store_superblock(image->store);
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
    AUTO(image_close) struct open_image image = {0};
    struct store_info before, after;
    char added[SIZE_TEXT], text[SIZE_TEXT];
    uint64_t size = 0;
    uint32_t n;
    int r = image_open_to_change(&image, o, o->args[0]);

    if (r < 0)
        return image_advise(o->args[0], r);
    store_get_info(image.store, &before);
    r = grown_size(&image, o, &size);
    if (r == 0)
        r = image.dev->size >= size ? 0 : dev_file_resize(image.dev, size);
    if (r == 0)
        r = store_grow(image.store, o->classes, o->n_classes);
    if (r < 0)
        return finding_exit_code(r);
    store_get_info(image.store, &after);
    n = after.slots_total - before.slots_total;
    printf("%s: %" PRIu32 " slot%s added, for %s more: %" PRIu32 " slots in %s\n", o->args[0], n,
           n == 1 ? "" : "s", size_text(added, after.bytes_total - before.bytes_total),
           after.slots_total, size_text(text, after.image_size));
    return EXIT_DONE;
}

int
cmd_grow(struct options *o)
{
    if (o->n_classes == 0) {
        report(-EINVAL, "grow: give the slots to add with --slots, such as --slots 2x640K");
        return EXIT_USAGE;
    }
    return grow(o);
}
