/* SPDX-License-Identifier: BSD-3-Clause */
/* posix_run.h - runs a case written as a line of system calls in a directory, and tells what
 * differed.
 *
 * A case is steps parted by ';'.  A step is an operation, its words, and, when it must fail,
 * "=ERRNO":
 *
 *     create a 0644; as 1001 1001; chmod a 0600 =EPERM; as 0 0; is a mode 0644
 *
 * Names are relative to the directory; N* is a name of that many 'n' (255* is the longest). Content
 * words: plain text, C*COUNT repeats a character, '.' is a zero byte, '+' joins, '' is nothing:
 * ab+.*10+c. Descriptors are numbered 0 to 9 by the case.  The operations are the table at the end
 * of posix_run.c. */
#ifndef VNVRAM_TESTS_POSIX_RUN_H
#define VNVRAM_TESTS_POSIX_RUN_H

#include <stdbool.h>

/* Runs @steps in the current directory, from the state that run_reset() leaves.  True if all went
 * as told; else what went wrong is in run_why(). */
bool run_steps(const char *steps);
const char *run_why(void);
/* Notes what went wrong (printf-like); returns false.  For cases that are functions. */
bool run_differs(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Becomes root again, closes the case's descriptors, empties the directory and gives it back its
 * mode (0755), owner (the caller) and an umask of 022. */
void run_reset(void);
/* Files in the current directory, without "." and ".."; -1 on error. */
int run_count(void);

#endif
