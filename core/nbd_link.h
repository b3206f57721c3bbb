/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_link.h - one connection to an NBD server, and single requests over it, each with a deadline
 * (clock_ms()).  Libnbd does the protocol; it is loaded when the first link is made, so that who
 * uses no NBD pays nothing for it.  Not thread-safe.
 *
 * Addresses are looked up once, in nbd_link_new(): what a link needs afterwards is a socket of one
 * family (and for TLS its files), and a sandbox can leave it just that. */
#ifndef VNVRAM_CORE_NBD_LINK_H
#define VNVRAM_CORE_NBD_LINK_H

#include "core/nbd_uri.h"
#include <stddef.h>
#include <stdint.h>

struct sandbox_connect;
struct nbd_link;

struct nbd_export {
    uint64_t size;
    bool read_only, flush, fua;
    uint32_t block, most; /* bytes: what requests are aligned to, and how long they may be */
};

/* @uri stays the caller's and outlives the link.  @name is for reports.  0 or reported. */
int nbd_link_new(struct nbd_link **out, const struct nbd_uri *uri, const char *name);
void nbd_link_free(struct nbd_link *l); /* hangs up; NULL is fine */

/* Connects anew, dropping what there was: 0, -ENOTCONN (nobody is there, or does not agree; see
 * nbd_link_error()), or -ENOMEM. */
int nbd_link_connect(struct nbd_link *l, struct nbd_export *e, int64_t deadline);
bool nbd_link_is_up(const struct nbd_link *l);
/* With a goodbye. */
void nbd_link_hang_up(struct nbd_link *l);
/* Without a goodbye: what is in flight may or may not be done. */
void nbd_link_drop(struct nbd_link *l);

/* 0; -ENOTCONN: the connection was lost, or the server is ending; -ETIMEDOUT: no answer, and the
 * connection is dropped; else what the server answered. */
int nbd_link_read(struct nbd_link *l, void *buf, size_t n, uint64_t off, int64_t deadline);
/* In two steps, so that several are on their way at once: @buf stays until nbd_link_finish() has
 * returned for *@cookie, or the connection is dropped. */
int nbd_link_send_write(struct nbd_link *l, const void *buf, size_t n, uint64_t off, bool fua,
                        uint64_t *cookie);
int nbd_link_finish(struct nbd_link *l, uint64_t cookie, int64_t deadline);
int nbd_link_flush(struct nbd_link *l, int64_t deadline);

/* Why the last call failed, in libnbd's or the kernel's words. */
const char *nbd_link_error(const struct nbd_link *l);
/* What connecting again takes. */
void nbd_link_sandbox(const struct nbd_link *l, struct sandbox_connect *c);
/* Others can listen: neither TLS nor this host alone. */
bool nbd_link_is_exposed(const struct nbd_link *l);

#endif
