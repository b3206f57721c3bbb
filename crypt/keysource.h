/* SPDX-License-Identifier: BSD-3-Clause */
/* keysource.h - reads a key from a file, a descriptor, an option or the terminal, and says exactly
 * what is wrong with it, without ever showing any of it. */
#ifndef VNVRAM_CRYPT_KEYSOURCE_H
#define VNVRAM_CRYPT_KEYSOURCE_H

#include "crypt/keys.h"
#include "crypt/secret.h"

enum { PASSPHRASE_MAX = 1024 };

/* Reads what @opt tells of.  A raw key is 16, 24 or 32 bytes, a passphrase 1 to PASSPHRASE_MAX.
 * -EINVAL, -ENOKEY or an I/O error, reported. */
int keysource_read(struct key_options *opt, bool is_new, struct secret **key);

/* The translations from what a file holds, named @what in reports. */
int keysource_parse_hex(struct secret **key, const struct secret *text, const char *what);
int keysource_parse_binary(struct secret **key, const struct secret *text, const char *what);
int keysource_parse_passphrase(struct secret **key, const struct secret *text, const char *what);

/* All of a file or a descriptor, straight into secure memory; called @what in reports.  Warns of a
 * file that is open to others; closes the descriptor, unless it is a standard one.  -EINVAL when it
 * holds more than @most bytes, or an I/O error: reported. */
int keysource_read_file(const char *path, const char *what, size_t most, struct secret **text);
int keysource_read_fd(int fd, const char *what, size_t most, struct secret **text);

/* Asks on the terminal (/dev/tty) without echo; the terminal is as before when it returns,
 * whichever signal comes. */
int terminal_ask(const char *prompt, struct secret **answer);

#endif
