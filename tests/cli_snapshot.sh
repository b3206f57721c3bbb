#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram snapshot: all or nothing under the new name.  A plain directory stands in for the mount; mount_lease.sh takes
# snapshots of a real one.
. "${srcdir:-.}/tests/lib.sh"

mkdir -p "$TMP/mnt/.vnvram" "$TMP/out"
new_image "$TMP/mnt/.vnvram/image" || exit 99

left_over() {
    ls -A "$TMP/out" | wc -l
}

check_exit 0 "a snapshot succeeds" "$VNVRAM" snapshot "$TMP/mnt" "$TMP/out/copy.img"
is "it has every byte" "$(hash "$TMP/out/copy.img")" "$(hash "$TMP/mnt/.vnvram/image")"
is "its owner alone may read it" "$(stat -c %a "$TMP/out/copy.img")" 600
is "its room is allocated" "$(($(stat -c %b "$TMP/out/copy.img") * 512 >= $(stat -c %s "$TMP/out/copy.img")))" 1
is "nothing else is left beside it" "$(left_over)" 1

echo precious >"$TMP/out/there"
check_exit 1 "an existing file is refused" "$VNVRAM" snapshot "$TMP/mnt" "$TMP/out/there"
matches "with a word" "$ERR" 'there already'
is "and unchanged" "$(cat "$TMP/out/there")" precious
ln -s nowhere "$TMP/out/link"
check_exit 1 "so is a dangling symlink" "$VNVRAM" snapshot "$TMP/mnt" "$TMP/out/link"
rm "$TMP/out/there" "$TMP/out/link"

# A relative path, without and with a slash.
check "a bare name lies in the working directory" \
    env -C "$TMP/out" "$VNVRAM" snapshot "$TMP/mnt" bare.img
check "and is there" test -s "$TMP/out/bare.img"
rm "$TMP/out/bare.img"
check_exit 2 "a name that ends in a slash is none" "$VNVRAM" snapshot "$TMP/mnt" "$TMP/out/"
check_exit 1 "a directory that is not there" "$VNVRAM" snapshot "$TMP/mnt" "$TMP/none/copy.img"

# A copy that does not verify never gets the name.
mkdir -p "$TMP/bad/.vnvram"
cp "$TMP/mnt/.vnvram/image" "$TMP/bad/.vnvram/image"
spoil "$TMP/bad/.vnvram/image" 100
check_exit 5 "a damaged copy is dropped" "$VNVRAM" snapshot "$TMP/bad" "$TMP/out/bad.img"
is "and leaves nothing" "$(left_over)" 1

# Neither does one that there is no room for.
limited() {
    (ulimit -f 1024 && trap '' XFSZ && "$VNVRAM" snapshot "$TMP/mnt" "$TMP/out/large.img")
}
check_exit 1 "no room" limited
is "leaves nothing" "$(left_over)" 1

mkfifo "$TMP/pipe"
"$VNVRAM" snapshot "$TMP/mnt" - >"$TMP/pipe" &
is "the standard output gets every byte, too" "$(hash "$TMP/pipe")" "$(hash "$TMP/mnt/.vnvram/image")"
wait $!
is "and success" $? 0
check_exit 1 "a directory without a mount is refused" "$VNVRAM" snapshot "$TMP/out" "$TMP/out/x.img"
matches "and it says why" "$ERR" 'no image is mounted there'
if [ -w /dev/full ]; then
    full() {
        "$VNVRAM" snapshot "$TMP/mnt" - >/dev/full
    }
    check_exit 1 "a full output is a failure" full
fi
finish
