/* SPDX-License-Identifier: BSD-3-Clause */
#include "fs/json.h"
#include "base/utf8.h"
#include <inttypes.h>
#include <string.h>
#include <time.h>

void
json_put_string(FILE *out, const char *text)
{
    if (!text) {
        fputs("null", out);
        return;
    }
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        size_t n = utf8_length(p);

        if (*p == '"' || *p == '\\')
            fprintf(out, "\\%c", *p);
        else if (*p < 0x20 || *p == 0x7f)
            fprintf(out, "\\u%04x", *p);
        else if (n)
            fwrite(p, 1, n, out);
        else
            fputs("\\ufffd", out);
        p += n ? n : 1;
    }
    fputc('"', out);
}

static void
put_name(FILE *out, const char *name)
{
    fputs(",\n  ", out);
    json_put_string(out, name);
    fputs(": ", out);
}

void
json_member_string(FILE *out, const char *name, const char *text)
{
    put_name(out, name);
    json_put_string(out, text);
}

void
json_member_number(FILE *out, const char *name, uint64_t n)
{
    put_name(out, name);
    fprintf(out, "%" PRIu64, n);
}

void
json_member_bool(FILE *out, const char *name, bool on)
{
    put_name(out, name);
    fputs(on ? "true" : "false", out);
}

void
json_member_time(FILE *out, const char *name, int64_t seconds)
{
    time_t t = (time_t)seconds;
    struct tm tm;
    char text[64] = "";

    if (gmtime_r(&t, &tm))
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_member_string(out, name, *text ? text : NULL);
}
