/* SPDX-License-Identifier: BSD-3-Clause */
/* dev_open.c - which device a name means. */
#include "base/report.h"
#include "core/dev.h"
#include "core/dev_nbd.h"
#include "core/nbd_uri.h"
#include <errno.h>
#include <stdlib.h>

bool
dev_is_path(const char *name)
{
    return !nbd_uri_is_one(name);
}

int
dev_open(struct dev **out, const char *name, unsigned flags, const struct dev_options *opt)
{
    static const struct dev_options defaults = DEV_OPTIONS_INIT;

    return dev_is_path(name) ? dev_file_open(out, name, flags)
                             : dev_nbd_open(out, name, flags, opt ? opt : &defaults);
}

char *
dev_real_name(const char *name)
{
    struct nbd_uri uri;
    char *text;

    if (dev_is_path(name)) {
        text = realpath(name, NULL);
        if (!text)
            report(-EIO, "%s: cannot open: %s", name, errno_text(-errno));
        return text;
    }
    if (nbd_uri_parse(&uri, name) < 0)
        return NULL;
    text = nbd_uri_text(&uri);
    nbd_uri_fini(&uri);
    if (!text)
        report(-ENOMEM, "%s: %s", name, errno_text(-ENOMEM));
    return text;
}
