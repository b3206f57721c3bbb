#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# fio's verify modes: what is written by each engine is read back and compared.
# Nothing here is about durability, and it commits a lot: in memory, where there is such a place.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
. "${srcdir:-$(dirname "$0")/..}/tests/lib.sh"
need fio
need_fuse

image=$TMP/image
mnt=$TMP/mnt
scale=${VNVRAM_TEST_SCALE:-1}

run_fio() {
    (cd "$TMP" && fio --directory="$mnt" --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
        --randrepeat=1 --invalidate=0 --fallocate=none --output-format=terse "$@")
}

verify() {
    local name=$1
    shift
    check "$name" run_fio --name=job --filename=fio --size=240k --loops=$((8 * scale)) --rw=randwrite \
        --do_verify=1 "$@"
    rm -f "$mnt/fio"
}

kept() {
    run_fio --name=kept --filename=kept --size=200k --bs=4k --rw=write --ioengine=psync "$@"
}

check "an image" new_image "$image"
check "mounts" mounted "$image" "$mnt"
verify "psync" --ioengine=psync --bs=4k --fsync=16
verify "psync, odd sizes" --ioengine=psync --bsrange=512-16k --bs_unaligned --fdatasync=8
verify "psync, past the page cache" --ioengine=psync --bs=4k --direct=1
verify "libaio" --ioengine=libaio --bs=4k --iodepth=8
verify "libaio, past the page cache" --ioengine=libaio --bs=8k --iodepth=8 --direct=1
verify "mmap" --ioengine=mmap --bs=4k --fsync=16
verify "mmap, larger blocks" --ioengine=mmap --bs=16k
check "four jobs on files of their own" run_fio --name=jobs --numjobs=4 --size=60k --bs=2k --loops=4 \
    --rw=randwrite --do_verify=1 --fsync=8 --ioengine=psync
check "their removal" rm "$mnt"/jobs.*

check "a file written" kept --do_verify=0
check "unmounts" unmounted "$mnt"
check "the image is clean" "$VNVRAM" check "$image"
check "mounts again" mounted "$image" "$mnt"
check "verifies after the remount" kept --verify_only
spoil "$mnt/kept" 100000
if kept --verify_only >"$OUT" 2>&1; then
    fail "fio notices one changed byte"
else
    pass "fio notices one changed byte"
fi
check "unmounts again" unmounted "$mnt"
finish
