/* SPDX-License-Identifier: BSD-3-Clause */
/* report.h - the one way to tell a person something: stderr, or the journal's levels of a daemon.
 *
 * Report once, where the facts are known; callers pass the number on.  Never report a secret.
 * Thread-safe: each report is one write(2) of one line.  Control characters in it become \xNN, and
 * of a text of more than a thousand bytes the middle is left out. */
#ifndef VNVRAM_BASE_REPORT_H
#define VNVRAM_BASE_REPORT_H

#include <stdbool.h>
#include <stddef.h>

enum report_level {
    REPORT_ERROR = 3,
    REPORT_WARNING = 4,
    REPORT_NOTICE = 5,
    REPORT_INFO = 6,
    REPORT_DEBUG = 7
};

/* Where reports go.  The default sink writes "vnvram: TEXT\n" to stderr; with
 * report_use_levels(true) (a daemon under systemd) the line starts with "<N>" instead, which
 * journald reads as a priority. */
typedef void report_sink(void *arg, enum report_level level, const char *line);
void report_set_sink(report_sink *sink, void *arg); /* NULL: back to stderr; for tests */
void report_use_levels(bool on);
void report_set_prefix(const char *prefix); /* a literal, e.g. "mount.vnvram"; default "vnvram" */

/* Both return @r, so that "return report(r, ...)" reads well.  report() is an error.  It does not
 * append strerror(@r): say it where it helps, with errno_text().
 */
int report(int r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int report_at(enum report_level level, int r, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As reports show it: a name may hold any byte, but stays on one line and does nothing to the
 * terminal.  What goes past @size (at least 5) is left out. */
void report_escape(char *text, size_t size, const char *raw);

/* strerror() of a negative errno, thread-safe, for the calling thread until its next call. */
const char *errno_text(int r);

#endif
