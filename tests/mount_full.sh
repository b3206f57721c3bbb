#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# An image at its limits: all slots used, files past their class and past the largest, long names, and many
# rounds of creating and removing.  The image checks clean after each, and no slot is lost.
# Nothing here is about durability, and it commits a lot: in memory, where there is such a place.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
. "${srcdir:-$(dirname "$0")/..}/tests/lib.sh"
need_fuse
need jq getfattr

cases=$(dirname "$VNVRAM")/tests/posix_cases
churn=$(dirname "$VNVRAM")/tests/churn
image=$TMP/image
mnt=$TMP/mnt
scale=${VNVRAM_TEST_SCALE:-1}

used() {
    jq .slots_used "$mnt/.vnvram/status"
}

slots_are() {
    [ "$(used)" = "$1" ]
}

# in_use NAME COUNT: a closed file gives its slot back when the kernel has told the daemon so, which is soon.
in_use() {
    wait_until 30 slots_are "$2"
    is "$1" "$(used)" "$2"
}

capacity() {
    getfattr --only-values -n user.vnvram.capacity "$mnt/$1" 2>/dev/null
}

# zeroes COUNT CHARACTER: that many of it
bytes() {
    head -c "$1" /dev/zero | tr '\0' "$2"
}

steps() {
    local answers
    answers=$(printf '%s\n' "$2" | "$cases" "$mnt" steps)
    is "$1" "$answers" ok
}

remounted_and_clean() {
    check "$1: unmounts" unmounted "$mnt"
    check_exit 0 "$1: checks clean" "$VNVRAM" check "$image"
    check "$1: mounts again" mounted "$image" "$mnt"
}

full_of_small_files() {
    local i
    for i in $(seq 28); do
        echo "file $i" >"$mnt/f$i" || break
    done
    is "28 slots take 28 files" "$(ls "$mnt" | wc -l)" 28
    in_use "all are in use" 28
    steps "one more: ENOSPC" "open 1 more wronly,creat 0644 =ENOSPC; is more size 0 =ENOENT"
    steps "mknod: ENOSPC" "mknod more reg 0644 =ENOSPC"
    is "statfs says it" "$(stat -f -c %d "$mnt")" 0
    for i in $(seq 28); do
        echo "again $i" >"$mnt/f$i" || break
    done
    is "every one can be overwritten" "$(cat "$mnt"/f28)" "again 28"
    steps "renamed over" "rename f1 f2; is f1 size 0 =ENOENT"
    in_use "which frees a slot" 27
    steps "and takes a new file" "put more x"
    remounted_and_clean "full"
    is "the files are there" "$(cat "$mnt"/f{2..28} "$mnt/more" | wc -l)" 27
    rm "$mnt"/*
    in_use "removed, no slot is in use" 0
}

within_its_slot() {
    local i
    for i in 1 2 3 4; do
        bytes 262144 a >"$mnt/big$i"
    done
    for i in $(seq 8); do
        bytes 65536 b >"$mnt/mid$i"
    done
    for i in $(seq 16); do
        bytes 4096 c >"$mnt/small$i"
    done
    is "full to the last byte" "$(used) $(cat "$mnt"/* | wc -c)" "28 $((4 * 262144 + 8 * 65536 + 16 * 4096))"
    bytes 262144 A >"$mnt/big1"
    bytes 65536 B >"$mnt/mid1"
    bytes 4096 C >"$mnt/small1"
    is "a full slot takes as much again" "$(cat "$mnt/big1" "$mnt/mid1" "$mnt/small1" | tr -d ABC | wc -c)" 0
    steps "growing past the slot: ENOSPC at the write" \
        "open 1 small2 wronly,append; write 1 x =ENOSPC; close 1; is small2 size 4096"
    steps "a truncation past the slot: ENOSPC" "truncate small2 4097 =ENOSPC; is small2 size 4096"
    steps "posix_fallocate past the slot: ENOSPC" "open 1 mid2 rdwr; fallocate 1 0 65537 =ENOSPC"
    steps "past the largest: EFBIG" "open 1 big2 wronly,append; write 1 x =EFBIG; is big2 size 262144"
    steps "an unlinked open file keeps its slot" \
        "open 1 small3 rdwr; unlink small3; open 2 more wronly,creat 0644 =ENOSPC; fhas 1 c*4096"
    wait_until 30 slots_are 27
    steps "and frees it with its last close" "put more x"
    remounted_and_clean "to the last byte"
    is "the content is there" "$(cat "$mnt"/big1 "$mnt"/small1 | tr -d AC | wc -c)" 0
    rm "$mnt"/*
}

past_its_class() {
    bytes 100 x >"$mnt/f"
    is "a small file has a small slot" "$(capacity f)" 4096
    bytes 4000 y >>"$mnt/f"
    is "which it outgrows" "$(capacity f)" 65536
    bytes 80000 z >>"$mnt/f"
    is "and again" "$(capacity f)" 262144
    is "the content moved along" "$(tr -d z <"$mnt/f" | wc -c) $(stat -c %s "$mnt/f")" "4100 84100"
    in_use "one slot is in use" 1
    steps "EFBIG past the largest" "truncate f 262145 =EFBIG; is f size 84100"
    remounted_and_clean "past its class"
    is "and is there afterwards" "$(tr -d xy <"$mnt/f" | wc -c)" 80000
    rm "$mnt/f"
}

long_names() {
    local i name
    for i in $(seq 20); do
        name=$(printf '%0255d' "$i")
        echo "$i" >"$mnt/$name"
    done
    is "20 names of 255 characters" "$(ls "$mnt" | wc -l) $(used)" "20 20"
    steps "256 are too many" "open 1 256* wronly,creat 0644 =ENAMETOOLONG"
    remounted_and_clean "long names"
    is "they are there" "$(cat "$mnt/$(printf '%0255d' 17)")" 17
    rm "$mnt"/*
}

previous_contents() {
    echo one >"$mnt/a"
    echo two >"$mnt/a"
    is "previous after an overwrite" "$(cat "$mnt/.vnvram/previous/a")" one
    echo three >"$mnt/b"
    mv "$mnt/b" "$mnt/a"
    is "previous after a rename over" "$(cat "$mnt/.vnvram/previous/a")" two
    rm "$mnt/a"
    is "previous after an unlink" "$(cat "$mnt/.vnvram/previous/a")" three
    echo four >"$mnt/c"
    printf five | dd of="$mnt/c" conv=notrunc,fsync status=none
    is "previous after an fsync" "$(cat "$mnt/.vnvram/previous/c")" four
    in_use "they use no slot" 1
    remounted_and_clean "previous contents"
    is "previous after a remount" "$(cat "$mnt/.vnvram/previous/a" "$mnt/.vnvram/previous/c")" three$'\n'four
    cp "$mnt/.vnvram/previous/a" "$mnt/a"
    is "a removed file brought back" "$(cat "$mnt/a")" three
    rm "$mnt"/*
}

many_rounds() {
    local rounds=$((10000 * scale))
    echo kept >"$mnt/kept"
    check "$rounds rounds of create, rename, unlink" "$churn" "$rounds" "$mnt"
    is "nothing is left but what was there" "$(ls -A "$mnt")" kept
    in_use "and no slot" 1
    remounted_and_clean "after the rounds"
    is "what was there is there" "$(cat "$mnt/kept") $(used)" "kept 1"
    rm "$mnt/kept"
}

check "an image" new_image "$image"
check "mounts" mounted "$image" "$mnt"
full_of_small_files
within_its_slot
past_its_class
long_names
previous_contents
many_rounds
check "unmounts" unmounted "$mnt"
finish
