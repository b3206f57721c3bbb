#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram format and size: what is made, and what is refused.
. "${srcdir:-.}/tests/lib.sh"
cd "$TMP" || exit 99

# number KEY: a member of the JSON object on stdin
number() {
    sed -n "s/^ *\"$1\": *\([0-9]*\),*$/\1/p" | head -n 1
}

check "a missing file is created" "$VNVRAM" format a.img
is "of 4 MiB" "$(stat -c %s a.img)" 4194304
is "for its owner only" "$(stat -c %a a.img)" 600
is "without a word" "$(cat "$OUT" "$ERR")" ""
check "and is clean" "$VNVRAM" check a.img

before=$(hash a.img)
check_exit 1 "an image is not overwritten" "$VNVRAM" format a.img
matches "and the message says so" "$ERR" 'a\.img: .*holds a vnvram image.*--force'
is "nothing was written to it" "$(hash a.img)" "$before"
check_exit 0 "with --force it is" "$VNVRAM" format --force a.img
check "it has another identity then" test "$(hash a.img)" != "$before"

dd if=/dev/zero of=a.img bs=128k count=1 conv=notrunc status=none
before=$(hash a.img)
check_exit 1 "nor is a damaged one" "$VNVRAM" format a.img
matches "which is called damaged" "$ERR" 'a\.img: .*damaged vnvram image'
is "and left as it was" "$(hash a.img)" "$before"

head -c 1M /dev/urandom >foreign.img
before=$(hash foreign.img)
check_exit 4 "other data is not overwritten" "$VNVRAM" format foreign.img
matches "and the message says so" "$ERR" 'foreign\.img: .*other data.*--force'
is "nothing was written to it" "$(hash foreign.img)" "$before"
check_exit 0 "with --force it is" "$VNVRAM" format --force foreign.img
check "and becomes a clean image" "$VNVRAM" check foreign.img

printf 'x' >short.img
check_exit 4 "nor is a file of one byte" "$VNVRAM" format short.img
is "which stays" "$(cat short.img)" x
truncate -s 5M blank.img
printf 'x' | dd of=blank.img bs=1 seek=5000000 conv=notrunc status=none
check_exit 4 "nor is one whose only byte lies near its end" "$VNVRAM" format blank.img

: >empty.img
check "an empty file is formatted" "$VNVRAM" format empty.img
truncate -s 6M sparse.img
check "a sparse blank file is formatted" "$VNVRAM" format sparse.img
is "and keeps its size" "$(stat -c %s sparse.img)" 6291456
dd if=/dev/zero of=zero.img bs=1M count=4 status=none
check "a file of zeros is formatted" "$VNVRAM" format zero.img

check "profile vm" "$VNVRAM" format --profile vm vm.img
is "is of 8 MiB" "$(stat -c %s vm.img)" 8388608
check "a slot of 640 KiB can be reserved in it" \
    "$VNVRAM" format --profile=vm --reserve OVMF_VARS.fd:540672 --reserve a:b:4K vm2.img
check "and is shown" "$VNVRAM" info vm2.img
matches "by name" "$OUT" 'reserved +OVMF_VARS\.fd'
matches "also when the name has a colon" "$OUT" 'reserved +a:b'
check_exit 1 "but not where no slot is large enough" "$VNVRAM" format --reserve big:300K no.img
matches "which the message names" "$ERR" 'big'
check "then no file is left behind" test ! -e no.img

check "size answers for given slots" "$VNVRAM" size --slots 3x20K,2x4K --json
size=$(number size <"$OUT")
check "which is a number" test "$size" -gt 0
check "format agrees: that is enough" "$VNVRAM" format --slots 3x20K,2x4K --size "$size" fits.img
is "and all that is used" "$(stat -c %s fits.img)" "$size"
check "without --size it takes just that" "$VNVRAM" format --slots 3x20K,2x4K auto.img
is "too" "$(stat -c %s auto.img)" "$size"
check_exit 10 "4 KiB less are too small" \
    "$VNVRAM" format --slots 3x20K,2x4K --size $((size - 4096)) less.img
matches "and the message says what it takes" "$ERR" "less\.img: .*$size"
check "then no file is left behind" test ! -e less.img
for version in 1.2 2.0; do
    check "size answers for a TPM $version" "$VNVRAM" size --tpm $version --json
    size=$(number size <"$OUT")
    check "which fits the default image" test "$size" -gt 65536 -a "$size" -le 4194304
done
check "size speaks to people, too" "$VNVRAM" size
matches "in bytes, and in slots" "$OUT" '^[0-9]+ bytes \(3\.6 MiB\) for 4 x 256 KiB, 8 x 64 KiB, 16 x 4 KiB$'

for slots in 0x4K 4 4x 4x4K, x4K 4x4T -1x4K 99999x4K 1x2G "1x4K 2x4K" 1x0; do
    check_exit 2 "--slots '$slots' is a usage error" "$VNVRAM" format --slots "$slots" bad.img
done
for reserve in :4K a: a 4K; do
    check_exit 2 "--reserve '$reserve' is a usage error" "$VNVRAM" format --reserve "$reserve" bad.img
done
for size in 0 -1 4X 99999999999G 4Mi 1.5M ""; do
    check_exit 2 "--size '$size' is a usage error" "$VNVRAM" format --size "$size" bad.img
done
ln -s nowhere.img link.img
check_exit 1 "a dangling symlink is no image" "$VNVRAM" format link.img
check "and stays" test -L link.img

# Several at once: one makes the image, the others find it, nobody removes it.
for i in 1 2 3 4; do
    "$VNVRAM" format race.img 2>"race.$i" && echo won >"race.$i" &
done
wait
is "of four at once one wins" "$(grep -c '^won$' race.[1-4] | grep -c ':1$')" 1
check "and its image is there" "$VNVRAM" check race.img

check_exit 2 "slots and a profile contradict each other" \
    "$VNVRAM" format --slots 1x4K --profile vm bad.img
check_exit 2 "so does an unknown profile" "$VNVRAM" format --profile huge bad.img
check_exit 2 "a missing argument is a usage error" "$VNVRAM" format
check_exit 2 "and one too many" "$VNVRAM" format bad.img worse.img
check "and nothing was made" test ! -e bad.img
check_exit 1 "a directory is no image" "$VNVRAM" format .
check_exit 1 "nor can one be made in a directory that is missing" "$VNVRAM" format missing/x.img
finish
