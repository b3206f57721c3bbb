/* SPDX-License-Identifier: BSD-3-Clause */
/* A UEFI variable store as it is looked at. */
#include "cli/varstore.h"
#include "tests/fuzz/fuzz.h"
#include <errno.h>

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct varstore v;
    int r = varstore_read(&v, data, size);

    MUST(r == 0 || r == -ENODATA || r == -EUCLEAN);
    MUST(r < 0 || (v.used <= v.size && v.size <= v.volume && v.volume <= size));
    return 0;
}
