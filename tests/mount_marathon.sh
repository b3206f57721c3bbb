#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A short run of scripts/crash-marathon.  VNVRAM_TEST_SCALE multiplies its time, MARATHON_SEED
# repeats a plan.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
. "${srcdir:-$(dirname "$0")/..}/tests/lib.sh"
need_fuse
need python3

export VNVRAM
check "no crash breaks a promise" "$srcdir/scripts/crash-marathon" \
    --seconds $((12 * ${VNVRAM_TEST_SCALE:-1})) --seed "${MARATHON_SEED:-1}"
sed 's/^/# /' "$OUT"
matches "it has cut and killed" "$OUT" '[1-9][0-9]* acknowledged operations.*torn.: [1-9]'
finish
