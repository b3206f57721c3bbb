#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Each finding has its exit code and its words, by every command that opens an image, and no finding is a
# reason to write: the file stays as it is.
. "${srcdir:-.}/tests/lib.sh"
cd "$TMP" || exit 99
mkdir dir

# finding FILE CODE REGEX: by info, check, mount and fsck.vnvram
finding() {
    local file=$1 code=$2 regex=$3 fsck=8 before
    before=$(hash "$file")
    case $code in 5 | 10) fsck=4 ;; esac
    for command in info check mount; do
        case $command in
        mount) check_exit "$code" "mount of $file" "$VNVRAM" mount "$file" dir ;;
        *) check_exit "$code" "$command of $file" "$VNVRAM" $command "$file" ;;
        esac
        matches "$command names the image and the finding" "$ERR" "$file: .*$regex"
        matches "$command says what to do" "$ERR" "$file: .*what to do: "
    done
    check_exit $fsck "fsck.vnvram of $file" "$TMP/fsck.vnvram" -a "$file"
    is "$file was not written" "$(hash "$file")" "$before"
}

ln -s "$VNVRAM" fsck.vnvram
"$VNVRAM" format good.img || exit 99

truncate -s 4M sparse.img
finding sparse.img 3 "blank"
dd if=/dev/zero of=zero.img bs=64k count=64 status=none
finding zero.img 3 "blank"
head -c 4M /dev/urandom >random.img
finding random.img 4 "not a vnvram image"
printf 'hello\n' >text.img
finding text.img 4 "not a vnvram image"
mkfifo pipe.img
check_exit 1 "a FIFO is no image" "$VNVRAM" info pipe.img
check_exit 1 "a missing file is an error" "$VNVRAM" info missing.img
matches "which is named" "$ERR" 'missing\.img: .*No such file'

for size in 2M 200K 64K 4096; do
    cp good.img "cut-$size.img"
    truncate -s "$size" "cut-$size.img"
    finding "cut-$size.img" 10 "truncated|too small"
done

# A newer version, with its checksum right: the version is the u32 behind magic and CRC.
newer() {
    python3 - "$1" <<'PY'
import sys, zlib
with open(sys.argv[1], "r+b") as f:
    for at in (0, 65536):
        f.seek(at)
        block = bytearray(f.read(4096))
        block[12:16] = (99).to_bytes(4, "little")
        block[8:12] = bytes(4)
        block[8:12] = zlib.crc32(block).to_bytes(4, "little")
        f.seek(at)
        f.write(block)
PY
}
need python3
cp good.img newer.img
newer newer.img
finding newer.img 9 "(newer|unsupported) version"

# Damage: both superblocks, or both directories, gone or scribbled over.
scribble() {
    printf 'scribble' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
cp good.img damaged-sb.img
scribble damaged-sb.img 100
scribble damaged-sb.img $((65536 + 100))
finding damaged-sb.img 5 "damaged"
finish
