#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The main job with one call failing in each run (mount_faults.py).  FAULTS_SEED chooses the sample;
# with VNVRAM_TEST_SCALE=all every call fails once in every way, on plain and sealed images, which takes
# ten minutes.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
. "${srcdir:-$(dirname "$0")/..}/tests/lib.sh"
need_fuse
need python3

library=$(dirname "$(realpath "$VNVRAM")")/tests/faultlib.so
scale=${VNVRAM_TEST_SCALE:-1}
faults() {
    python3 "$srcdir/tests/mount_faults.py" "$VNVRAM" "$library" "$@"
}

if [ "$scale" = all ]; then
    check "every call fails once in every way" faults --all --jobs "$(nproc)"
else
    check "a sample of failing calls" faults --seconds $((25 * scale)) --seed "${FAULTS_SEED:-1}"
fi
sed 's/^/# /' "$OUT"
finish
