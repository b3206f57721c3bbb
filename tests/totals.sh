#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# scripts/tap-totals: no failure and no skip goes uncounted.
. "${srcdir:-.}/tests/lib.sh"

totals() {
    "$srcdir/scripts/tap-totals" <<<"$1"
}

check_exit 0 "all passed" totals $'# TOTAL: 7\n# PASS:  6\n# SKIP:  0\n# XFAIL: 1\n# FAIL:  0\n# XPASS: 0\n# ERROR: 0'
is "are counted" "$(cat "$OUT")" "7 passed, 0 failed, 0 skipped"
check_exit 1 "a failure is one" totals $'# PASS:  6\n# FAIL:  2\n# XPASS: 1\n# ERROR: 3'
is "with what is as bad" "$(cat "$OUT")" "6 passed, 6 failed, 0 skipped"
check_exit 1 "a skip is no success" totals $'# PASS:  6\n# SKIP:  1\n# FAIL:  0'
is "and is counted" "$(cat "$OUT")" "6 passed, 0 failed, 1 skipped"
check_exit 0 "two runs" totals $'# PASS:  6\n# FAIL:  0\n# PASS:  5\n# FAIL:  0'
is "are added" "$(cat "$OUT")" "11 passed, 0 failed, 0 skipped"
check_exit 1 "a failure with its log" totals $'   vnvram 0.1.0: ./test-suite.log\n# PASS:  6\n# FAIL:  1\nnot ok 1\n\
Testsuite summary for vnvram 0.1.0\n# PASS:  6\n# FAIL:  1\nmake: *** [Makefile:9: check] Error 1'
is "counts once" "$(cat "$OUT")" "6 passed, 1 failed, 0 skipped"
check_exit 1 "a make that broke" totals $'# PASS:  6\n# FAIL:  0\nmake[1]: *** [Makefile:9: x.o] Error 1'
is "is a failure" "$(cat "$OUT")" "6 passed, 1 failed, 0 skipped"
check_exit 1 "nothing at all is no success" totals ""
is "it is nothing" "$(cat "$OUT")" "0 passed, 0 failed, 0 skipped"
finish
