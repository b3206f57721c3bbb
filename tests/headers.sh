#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Every header compiles alone.
. "${srcdir:-.}/tests/lib.sh"

compiles() {
    # shellcheck disable=SC2086 # flags are to be split
    echo "#include \"$1\"" | $CC $TEST_CFLAGS -fsyntax-only -x c -
}

for header in "$srcdir"/{base,core,crypt,fs,swtpm,tpm,cli}/*.h; do
    check "${header#"$srcdir"/} compiles alone" compiles "${header#"$srcdir"/}"
done
finish
