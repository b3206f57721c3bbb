/* SPDX-License-Identifier: BSD-3-Clause */
/* Lines of /proc/self/mountinfo, in which names come from whoever may mount. */
#include "fs/mountinfo.h"
#include "tests/fuzz/fuzz.h"
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int memory;

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    memory = memfd_create("mountinfo", MFD_CLOEXEC);
    MUST(memory >= 0);
    return 0;
}

static int
look(void *arg, const struct mount_entry *m)
{
    size_t *bytes = arg;

    MUST(m->dir && m->type && m->source);
    *bytes += strlen(m->dir) + strlen(m->type) + strlen(m->source) + mount_entry_is_ours(m);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t bytes = 0;

    MUST(ftruncate(memory, 0) == 0 && pwrite(memory, data, size, 0) == (ssize_t)size);
    MUST(mountinfo_each_in(memory, look, &bytes) == 0);
    MUST(bytes <= 2 * size);
    return 0;
}
