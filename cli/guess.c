/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/guess.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { NEAR = 2, LONGEST = 40 };

void
guess_init(struct guess *g, const char *typed)
{
    typed += strspn(typed, "-");
    *g = (struct guess){.distance = NEAR + 1};
    snprintf(g->typed, sizeof g->typed, "%.*s", (int)strcspn(typed, "="), typed);
}

static int
folded(char c)
{
    return c == '-' ? '_' : tolower((unsigned char)c);
}

static size_t
least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How many letters are to be put in, left out or replaced, or swapped with their neighbour. */
static size_t
distance(const char *a, const char *b)
{
    size_t row[3][LONGEST + 1], m = strlen(a), n = strlen(b);

    if (m > LONGEST || n > LONGEST)
        return NEAR + 1;
    for (size_t j = 0; j <= n; j++)
        row[0][j] = j;
    for (size_t i = 1; i <= m; i++) {
        size_t *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];

        now[0] = i;
        for (size_t j = 1; j <= n; j++) {
            int ca = folded(a[i - 1]), cb = folded(b[j - 1]);

            now[j] = least(last[j - 1] + (ca != cb), least(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && ca == folded(b[j - 2]) && cb == folded(a[i - 2]))
                now[j] = least(now[j], before[j - 2] + 1);
        }
    }
    return row[m % 3][n];
}

void
guess_try(struct guess *g, const char *prefix, const char *name)
{
    size_t d = distance(g->typed, name);

    /* of a short name hardly anything would be left */
    if (2 * d >= strlen(name) || d > g->distance ||
        (d == g->distance && strlen(prefix) + strlen(name) <= strlen(g->best)))
        return;
    if (snprintf(g->best, sizeof g->best, "%s%s", prefix, name) < (int)sizeof g->best)
        g->distance = d;
    else
        *g->best = '\0';
}
