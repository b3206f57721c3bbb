/* SPDX-License-Identifier: BSD-3-Clause */
/* The header of swtpm's linear file: the size of the file in four bytes, then what it starts with.
 */
#include "base/bytes.h"
#include "base/report.h"
#include "swtpm/linear.h"
#include "tests/fuzz/fuzz.h"
#include <errno.h>
#include <string.h>

static void
silent(void *arg, enum report_level level, const char *line)
{
    (void)arg, (void)level, (void)line;
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    report_set_sink(silent, NULL);
    return 0;
}

/* Whatever is accepted can be read within the file, and laid out again. */
static void
check_accepted(const struct swtpm_linear *l, uint64_t file)
{
    struct swtpm_linear mine = *l, again;
    uint8_t head[SWTPM_LINEAR_HEADER];
    uint64_t size, used = 0;

    for (unsigned i = 0; i < SWTPM_ITEMS; i++) {
        if (l->items[i].off == 0)
            continue;
        MUST(l->items[i].len > 0 && l->items[i].off >= SWTPM_LINEAR_HEADER);
        MUST(l->items[i].off <= file && l->items[i].len <= file - l->items[i].off);
        used++;
    }
    MUST(used > 0);
    size = swtpm_linear_layout(&mine);
    if (size == 0)
        return;
    swtpm_linear_encode(&mine, head);
    MUST(swtpm_linear_decode(&again, head, sizeof head, size, "file") == 0);
    MUST(memcmp(&again, &mine, sizeof mine) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct swtpm_linear l;
    uint64_t file;
    size_t len;
    int r;

    if (size < 4)
        return 0;
    file = load_le32(data);
    len = size - 4 < SWTPM_LINEAR_HEADER ? size - 4 : SWTPM_LINEAR_HEADER;
    r = swtpm_linear_decode(&l, data + 4, len, file, "file");
    MUST(r == 0 || r == -ENODATA || r == -EMEDIUMTYPE || r == -ERANGE || r == -EUCLEAN ||
         r == -EPROTONOSUPPORT);
    if (r == 0)
        check_accepted(&l, file);
    return 0;
}
