/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/report.h"
#include "base/progress.h"
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_SIZE = 1024 };

static report_sink *sink;
static void *sink_arg;
static bool use_levels;
static const char *prefix = "vnvram";

void
report_set_sink(report_sink *s, void *arg)
{
    sink = s;
    sink_arg = arg;
}

void
report_use_levels(bool on)
{
    use_levels = on;
}

void
report_set_prefix(const char *p)
{
    prefix = p;
}

static void
to_stderr(enum report_level level, const char *text)
{
    char line[LINE_SIZE + 64];
    int n;

    progress_hide();
    if (use_levels)
        n = snprintf(line, sizeof line, "<%d>%s: %s\n", level, prefix, text);
    else
        n = snprintf(line, sizeof line, "%s: %s%s\n", prefix,
                     level == REPORT_WARNING ? "warning: " : "", text);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
        return; /* nobody is there to be told */
}

static int
vreport(enum report_level level, int r, const char *fmt, va_list ap)
{
    char text[LINE_SIZE];
    int saved = errno;

    vsnprintf(text, sizeof text, fmt, ap);
    if (sink)
        sink(sink_arg, level, text);
    else
        to_stderr(level, text);
    errno = saved;
    return r;
}

int
report(int r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vreport(REPORT_ERROR, r, fmt, ap);
    va_end(ap);
    return r;
}

int
report_at(enum report_level level, int r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vreport(level, r, fmt, ap);
    va_end(ap);
    return r;
}

const char *
errno_text(int r)
{
    static _Thread_local char buf[128];

    return strerror_r(r < 0 ? -r : r, buf, sizeof buf);
}
