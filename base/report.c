/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/report.h"
#include "base/progress.h"
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_SIZE = 1024, RAW_SIZE = 8192 };

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

/* What it is about stands at the beginning, what to do at the end: a long path loses its middle. */
static void
shorten(char *text)
{
    static const char gap[] = "...";
    const size_t kept = (LINE_SIZE - 4 - sizeof gap) / 2, len = strlen(text);

    if (len < LINE_SIZE - 4)
        return;
    memcpy(text + kept, gap, sizeof gap - 1);
    memmove(text + kept + sizeof gap - 1, text + len - kept, kept + 1);
}

/* Some terminals take U+0080 to U+009F, too, for what ESC and a letter say. */
static bool
is_c1(const char *text)
{
    return (unsigned char)text[0] == 0xc2 && ((unsigned char)text[1] & 0xe0) == 0x80;
}

void
report_escape(char *text, size_t size, const char *raw)
{
    bool second = false; /* byte of such a one */
    size_t n = 0;

    for (; *raw && n < size - 4; raw++) {
        unsigned char c = (unsigned char)*raw;
        bool first = is_c1(raw);

        if (c < 0x20 || c == 0x7f || first || second)
            n += (size_t)snprintf(text + n, size - n, "\\x%02x", c);
        else
            text[n++] = *raw;
        second = first;
    }
    text[n] = '\0';
}

static int
vreport(enum report_level level, int r, const char *fmt, va_list ap)
{
    char raw[RAW_SIZE], text[LINE_SIZE];
    int saved = errno;

    vsnprintf(raw, sizeof raw, fmt, ap);
    shorten(raw);
    report_escape(text, sizeof text, raw);
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
