#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram reserve: room that nobody else gets, in an image and in a mount.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need getfattr jq
cd "$TMP" || exit 99
umask 077
mkdir mnt

reserved() { # NAME: SLOT SIZE
    "$VNVRAM" info --json a.img | jq -r ".slots[] | select(.state == \"reserved\" and .name == \"$1\") | \"\(.slot) \(.reserved)\""
}

new_image a.img || exit 99

# ---- an image ---------------------------------------------------------------------------------------

check "room is reserved in an image" "$VNVRAM" reserve a.img vars 100K
is "a slot that is large enough" "$(reserved vars)" "0 102400"
check "the image checks" "$VNVRAM" check a.img
check "another size takes the place of the first" "$VNVRAM" reserve a.img vars 60000
is "in the same slot" "$(reserved vars)" "0 60000"
check "0 gives it up" "$VNVRAM" reserve a.img vars 0
is "for good" "$(reserved vars)" ""
check_exit 1 "what is not there cannot be given up" "$VNVRAM" reserve a.img vars 0
matches "with a word" "$ERR" 'nothing is reserved for vars'
before=$(hash a.img)
check_exit 1 "more than any slot holds" "$VNVRAM" reserve a.img vars 1M
matches "says what to do" "$ERR" 'grow'
for name in .vnvram tpm0 a/b . .. ""; do
    check_exit 2 "'$name' is no name" "$VNVRAM" reserve a.img "$name" 4K
done
for size in x 4T -1 "" 4K4; do
    check_exit 2 "'$size' is no size" "$VNVRAM" reserve a.img vars "$size"
done
check_exit 2 "a size is needed" "$VNVRAM" reserve a.img vars
check_exit 1 "so is an image" "$VNVRAM" reserve none.img vars 4K
is "none of these changed the image" "$(hash a.img)" "$before"
for i in 1 2 3 4; do
    check "room for a large file" "$VNVRAM" reserve a.img "large $i" 200K
done
check_exit 1 "there is not a fifth" "$VNVRAM" reserve a.img "large 5" 200K
matches "and it says so" "$ERR" 'no slot of at least 204800 bytes is free'
check "room is given up" "$VNVRAM" reserve a.img "large 4" 0
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >key
new_image s.img -o key_file=key || exit 99
check_exit 6 "a sealed image needs its key" "$VNVRAM" reserve s.img vars 4K
check "and takes it" "$VNVRAM" reserve -o key_file=key s.img vars 4K
check "it checks" "$VNVRAM" check -o key_file=key s.img

# ---- a mount ----------------------------------------------------------------------------------------

check "mounts" mounted a.img mnt
check_exit 11 "a mounted image says so" "$VNVRAM" reserve a.img x 4K
check "nothing is to be committed" settled mnt
generation=$(jq .generation mnt/.vnvram/status)
check "room is reserved in the mount" "$VNVRAM" reserve mnt "with a blank" 200K
check "it settles" settled mnt
is "as one commit, and one that marks it clean" "$(jq .generation mnt/.vnvram/status)" $((generation + 2))
is "and a slot in use" "$(jq .slots_used mnt/.vnvram/status)" 4
check_exit 1 "which nobody else gets" "$VNVRAM" reserve mnt other 200K
matches "and it says so" "$ERR" 'no slot of at least 204800 bytes is free'
fill() {
    head -c 200000 /dev/zero >mnt/other
}
check_exit 1 "not even by writing" fill
rm -f mnt/other
write() {
    head -c 200000 /dev/urandom >"mnt/with a blank"
}
check "the file itself is written" write
is "into its own slot" "$(getfattr --only-values -n user.vnvram.slot "mnt/with a blank")" 3
rm "mnt/with a blank"
check_exit 1 "which stays its own when it is deleted" fill
rm -f mnt/other
check "until it is given up" "$VNVRAM" reserve mnt "with a blank" 0
check "then it is anybody's" fill
check_exit 2 "a mount has its key already" "$VNVRAM" reserve -o key_file=key mnt x 4K
check_exit 2 "a name that ends in a blank cannot be said to a mount" "$VNVRAM" reserve mnt "x " 4K
mkdir bare
check_exit 1 "a directory without a mount is refused" "$VNVRAM" reserve bare x 4K
matches "with a word" "$ERR" 'no image is mounted there'

# By hand.
order() {
    printf "$1" >mnt/.vnvram/control
}
check "an order is a line" order 'reserve 5000 vars\n'
is "that is obeyed" "$(jq .slots_used mnt/.vnvram/status)" 5
check "an end of line is not needed" order 'reserve 0 vars'
for line in 'reserve' 'reserve 1' 'reserve 1 ' 'reserve -1 x' 'reserve 1x y' 'frobnicate' '\n' 'reserve 1 a\0b' \
    'reserve 99999999999999999999 x' 'reserve 2000000000 x' 'reserve 1 tpm0' 'reserve 1 .' 'reserve 1 a/b' \
    "reserve 1 $(printf '%0300d' 0)" "reserve 1 $(printf '%04000d' 0)"; do
    check_exit 1 "'$(head -c 30 <<<"$line")' is refused" order "$line"
done
is "and changes nothing" "$(jq .slots_used mnt/.vnvram/status)" 4
is "control is written only" "$(stat -c %a mnt/.vnvram/control)" 200
check_exit 1 "and not read" cat mnt/.vnvram/control
check_exit 1 "nor removed" rm -f mnt/.vnvram/control
check_exit 1 "nor renamed" mv mnt/.vnvram/control mnt/x
check_exit 1 "nor is status written" bash -c 'echo x >mnt/.vnvram/status'
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
    chmod 755 mnt
    check_exit 1 "nobody else may" setpriv --reuid=65534 --regid=65534 --clear-groups \
        bash -c 'echo "reserve 1 x" >mnt/.vnvram/control'
fi
check "reserves once more" "$VNVRAM" reserve mnt vars 5000
check "it settles by itself" settled mnt
check "unmounts" unmounted mnt
is "and it is there" "$(reserved vars)" "4 5000"
check "the image checks" "$VNVRAM" check a.img
check "mounts read-only" mounted a.img mnt -o ro
check_exit 1 "where nothing is reserved" "$VNVRAM" reserve mnt x 4K
matches "and it says why" "$ERR" 'Read-only'
finish
