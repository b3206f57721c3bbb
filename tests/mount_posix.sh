#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What POSIX promises of a flat directory: the cases of posix_cases.c through a mount, before and after
# another mount of the image, and on the host's own file system, which must agree.
. "${srcdir:-$(dirname "$0")/..}/tests/lib.sh"
need_root
need_fuse
need jq

cases=$(dirname "$VNVRAM")/tests/posix_cases
image=$TMP/image
mnt=$TMP/mnt

# Takes over the results that a program wrote to FILE.
results() {
    local word rest
    while read -r word rest; do
        case $word in
        ok) pass "${rest#*- }" ;;
        not) fail "${rest#*- }" ;;
        '#') echo "# $rest" ;;
        esac
    done <"$1"
    is "$2: all cases ran" "$(tail -n 1 "$1")" "1..$(grep -cE '^(not )?ok' "$1")"
}

mkdir "$TMP/reference"
check "the host's file system agrees with the cases" "$cases" -r "$TMP/reference"

check "an image of many slots" new_image "$image" --slots 80x4K,16x64K,6x256K
check "mounts for all users" mounted "$image" "$mnt" -o allow_other
"$cases" "$mnt" >"$TMP/all"
results "$TMP/all" "on the mount"
no_slot_is_used() {
    [ "$(jq .slots_used "$mnt/.vnvram/status")" = 0 ]
}
check "no slot is left in use" wait_until 30 no_slot_is_used # the last release comes after close() has returned

"$cases" "$mnt" before >"$TMP/before"
results "$TMP/before" "before"
check "unmounts" unmounted "$mnt"
check "the image is clean" "$VNVRAM" check "$image"
check "mounts again" mounted "$image" "$mnt" -o allow_other
"$cases" "$mnt" after >"$TMP/after"
results "$TMP/after" "after"
check "unmounts again" unmounted "$mnt"
check "the image is clean again" "$VNVRAM" check "$image"
finish
