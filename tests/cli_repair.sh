#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram check --repair: mends what has a good copy, writes nothing else, and never where it should not.
. "${srcdir:-.}/tests/lib.sh"
need python3
cd "$TMP" || exit 99

new_image a.img || exit 99
umask 077
head -c 32 /dev/urandom >k.bin
new_image s.img -o key_file=k.bin,key_format=binary || exit 99
key=(-o "key_file=k.bin,key_format=binary")

# scribble FILE OFFSET
scribble() {
    printf 'scribble' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# mends NAME OFFSET WHERE [KEY OPTIONS]: of copies of a.img, or of s.img with a key
mends() {
    local from=a.img
    [ $# -le 3 ] || from=s.img
    cp "$from" b.img
    scribble b.img "$2"
    check_exit 5 "$1 is found" "$VNVRAM" check "${@:4}" b.img
    check_exit 0 "and mended" "$VNVRAM" check --repair "${@:4}" b.img
    matches "which is said" "$OUT" "^b\.img: $3: mended; it was [a-z][^;']*$"
    check_exit 0 "then all is well" "$VNVRAM" check "${@:4}" b.img
    matches "without a remark" "$OUT" '^b\.img: .* 0 problems$'
    is "and nothing else" "$(wc -l <"$OUT")" 1
}

before=$(hash a.img)
check_exit 0 "--repair of a clean image succeeds" "$VNVRAM" check --repair a.img
is "and writes nothing" "$(hash a.img)" "$before"

mends "superblock A, damaged," 100 "superblock A"
mends "superblock A, without its magic," 0 "superblock A"
is "what was mended is what it was" "$(head -c 4096 b.img | sha256sum)" "$(head -c 4096 a.img | sha256sum)"
mends "superblock B, damaged," 65636 "superblock B"
mends "directory 0, damaged," 131172 "directory 0"
mends "directory 1, damaged," 196708 "directory 1"
mends "directory 1, without its magic," 196608 "directory 1"
mends "sealed superblock A, damaged," 100 "superblock A" "${key[@]}"
mends "sealed directory 1, damaged," 196708 "directory 1" "${key[@]}"

# Two things at once: as long as one copy of each is whole.
cp a.img b.img
scribble b.img 65636
scribble b.img 131172
check_exit 0 "a superblock and a directory are mended together" "$VNVRAM" check --repair --json b.img
cp "$OUT" b.json
check "JSON names both" python3 -c '
import json
j = json.load(open("b.json"))
assert j["finding"] is None and j["notes"] == []
assert sorted(n["where"] for n in j["mended"]) == ["directory 0", "superblock B"], j'

# untouched NAME CODE [KEY OPTIONS]: --repair of b.img ends with CODE and changes nothing
untouched() {
    local before
    before=$(hash b.img)
    check_exit "$2" "$1" "$VNVRAM" check --repair "${@:3}" b.img
    is "and nothing is written" "$(hash b.img)" "$before"
}

cp a.img b.img
scribble b.img 100
scribble b.img 65636
untouched "two bad superblocks cannot be mended" 5
cp a.img b.img
scribble b.img 131172
scribble b.img 196708
untouched "neither can two bad directories" 5
cp s.img b.img
scribble b.img 100
untouched "a sealed image needs its key" 6
head -c 32 /dev/urandom >other.bin
untouched "its own key" 7 -o key_file=other.bin,key_format=binary
cp /dev/null b.img
truncate -s 4M b.img
untouched "a blank image stays blank" 3
printf 'something else' >b.img
untouched "foreign data stays what it is" 4
cp a.img b.img
truncate -s 1M b.img
untouched "a truncated image stays as it is" 10

# Forged: the checksum of superblock B, and of directory 0, is right, their authentication is not.
refit() {
    python3 - "$@" <<'PY'
import sys, zlib
name, at, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(name, "r+b") as f:
    f.seek(at)
    b = bytearray(f.read(size))
    b[72] ^= 1
    b[8:12] = bytes(4)
    b[8:12] = zlib.crc32(bytes(b)).to_bytes(4, "little")
    f.seek(at)
    f.write(b)
PY
}
cp s.img b.img
refit b.img 65536 4096
scribble b.img 131172
untouched "beside a forged superblock nothing is mended" 13 "${key[@]}"

# In use: the lock is asked for before anything else.
exec 9<>a.img
if python3 -c '
import fcntl, struct
lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
fcntl.fcntl(9, 37, lock)'; then # F_OFD_SETLK
    check_exit 11 "an image in use is refused" "$VNVRAM" check --repair a.img
    check_exit 0 "a plain check is not" "$VNVRAM" check a.img
fi
exec 9>&-

check_exit 2 "--repair and --salvage do not go together" "$VNVRAM" check --repair --salvage out a.img
check_exit 0 "a salvage of nothing finds nothing" "$VNVRAM" check --salvage out a.img
matches "and says so" "$OUT" '^a\.img: 0 contents whole'
truncate -s 4M blank.img
check_exit 3 "blank is still blank to a salvage" "$VNVRAM" check --salvage out blank.img
finish
