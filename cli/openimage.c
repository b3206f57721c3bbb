/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/openimage.h"
#include "cli/anchor.h"
#include "cli/owner.h"

static int
open_image(struct open_image *image, struct options *o, const char *path, bool read_only)
{
    struct store_options opt = {
        .read_only = read_only,
        .unlock = keys_unlock,
        .unlock_arg = &o->key,
        .owner = owner_from_options(o, path),
    };
    int r = keys_read(&o->key, false);

    if (r == 0)
        r = dev_open(&image->dev, path, read_only ? DEV_READ_ONLY | DEV_NO_LOCK : 0, &o->dev);
    if (r == 0)
        r = anchor_from_options(&image->anchor, o, read_only);
    opt.anchor = image->anchor;
    return r < 0 ? r : store_open(&image->store, image->dev, &opt);
}

int
image_open_to_change(struct open_image *image, struct options *o, const char *path)
{
    return open_image(image, o, path, false);
}

int
image_open_to_read(struct open_image *image, struct options *o, const char *path)
{
    return open_image(image, o, path, true);
}

void
image_close(struct open_image *image)
{
    if (image->store)
        store_close(image->store); /* and the device */
    else
        dev_close(image->dev);
    anchor_close(image->anchor);
    *image = (struct open_image){0};
}
