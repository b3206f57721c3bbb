#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Images on block devices: loop devices with sectors of 512 and of 4096 bytes, partitions, other nodes.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need_root
need python3 mkfs.ext4 unshare
alone "$@"
cd "$TMP" || exit 99
truncate -s 8M probe
probe=$(loop_on probe 4096) || skip_all "no loop device can be attached"
loop_off "$probe"

umask 077
head -c 32 /dev/urandom >key
head -c 32 /dev/urandom >key2
key=key_file=$TMP/key,key_format=binary
mkdir mnt mnt2

# flushes DEVICE: how many have been done
flushes() {
    awk '{ print $16 }' "/sys/block/${1#/dev/}/stat"
}

status() {
    python3 -c 'import json, sys; print(json.load(open("mnt/.vnvram/status"))[sys.argv[1]])' "$1"
}

for sector in 512 4096; do
    rm -f disk
    truncate -s 6M disk
    loop=$(loop_on disk $sector) || exit 99
    is "sectors of $sector: the loop device has them" "$(cat "/sys/block/${loop#/dev/}/queue/logical_block_size")" $sector
    check_exit 3 "a blank device is told" "$VNVRAM" info "$loop"
    check "format takes it" "$VNVRAM" format -o "$key" "$loop"
    check_exit 1 "but not twice" "$VNVRAM" format -o "$key" "$loop"
    check "info" "$VNVRAM" info -o "$key" "$loop"
    matches "tells the image's size, not the device's" "$OUT" 'version 1, 4 MiB'
    check "mounts" mounted "$loop" mnt -o "$key"
    is "status tells the device" "$(status image)" "$loop"
    before=$(flushes "$loop")
    head -c 70000 /dev/urandom >content
    cat content >mnt/f
    check "a close is one flush of the device" test "$(flushes "$loop")" -gt "$before"
    check "who reads through the page cache sees what the file beneath holds" cmp "$loop" disk
    cp disk crashed
    check "what was acknowledged is in the file beneath" "$VNVRAM" check -o "$key" crashed
    check "and is mounted from it" mounted crashed mnt2 -o "$key"
    check "whole" cmp content mnt2/f
    check "unmounts" unmounted mnt2
    check "check beside the mount" "$VNVRAM" check -o "$key" "$loop"

    # By another node, and in another mount namespace.
    mknod other b "$(stat -c 0x%t "$loop")" "$(stat -c 0x%T "$loop")"
    pid=$(status pid)
    check_exit 11 "another node of it is in use, too" "$VNVRAM" mount -o "$key" other mnt2
    matches "and who has it" "$ERR" "in use by process $pid \\(vnvram"
    check_exit 11 "also for a reader" "$VNVRAM" mount -o "ro,$key" other mnt2
    check_exit 11 "and for format --force" "$VNVRAM" format --force other
    check_exit 11 "and from another mount namespace" unshare -m sh -c \
        'mount -t tmpfs none mnt2 && mknod mnt2/n b "$1" "$2" && shift 2 && exec "$@"' \
        sh "$(stat -c 0x%t "$loop")" "$(stat -c 0x%T "$loop")" "$VNVRAM" key reseal -o "$key" -n "key_file=$TMP/key2,key_format=binary" mnt2/n
    check "unmounts by the other node's name" unmounted "$TMP/other"
    check "readers share it" mounted "$loop" mnt -o "ro,$key"
    check "by any node" mounted other mnt2 -o "ro,$key"
    check_exit 11 "and keep writers out" "$VNVRAM" key reseal -o "$key" -n "key_file=$TMP/key2,key_format=binary" other
    check "unmounts" unmounted mnt
    check "unmounts" unmounted mnt2
    check "reseals" "$VNVRAM" key reseal -o "$key" -n "key_file=$TMP/key2,key_format=binary" "$loop"
    check_exit 7 "which shuts the old key out" "$VNVRAM" mount -o "$key" "$loop" mnt
    check "mounts with a TPM" mounted "$loop" mnt -o "key_file=$TMP/key2,key_format=binary,tpm=2.0"
    check "which has stored its state" test -s mnt/tpm2-00.permall
    check "unmounts" unmounted mnt

    # What the kernel itself uses.
    loop_off "$loop"
    truncate -s 0 disk
    truncate -s 6M disk
    loop=$(loop_on disk $sector) || exit 99
    mkfs.ext4 -q -O ^has_journal -L precious "$loop" >/dev/null
    sync
    before=$(hash disk)
    check_exit 4 "a file system is not formatted" "$VNVRAM" format "$loop"
    matches "and called by its name" "$ERR" "holds a file system \\(ext4, labelled 'precious'\\)"
    is "nothing was written" "$(hash disk)" "$before"
    mount "$loop" mnt2
    check_exit 11 "one that is mounted is not, with --force either" "$VNVRAM" format --force "$loop"
    matches "and the message says where" "$ERR" "mounted on $TMP/mnt2"
    umount mnt2
    check "with --force, else" "$VNVRAM" format --force "$loop"
    check "nothing is left of it" sh -c '! blkid -p "$1"' sh "$loop"
    rm -f other
    loop_off "$loop"
done

# Larger sectors would tear what lies beside.
rm -f disk
truncate -s 6M disk
if loop=$(loop_on disk 8192); then
    check_exit 1 "larger sectors than blocks are refused" "$VNVRAM" format "$loop"
    matches "and the message says why" "$ERR" 'sectors of 8192 bytes are larger'
    loop_off "$loop"
fi

# A partition is held, and so the disk that it is part of.
truncate -s 0 disk
truncate -s 12M disk
python3 - disk <<'PY'
import struct, sys
# An MBR with one partition, of 8 MiB from 1 MiB on.
entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\0\2\0", 2048, 16384)
with open(sys.argv[1], "r+b") as f:
    f.seek(446)
    f.write(entry + bytes(48) + b"\x55\xaa")
PY
loop=$(loop_on disk 512 partitions) || exit 99
check_exit 4 "a partition table is not formatted" "$VNVRAM" format "$loop"
matches "and called by its name" "$ERR" 'holds a partition table \(dos\)'
sys=/sys/block/${loop#/dev/}/${loop#/dev/}p1/dev
if [ -e "$sys" ]; then
    mknod part b "$(cut -d: -f1 "$sys")" "$(cut -d: -f2 "$sys")" # udev is not everywhere
    check "a partition is" "$VNVRAM" format part
    check "mounts" mounted part mnt
    check_exit 11 "its disk is in use then" "$VNVRAM" format --force "$loop"
    check_exit 11 "and the file beneath" "$VNVRAM" format --force disk
    check "unmounts" unmounted mnt
    check "the disk is free again, to be taken whole" "$VNVRAM" format --force "$loop"
    check "which takes away the table" sh -c '! blkid -p "$1"' sh "$loop"
else
    echo "# this kernel knows no partitions of that kind"
fi
loop_off "$loop"

# A read-only device.
rm -f disk
new_image disk || exit 99
loop=$(loop_on disk 512 ro) || exit 99
check_exit 1 "a read-only device is refused for writing" "$VNVRAM" mount "$loop" mnt
matches "and the message says what to do" "$ERR" 'is a read-only device; what to do: mount it with -o ro'
check_exit 1 "format refuses it, too" "$VNVRAM" format --force "$loop"
check "read-only it mounts" mounted "$loop" mnt -o ro
check_exit 2 "and refuses writers" sh -c 'echo x >mnt/f'
check "unmounts" unmounted mnt
check "check looks at it" "$VNVRAM" check "$loop"
loop_off "$loop"

# Too small, and not whole blocks.
truncate -s 1M small
loop=$(loop_on small 512) || exit 99
check_exit 10 "a device that is too small is told" "$VNVRAM" format "$loop"
is "and left blank" "$(tr -d '\0' <small | wc -c)" 0
loop_off "$loop"
truncate -s $((4 * 1024 * 1024 + 512 * 3)) odd
loop=$(loop_on odd 512) || exit 99
check "one that ends in the middle of a block is formatted" "$VNVRAM" format "$loop"
check "and checked" "$VNVRAM" check "$loop"
loop_off "$loop"
finish
