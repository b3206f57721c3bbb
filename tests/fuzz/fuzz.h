/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz.h - what each target has: libFuzzer's two entry points.  scripts/fuzz links a target with
 * libFuzzer; make check links it with replay.c, which feeds it the seeds. */
#ifndef VNVRAM_TESTS_FUZZ_H
#define VNVRAM_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Holds in every build: what is found must not be optimised away. */
#define MUST(what)                                                                                 \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
