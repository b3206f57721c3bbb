#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Each place that names the version names the same one.
. "${srcdir:-.}/tests/lib.sh"
version=$("$VNVRAM" --version | cut -d' ' -f2)
matches "a version is three numbers" <(echo "$version") '^[0-9]+\.[0-9]+\.[0-9]+$'
is "CHANGES begins with it" "$(sed -n '1s/ .*//p' "$srcdir/CHANGES")" "$version"
is "so does Debian's changelog" "$(sed -n '1s/^vnvram (\(.*\)) .*/\1/p' "$srcdir/debian/changelog")" "$version"
is "and the man pages tell it" "$(grep -c "\"vnvram $version\"" doc/vnvram.1)" 1
finish
