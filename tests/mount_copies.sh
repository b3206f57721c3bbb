#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# tar, rsync and cp, out of the mount and into it: contents and attributes stay.
. "${srcdir:-$(dirname "$0")/..}/tests/lib.sh"
need_root
need_fuse
need rsync tar

image=$TMP/image
mnt=$TMP/mnt
src=$TMP/src

# All that is to be kept, a line per file.
listing() {
    (cd "$1" && stat -c '%n %f %u %g %s %y' -- * .[!.]* && sha256sum -- * .[!.]*) 2>/dev/null
}

fill() {
    mkdir -p "$src"
    echo hello >"$src/plain"
    : >"$src/empty"
    echo hidden >"$src/.hidden"
    head -c 200000 /dev/urandom >"$src/large"
    head -c 4096 /dev/zero >"$src/zeroes"
    echo special >"$src/special"
    echo old >"$src/name with spaces and ümlauts"
    chmod 0600 "$src/plain" && chmod 07751 "$src/special" && chmod 0444 "$src/empty"
    chown 1234:5678 "$src/large" && chown 4000000000:0 "$src/zeroes"
    touch -d '1999-12-31 23:59:59.123456789' "$src/plain"
    touch -d '2150-01-01 00:00:00.000000001' "$src/large"
    touch -d '1960-01-01 00:00:00.5' "$src/zeroes"
}

# into NAME COMMAND...: runs it, and the mount holds what the source holds; so it does after a remount.
into() {
    local name=$1
    shift
    check "$name into the mount" "$@"
    is "$name: all is there" "$(listing "$mnt")" "$wanted"
    check "$name: unmounts" unmounted "$mnt"
    check "$name: the image is clean" "$VNVRAM" check "$image"
    check "$name: mounts again" mounted "$image" "$mnt"
    is "$name: all is there after a remount" "$(listing "$mnt")" "$wanted"
}

out_of() {
    local name=$1 to=$TMP/out
    shift
    rm -rf "$to" && mkdir "$to"
    check "$name out of the mount" "$@"
    is "$name: all arrived" "$(listing "$to")" "$wanted"
}

tar_copy() {
    tar -C "$1" --format=pax -c . | tar -C "$2" -xp
}

empty_mount() {
    find "$mnt" -mindepth 1 -delete
}

fill
wanted=$(listing "$src")
is "the source is what was meant" "$(wc -l <<<"$wanted")" 14
check "an image" new_image "$image"
check "mounts" mounted "$image" "$mnt"
into tar tar_copy "$src" "$mnt"
out_of tar tar_copy "$mnt" "$TMP/out"
out_of "cp -a" cp -a "$mnt/." "$TMP/out"
out_of "rsync -a" rsync -a "$mnt/" "$TMP/out/"
check "emptied" empty_mount
into "cp -a" cp -a "$src/." "$mnt"
check "cp -a once more, over itself" cp -a "$src/." "$mnt"
is "cp -a: nothing changed" "$(listing "$mnt")" "$wanted"
check "emptied again" empty_mount
into "rsync -a" rsync -a "$src/" "$mnt/"
is "rsync finds nothing more to do" "$(rsync -ain "$src/" "$mnt/")" ""
echo changed >"$src/plain" && rm "$src/empty" && echo new >"$src/new"
wanted=$(listing "$src")
into "rsync -a --delete" rsync -a --delete "$src/" "$mnt/"
head -c 100000 /dev/urandom | dd of="$src/large" conv=notrunc status=none
wanted=$(listing "$src")
into "rsync -a --inplace" rsync -a --inplace --no-whole-file "$src/" "$mnt/"
check "unmounts at the end" unmounted "$mnt"
finish
