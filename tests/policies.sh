#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# What contrib/ adds to others' policies compiles.
. "${srcdir:-.}/tests/lib.sh"
need apparmor_parser checkmodule

profile() { # FILE: it in a profile, as its distribution includes it
    echo 'abi <abi/3.0>,'
    echo 'include <tunables/global>'
    echo 'profile test /usr/bin/test {'
    cat "$1"
    echo '}'
}

for file in "$srcdir"/contrib/apparmor/*; do
    profile "$file" >"$TMP/profile"
    check "AppArmor takes ${file##*/}" apparmor_parser --skip-kernel-load --skip-cache "$TMP/profile"
    echo nonsense >>"$TMP/profile"
    check_exit 1 "... and would not take nonsense" apparmor_parser --skip-kernel-load --skip-cache "$TMP/profile"
done
for file in "$srcdir"/contrib/selinux/*.te; do
    name=$(basename "$file" .te)
    check "SELinux takes $name" checkmodule -M -m -o "$TMP/$name.mod" "$file"
done
finish
