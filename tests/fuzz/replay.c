/* SPDX-License-Identifier: BSD-3-Clause */
/* Feeds a fuzz target its seeds, and some thousand mutations of each, the same ones every time.
 *
 *   fuzz_NAME [FILE...]    default: the files in $srcdir/tests/fuzz/seeds/NAME */
#include "base/scope.h"
#include "tests/fuzz/fuzz.h"
#include <dirent.h>
#include <limits.h>
#include <string.h>

enum { INPUT_MAX = 1 << 16, ROUNDS = 1000, QUICK_ROUNDS = 50 };

static unsigned tests;
static uint64_t rng = 1;

static uint64_t
next_random(uint64_t below)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng % below;
}

static size_t
mutate(uint8_t *data, size_t len)
{
    for (uint64_t n = 1 + next_random(4); n > 0; n--) {
        size_t at = len ? next_random(len) : 0;

        switch (next_random(len ? 5 : 1)) {
        case 0: /* one byte more */
            if (len == INPUT_MAX)
                break;
            memmove(data + at + 1, data + at, len - at);
            data[at] = (uint8_t)next_random(256);
            len++;
            break;
        case 1: /* one less */
            memmove(data + at, data + at + 1, len - at - 1);
            len--;
            break;
        case 2:
            data[at] ^= (uint8_t)(1U << next_random(8));
            break;
        case 3:
            data[at] = (uint8_t)next_random(256);
            break;
        default: /* the ends of ranges */
            data[at] = (uint8_t)(next_random(2) ? 0xff : 0);
            break;
        }
    }
    return len;
}

static void
feed(const uint8_t *data, size_t len)
{
    AUTO_FREE uint8_t *exact = malloc(len ? len : 1); /* so that a read past the end shows */

    MUST(exact);
    memcpy(exact, data, len);
    LLVMFuzzerTestOneInput(exact, len);
}

static void
replay(const char *path, const char *name)
{
    static uint8_t seed[INPUT_MAX], data[INPUT_MAX];
    FILE *in = fopen(path, "rb");
    size_t len, rounds = getenv("VNVRAM_QUICK") ? QUICK_ROUNDS : ROUNDS;

    tests++;
    if (!in) {
        printf("not ok %u - %s: cannot be read\n", tests, name);
        return;
    }
    len = fread(seed, 1, sizeof seed, in);
    fclose(in);
    feed(seed, len);
    for (size_t i = 0; i < rounds; i++) {
        memcpy(data, seed, len);
        feed(data, mutate(data, len));
    }
    printf("ok %u - %s\n", tests, name);
}

static void
replay_directory(const char *dir)
{
    struct dirent **list;
    int n = scandir(dir, &list, NULL, alphasort);

    for (int i = 0; i < n; i++) {
        char path[PATH_MAX + 256];

        snprintf(path, sizeof path, "%s/%s", dir, list[i]->d_name);
        if (list[i]->d_name[0] != '.')
            replay(path, list[i]->d_name);
        free(list[i]);
    }
    if (n >= 0)
        free(list);
}

int
main(int argc, char **argv)
{
    const char *name = strstr(argv[0], "fuzz_"), *srcdir = getenv("srcdir");
    char dir[PATH_MAX];

    for (const char *last; name && (last = strstr(name + 1, "fuzz_"));)
        name = last;
    LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++)
        replay(argv[i], argv[i]);
    if (argc == 1 && name) {
        snprintf(dir, sizeof dir, "%s/tests/fuzz/seeds/%s", srcdir ? srcdir : ".",
                 name + strlen("fuzz_"));
        replay_directory(dir);
    }
    printf("1..%u\n", tests);
    return tests == 0;
}
