#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Random operations against a model.  VNVRAM_TEST_SCALE multiplies their number, FSX_SEED repeats a run.
# Nothing here is about durability, and it commits a lot: in memory, where there is such a place.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
. "${srcdir:-$(dirname "$0")/..}/tests/lib.sh"
need_fuse

fsx=$(dirname "$VNVRAM")/tests/fsx
image=$TMP/image
mnt=$TMP/mnt
scale=${VNVRAM_TEST_SCALE:-1}
seed=${FSX_SEED:-1}
echo "# FSX_SEED=$seed"

# How the remounting scripts are made: remounting IMAGE FILE [OPTION...]
remounting() {
    echo "'$VNVRAM' unmount '$mnt' && '$VNVRAM' check ${*:3} '$1' >'$TMP/checked' &&
        '$VNVRAM' mount ${*:3} '$1' '$mnt'" >"$2"
}
remounting "$image" "$TMP/remount"

check "an image" new_image "$image" --slots 8x4K,8x64K,10x256K
check "mounts" mounted "$image" "$mnt"
check "one file, 45,000 operations" "$fsx" -s "$seed" -n $((45000 * scale)) "$mnt"
sed 's/^/# /' "$OUT"
check "its removal" rm "$mnt/fsx-0"
check "five files with renames and remounts, 30,000 operations" \
    "$fsx" -s "$seed" -f 5 -n $((30000 * scale)) -r 5000 -c "sh '$TMP/remount'" "$mnt"
sed 's/^/# /' "$OUT"
check "their removal" rm -f "$mnt"/fsx-0 "$mnt"/fsx-1 "$mnt"/fsx-2 "$mnt"/fsx-3 "$mnt"/fsx-4
# Three at once, each on files of its own.
at_once() {
    local i pids=() r=0
    for i in a b c; do
        "$fsx" -s "$seed" -p "$i" -f 2 -m 60000 -n $((5000 * scale)) "$mnt" &
        pids+=($!)
    done
    for i in "${pids[@]}"; do
        wait "$i" || r=1
    done
    return $r
}
check "three at once, 15,000 operations" at_once
check "their removal" rm -f "$mnt"/[abc]-[01]
check_exit 1 "fsx notices a byte that somebody else adds" \
    "$fsx" -s "$seed" -n 100 -r 50 -c "printf x >>'$mnt/fsx-0'" "$mnt"
check "unmounts" unmounted "$mnt"
check "the image is clean" "$VNVRAM" check "$image"

od -An -N32 -tx1 -v /dev/urandom | tr -d " \n" >"$TMP/key" && chmod 600 "$TMP/key"
sealed=(-o "key_file=$TMP/key")
remounting "$TMP/sealed" "$TMP/remount-sealed" "${sealed[@]}"
check "a sealed image" new_image "$TMP/sealed" --slots 8x4K,8x64K,10x256K "${sealed[@]}"
check "mounts sealed" mounted "$TMP/sealed" "$mnt" "${sealed[@]}"
check "sealed, with renames and remounts, 10,000 operations" \
    "$fsx" -s "$seed" -f 4 -n $((10000 * scale)) -r 2000 -c "sh '$TMP/remount-sealed'" "$mnt"
check "unmounts sealed" unmounted "$mnt"
check "the sealed image is clean" "$VNVRAM" check "${sealed[@]}" "$TMP/sealed"
finish
