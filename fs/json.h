/* SPDX-License-Identifier: BSD-3-Clause */
/* json.h - writes the members of .vnvram/status.
 *
 * Each function writes one member with a comma in front of it: the object's brace and its first
 * member are the caller's. */
#ifndef VNVRAM_FS_JSON_H
#define VNVRAM_FS_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* @text as a JSON string; bytes that are no UTF-8 become U+FFFD.  NULL is written as null. */
void json_put_string(FILE *out, const char *text);

void json_member_string(FILE *out, const char *name, const char *text);
void json_member_number(FILE *out, const char *name, uint64_t n);
void json_member_bool(FILE *out, const char *name, bool on);
void json_member_time(FILE *out, const char *name, int64_t seconds); /* RFC 3339, UTC */

#endif
