#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# NV counters through rounds of resets, power cycles, kill -9 and migrations (mount_counters.py).
# COUNTERS_SEED chooses another plan, VNVRAM_TEST_SCALE makes it longer.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
. "${srcdir:-$(dirname "$0")/..}/tests/lib.sh"
need_fuse
need python3

check "counters never go backwards and never repeat" python3 "$srcdir/tests/mount_counters.py" \
    "$VNVRAM" "$TMP" $((200 * ${VNVRAM_TEST_SCALE:-1})) "${COUNTERS_SEED:-1}"
sed 's/^/# /' "$OUT"
finish
