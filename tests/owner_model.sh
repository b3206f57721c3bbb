#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# One writer across hosts, as a model: all histories of a few steps, and each rule is needed.
# VNVRAM_TEST_SCALE makes it longer.
deep=()
[ "${VNVRAM_TEST_SCALE:-1}" = 1 ] || deep=(--deep)
exec python3 "${srcdir:-.}/tests/owner_model.py" "${deep[@]}"
