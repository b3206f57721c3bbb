#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# mount_ovmf.sh - a guest with UEFI and Secure Boot, its variables and its TPM in one image
# (mount_ovmf.py).  Three boots of a firmware take minutes: "make check-slow" runs it.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
. "${srcdir:-.}/tests/lib.sh"

need_fuse
need_guest
[ -e /usr/share/OVMF/OVMF_VARS_4M.ms.fd ] || skip_all "OVMF is not there"

python3 "$srcdir/tests/mount_ovmf.py" "$VNVRAM" "$TMP"
