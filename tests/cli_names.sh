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
"$VNVRAM" format "$TMP/a.img"
check_exit 1 "an answer that cannot be written is a failure" \
    sh -c '"$VNVRAM" info "$1" >/dev/full' - "$TMP/a.img"
matches "and says so" "$ERR" 'cannot write to standard output: No space left'

check_exit 2 "an unknown option is a usage error" "$VNVRAM" info --frob "$TMP/a.img"
matches "which names it" "$ERR" 'unknown option --frob'
check_exit 2 "so is an unknown letter" "$VNVRAM" info -q "$TMP/a.img"
matches "which is named" "$ERR" 'unknown option -q'
check_exit 2 "so is an unknown word" "$VNVRAM" mount -o ro,frob=1 "$TMP/a.img" "$TMP"
matches "which is named" "$ERR" 'unknown option -o frob'
check_exit 2 "so is a word of another command" "$VNVRAM" info -o ro "$TMP/a.img"
check_exit 2 "so is a word without its argument" "$VNVRAM" mount -o uid "$TMP/a.img" "$TMP"
matches "which is named" "$ERR" 'option uid: an argument is missing: uid=USER'
check_exit 2 "so is one with an argument too many" "$VNVRAM" mount -o ro=1 "$TMP/a.img" "$TMP"
matches "which is named" "$ERR" 'option ro: takes no argument'
check_exit 2 "so is a switch without its argument" "$VNVRAM" format --slots
matches "which is named" "$ERR" 'option --slots: an argument is missing'
check_exit 2 "so is a switch with an argument too many" "$VNVRAM" info --json=1 "$TMP/a.img"
matches "which is named" "$ERR" 'option --json=1: takes no argument'
check_exit 2 "so is a missing argument" "$VNVRAM" mount "$TMP/a.img"
matches "which is answered with the usage" "$ERR" 'usage: vnvram mount IMAGE DIRECTORY$'
check_exit 2 "so is one argument too many" "$VNVRAM" size more
matches "which is answered with the usage" "$ERR" 'usage: vnvram size$'
mkdir "$TMP/dir"
check_exit 1 "a directory is no image" "$VNVRAM" info "$TMP/dir"
matches "and it says what one is" "$ERR" "$TMP/dir: a directory; an image is a file or a block device"
check_exit 1 "mount with its arguments exchanged fails" "$VNVRAM" mount "$TMP/dir" "$TMP/a.img"
matches "and it says what their order is" "$ERR" 'the image goes first, then the directory'
for word in uid=nobody-there gid=-1 umask=9 umask=01000 tpm=3.0 startup=never key_format=base64 \
    key_fd=x; do
    check_exit 2 "-o $word is a usage error" "$VNVRAM" mount -o "$word" "$TMP/a.img" "$TMP"
    matches "which names ${word%%=*}" "$ERR" "${word%%=*}"
done
check_exit 9 "another cipher is not supported" "$VNVRAM" mount -o enc_mode=xts "$TMP/a.img" "$TMP"
matches "which is named" "$ERR" 'enc_mode=xts'
finish
