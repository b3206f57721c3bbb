/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_uri.h - where an NBD export is: the URIs of the NBD project's specification, less vsock.
 *
 *   nbd://HOST[:PORT]/EXPORT                         TCP; [ADDRESS] or [ADDRESS%25ZONE] for IPv6
 *   nbd+unix:///EXPORT?socket=PATH                   a Unix domain socket
 *   nbds://[USER@]HOST[:PORT]/EXPORT?tls-...=PATH    the same in TLS; nbds+unix likewise
 *
 * With nbds the peer is proven by tls-psk-file=PATH or by the CA in tls-certificates=DIRECTORY: one
 * of them must be there.  A parameter that is not known is an error. */
#ifndef VNVRAM_CORE_NBD_URI_H
#define VNVRAM_CORE_NBD_URI_H

#include <stdbool.h>

struct nbd_uri {
    bool tls;
    char *socket;      /* absolute; NULL: TCP */
    char *host, *port; /* TCP */
    char *export;      /* "": the server's default */
    char *user;        /* of TLS; NULL: none */
    char *psk_file;    /* absolute, or NULL */
    char *certificates;
};

/* Whether @name is meant as such a URI, well-formed or not, and so no path. */
bool nbd_uri_is_one(const char *name);
/* 0, -EINVAL (reported) or -ENOMEM.  Relative paths are taken from the working directory. */
int nbd_uri_parse(struct nbd_uri *u, const char *text);
void nbd_uri_fini(struct nbd_uri *u);
/* The one spelling of it.  free() it; NULL when memory is short. */
char *nbd_uri_text(const struct nbd_uri *u);
/* The one spelling of where the export is, as far as this host can tell: however it is reached, by
 * whom, in TLS or not.  No URI, and for comparing only.  free() it; NULL when memory is short. */
char *nbd_uri_place(const struct nbd_uri *u);

#endif
