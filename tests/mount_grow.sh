#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram grow: more slots, and everything else as it was, TPM, keys and anchor included.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need getfattr jq openssl python3 tpm2_nvdefine xxd
here=$(cd "${srcdir:-.}" && pwd)
cd "$TMP" || exit 99
umask 077
mkdir mnt

t() {
    timeout 60 "tpm2_$1" -T device:mnt/tpm0 "${@:2}"
}

slots() { # IMAGE [OPTION...]: how many it has
    "$VNVRAM" info --json "${@:2}" "$1" | jq .slots_total
}

# ---- a TPM's image ----------------------------------------------------------------------------------

new_image a.img || exit 99
check "mounts with a TPM" mounted a.img mnt -o tpm=2.0
check "defines an index" t nvdefine -Q -C o -s 12 -a 'ownerread|ownerwrite' 0x1500018
nv_write() {
    printf 'do not lose.' | t nvwrite -Q -C o -i - 0x1500018
}
check "writes it" nv_write
check "defines a counter" t nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite|nt=counter' 0x1500019
check "counts" t nvincrement -Q -C o 0x1500019
check "and again" t nvincrement -Q -C o 0x1500019
count=$(t nvread -C o 0x1500019 | xxd -p)
head -c 600000 /dev/urandom >large
cp large mnt/large 2>"$ERR" && fail "a file past the largest slot" || pass "a file past the largest slot does not fit"
rm -f mnt/large
before=$(hash a.img)
check_exit 11 "a mounted image does not grow" "$VNVRAM" grow --slots 2x640K a.img
is "and stays as it is" "$(stat -c %s a.img)" $((4 << 20))
check "unmounts" unmounted mnt
before=$(hash a.img)
check_exit 2 "grow without --slots is wrong usage" "$VNVRAM" grow a.img
check_exit 2 "so are slots that are none" "$VNVRAM" grow --slots 0x4K a.img
many=$(printf '1x4K,%.0s' {1..30})
check_exit 1 "more classes than an image can have are refused" "$VNVRAM" grow --slots "${many%,}" a.img
matches "with a word" "$ERR" 'at most 32 classes'
is "and nothing is changed" "$(hash a.img)" "$before"
check "grows" "$VNVRAM" grow --slots 2x640K a.img
matches "and says by what" "$OUT" '^a.img: 2 slots added, for 1\.2 MiB more: 30 slots in 6\.1 MiB$'
is "it has that size" "$(stat -c %s a.img)" "$("$VNVRAM" info --json a.img | jq .size)"
is "its room is allocated" "$(($(stat -c %b a.img) * 512 >= $(stat -c %s a.img)))" 1
check "it checks" "$VNVRAM" check a.img
matches "without a remark" "$OUT" ', 0 problems$'
check "mounts again" mounted a.img mnt -o tpm=2.0
is "the index is there" "$(t nvread -C o -s 12 0x1500018)" "do not lose."
is "the counter has counted on from where it was" "$(t nvread -C o 0x1500019 | xxd -p)" "$count"
check "the large file fits now" cp large mnt/large
is "into a new slot" "$(getfattr --only-values -n user.vnvram.slot mnt/large)" 28
check "a snapshot can be taken" "$VNVRAM" snapshot mnt copy.img
check "unmounts" unmounted mnt
check "the copy checks" "$VNVRAM" check copy.img
check "and mounts" mounted copy.img mnt -o tpm=2.0
is "with the file in it" "$(hash mnt/large)" "$(hash large)"
is "and the counter" "$(t nvread -C o 0x1500019 | xxd -p)" "$count"
check "unmounts" unmounted mnt

# Directories move when there are too many names for them.
check "grows by many" "$VNVRAM" grow --slots 20x16K --slots 4x4K,1x1M a.img
is "all of them" "$(slots a.img)" 55
check "grows once more" "$VNVRAM" grow --slots 60x4K a.img
check "it checks" "$VNVRAM" check a.img
check "salvages" "$VNVRAM" check --salvage saved a.img
matches "the large file, too" <(sha256sum saved/large.g*) "$(hash large)"
check "mounts" mounted a.img mnt -o tpm=2.0
fill() {
    local i
    for i in {1..100}; do
        head -c 4096 /dev/urandom >"mnt/$(printf '%0200d' "$i")" || return
    done
}
check "a hundred names of 200 characters fit" fill
is "the counter is as it was" "$(t nvread -C o 0x1500019 | xxd -p)" "$count"
check "unmounts" unmounted mnt
check "it checks" "$VNVRAM" check a.img

# ---- sealed, with an anchor -------------------------------------------------------------------------

head -c 32 /dev/urandom | xxd -p -c 64 >key
head -c 32 /dev/urandom | xxd -p -c 64 >wrong
k=(-o key_file=key)
new_image s.img "${k[@]}" || exit 99
check "mounts" mounted s.img mnt "${k[@]}" -o anchor=anchor,anchor_create
echo "in the clear nowhere" >mnt/secret
check "unmounts" unmounted mnt
cp s.img older.img
before=$(hash s.img)$(hash anchor)
check_exit 6 "without its key it does not grow" "$VNVRAM" grow --slots 30x4K s.img
check_exit 7 "nor with a wrong one" "$VNVRAM" grow -o key_file=wrong --slots 30x4K s.img
check_exit 8 "a key for an image without is refused" "$VNVRAM" grow "${k[@]}" --slots 1x4K a.img
is "nothing is changed" "$(hash s.img)$(hash anchor)" "$before"
check "grows, and its anchor moves on" "$VNVRAM" grow "${k[@]}" -o anchor=anchor --slots 30x4K s.img
check "it checks" "$VNVRAM" check "${k[@]}" s.img
check "and is at its anchor" "$VNVRAM" info "${k[@]}" -o anchor=anchor s.img
is "an independent reader finds the file" \
    "$(python3 "$here/tests/independent_unseal.py" s.img "$(cat key)" secret)" "in the clear nowhere"
check "mounts at its anchor" mounted s.img mnt "${k[@]}" -o anchor=anchor
is "the file is there" "$(cat mnt/secret)" "in the clear nowhere"
check "unmounts" unmounted mnt
check "is resealed" "$VNVRAM" key reseal "${k[@]}" -o anchor=anchor -n key_file=wrong s.img
check "grows under the new key" "$VNVRAM" grow -o key_file=wrong,anchor=anchor --slots 1x64K s.img
check "it is at its anchor" "$VNVRAM" info -o key_file=wrong,anchor=anchor s.img
cp s.img grown.img
dd if=older.img of=s.img bs=4096 count=32 conv=notrunc status=none
"$VNVRAM" mount -o key_file=key s.img mnt 2>"$ERR" && fail "the superblocks of before" ||
    pass "the superblocks of before, put back, are refused"

# ---- a block device ---------------------------------------------------------------------------------

truncate -s 8M disk
if [ "$(id -u)" -eq 0 ] && dev=$(loop_on disk); then
    # as large as the device was when it was formatted
    check "a device is formatted" "$VNVRAM" format --size 4M "$dev"
    check "grows into its free end" "$VNVRAM" grow --slots 2x640K "$dev"
    check_exit 10 "but not past it" "$VNVRAM" grow --slots 8x640K "$dev"
    matches "and says so" "$ERR" 'too small'
    is "it has its 30 slots" "$(slots "$dev")" 30
    check "it checks" "$VNVRAM" check "$dev"
    loop_off "$dev"
else
    echo "# no loop devices: a file stands for the device"
fi

# ---- killed at any moment ---------------------------------------------------------------------------

RANDOM=${SEED:-$$}
echo "# SEED=$RANDOM"
cp older.img victim.img
start=${EPOCHREALTIME//./}
check "one is left to its end" "$VNVRAM" grow "${k[@]}" --slots 12x64K,2x640K victim.img
took=$((${EPOCHREALTIME//./} - start))
killed=0 grown=0 bad=
for round in {1..25}; do
    cp --reflink=never older.img victim.img
    old=$(slots victim.img "${k[@]}")
    "$VNVRAM" grow "${k[@]}" --slots 12x64K,2x640K victim.img >/dev/null 2>&1 &
    pid=$!
    printf -v pause '%d.%06d' $((took * (RANDOM % 1200) / 1000000000)) $((took * (RANDOM % 1200) / 1000 % 1000000))
    sleep "$pause"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null || killed=$((killed + 1))
    now=$(slots victim.img "${k[@]}")
    case $now in
    "$old") ;;
    $((old + 14))) grown=$((grown + 1)) ;;
    *) bad+=" round $round: $now slots" ;;
    esac
    "$VNVRAM" check "${k[@]}" victim.img >"$OUT" 2>&1 || {
        "$VNVRAM" check --repair "${k[@]}" victim.img >>"$OUT" 2>&1 || bad+=" round $round: $(cat "$OUT")"
    }
    "$VNVRAM" grow "${k[@]}" --slots 1x4K victim.img >"$OUT" 2>&1 || bad+=" round $round: $(cat "$OUT")"
    [ "$(slots victim.img "${k[@]}")" = $((now + 1)) ] || bad+=" round $round: does not grow again"
    [ "$(python3 "$here/tests/independent_unseal.py" victim.img "$(cat key)" secret)" = \
        "in the clear nowhere" ] || bad+=" round $round: the file"
done
is "wherever it is killed, the image is old or grown and grows on" "$bad" ""
echo "# $killed of 25 were killed, $grown had grown"
finish
