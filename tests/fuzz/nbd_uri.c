/* SPDX-License-Identifier: BSD-3-Clause */
/* Where an image is, when that is an NBD server's: a name that stands in fstab, or in another's
 * mount. */
#include "core/nbd_uri.h"
#include "base/report.h"
#include "base/scope.h"
#include "tests/fuzz/fuzz.h"
#include <errno.h>
#include <string.h>

static void
swallow(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level;
    MUST(*line);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    report_set_sink(swallow, NULL);
    return 0;
}

static void
must_make_sense(const struct nbd_uri *u)
{
    MUST(u->export);
    MUST(!u->socket == (u->host && u->port)); /* the one or the other */
    MUST(!u->socket || *u->socket == '/');
    MUST(!u->psk_file || *u->psk_file == '/');
    MUST(!u->certificates || *u->certificates == '/');
    MUST(u->tls == (u->psk_file || u->certificates)); /* a peer that nobody proves is none */
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_FREE char *text = strndup((const char *)data, size), *one = NULL, *two = NULL;
    AUTO(nbd_uri_fini) struct nbd_uri u = {0}, again = {0};
    int r = text ? nbd_uri_parse(&u, text) : -ENOMEM;

    if (r < 0) {
        MUST(r == -EINVAL || r == -ENOMEM);
        return 0;
    }
    MUST(nbd_uri_is_one(text));
    must_make_sense(&u);
    one = nbd_uri_text(&u);
    MUST(one && nbd_uri_is_one(one));
    MUST(nbd_uri_parse(&again, one) == 0);
    must_make_sense(&again);
    two = nbd_uri_text(&again);
    MUST(two && strcmp(one, two) == 0); /* there is one spelling */
    return 0;
}
