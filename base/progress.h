/* SPDX-License-Identifier: BSD-3-Clause */
/* progress.h - one line on stderr for a person who waits: what takes so long, and how far it is.
 *
 * Shown half a second after the beginning, so never for what is quick, and only where
 * progress_show() said so; else nothing here does anything.  On a terminal the line is written over
 * itself and vanishes at the end or before a report; elsewhere (--progress into a log) it is a new
 * line every second.  One thing at a time: what begins within another is part of it. */
#ifndef VNVRAM_BASE_PROGRESS_H
#define VNVRAM_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* Before there are threads.  A daemon turns it off before it gives its rights up. */
void progress_show(bool on);

/* @what is static text, such as "resealing"; @total: of whatever progress_add() counts, 0 when
 * nobody can tell. */
void progress_begin(const char *what, uint64_t total);
void progress_add(uint64_t n);
void progress_end(void);

/* From here to the end of the block: AUTO_PROGRESS bool shown = progress_started(...); */
#define AUTO_PROGRESS __attribute__((cleanup(progress_endp), unused))
bool progress_started(const char *what, uint64_t total);
void progress_endp(bool *started);

/* Takes the line off the terminal, because something else is about to be written there. */
void progress_hide(void);

#endif
