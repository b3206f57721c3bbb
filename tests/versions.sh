#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Each place that names the version names the same one, and each that lists libraries lists the same.
. "${srcdir:-.}/tests/lib.sh"
version=$("$VNVRAM" --version | cut -d' ' -f2)
matches "a version is three numbers" <(echo "$version") '^[0-9]+\.[0-9]+\.[0-9]+$'
is "CHANGES begins with it" "$(sed -n '1s/ .*//p' "$srcdir/CHANGES")" "$version"
is "so does Debian's changelog" "$(sed -n '1s/^vnvram (\(.*\)) .*/\1/p' "$srcdir/debian/changelog")" "$version"
is "and the man pages tell it" "$(grep -c "\"vnvram $version\"" doc/vnvram.1)" 1
libraries() { # FILE: the -dev packages that it names
    grep -oE '\blib[a-z0-9.+-]*-dev\b' "$1" | grep -vE '^(libc6|libclang-rt-.*)-dev$' | sort -u
}
is "Debian's package is built with what install-deps installs" "$(libraries "$srcdir/debian/control")" \
    "$(libraries "$srcdir/scripts/install-deps")"
finish
