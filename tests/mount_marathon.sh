#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A short run of scripts/crash-marathon, with the image in a file, on a loop device and behind an NBD server.
# VNVRAM_TEST_SCALE multiplies its time, MARATHON_SEED repeats a plan.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
. "${srcdir:-$(dirname "$0")/..}/tests/lib.sh"
need_fuse
need python3

export VNVRAM
marathon() { # WHERE SECONDS
    check "$1: no crash breaks a promise" "$srcdir/scripts/crash-marathon" --on "$1" \
        --seconds $(($2 * ${VNVRAM_TEST_SCALE:-1})) --seed "${MARATHON_SEED:-1}"
    sed 's/^/# /' "$OUT"
    matches "$1: it has cut and killed" "$OUT" '[1-9][0-9]* acknowledged operations.*torn.: [1-9]'
}

marathon file 12
marathon nbd 6
matches "the server, too" "$OUT" '[1-9][0-9]* servers killed'
if [ "$(id -u)" -eq 0 ] && [ -c /dev/loop-control ]; then
    marathon loop 6
fi
finish
