#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The program by its names, its help, and what it says about a wrong command line.
. "${srcdir:-.}/tests/lib.sh"

check_exit 0 "--version succeeds" "$VNVRAM" --version
matches "--version tells name and version" "$OUT" '^vnvram [0-9]+\.[0-9]+\.[0-9]+$'
check_exit 0 "help succeeds" "$VNVRAM" help
matches "help lists the commands on stdout" "$OUT" '^Commands:$'
check_exit 2 "no command is a usage error" "$VNVRAM"
matches "which shows the commands on stderr" "$ERR" '^Commands:$'
check_exit 2 "an unknown command is a usage error" "$VNVRAM" frobnicate
matches "which names it" "$ERR" 'no command "frobnicate"'
ln -s "$VNVRAM" "$TMP/vnvram"
check_exit 0 "it works through a symlink" "$TMP/vnvram" --version
finish
