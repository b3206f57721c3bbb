#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Every header compiles alone.
. "${srcdir:-.}/tests/lib.sh"

for header in "$srcdir"/{base,core,crypt,fs,tpm,cli}/*.h; do
    # shellcheck disable=SC2086 # flags are to be split
    check "${header#"$srcdir"/} compiles alone" \
        $CC $TEST_CFLAGS -fsyntax-only -include config.h -x c "$header"
done
finish
