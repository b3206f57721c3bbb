/* SPDX-License-Identifier: BSD-3-Clause */
/* guess.h - what somebody meant who mistyped the name of a command or of an option. */
#ifndef VNVRAM_CLI_GUESS_H
#define VNVRAM_CLI_GUESS_H

#include <stddef.h>

struct guess {
    char typed[48];  /* what counts of it */
    size_t distance; /* of the best one so far */
    char best[48];   /* "": nothing is near */
};

/* Reads "--allow-other" and "-o allow_other" alike: hyphens in front do not count, nor
 * does a value behind "="; others are underscores; letters have no case. */
void guess_init(struct guess *g, const char *typed);
/* Is it @name?  It would be shown with @prefix in front.  Of names that are as near as each other
 * the longest is taken: more often a letter is left out. */
void guess_try(struct guess *g, const char *prefix, const char *name);

#endif
