/* SPDX-License-Identifier: BSD-3-Clause */
/* utf8.h - names of files are bytes; what we show of them must be text. */
#ifndef VNVRAM_BASE_UTF8_H
#define VNVRAM_BASE_UTF8_H

#include <stddef.h>

/* Bytes of the UTF-8 sequence at @p; 0 when it is none (overlong, surrogate, cut off). */
size_t utf8_length(const unsigned char *p);

/* A copy of @text in which bytes that are no UTF-8 are U+FFFD; free() it.  NULL when memory is
 * short. */
char *utf8_clean(const char *text);

#endif
