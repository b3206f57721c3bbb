#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# cli_mistakes.sh - what people mistype, and what they are told then.
. "${srcdir:-.}/tests/lib.sh"
cd "$TMP" || exit 99
mkdir dir

told() { # NAME REGEX COMMAND...
    local name=$1 regex=$2
    shift 2
    check_exit 2 "$name" "$VNVRAM" "$@"
    matches "... $regex" "$ERR" "$regex"
}

told "umount" 'did you mean "unmount"\?' umount dir
told "fromat" 'did you mean "format"\?' fromat a.img
told "a command that nothing is near to" 'no command "frobnicate"; "vnvram help"' frobnicate
told "a word without its underscore" 'unknown option -o keyfile: did you mean -o key_file\?' mount -o keyfile=k a.img dir
told "a word with a hyphen" 'did you mean -o allow_other\?' mount -o allow-other a.img dir
told "a word as a switch" 'did you mean -o allow_other\?' mount --allow-other a.img dir
told "a switch with its value" 'did you mean --size\?' format --sise=4M a.img
told "a word that nothing is near to" 'unknown option -o frobnicate; --help' mount -o frobnicate a.img dir
told "another command's option is no guess" 'unknown option --lazy; --help' mount --lazy a.img dir
told "remount" 'unmount it, and mount it again' mount -o remount,ro a.img dir
told "a user who is not there" 'option uid: "nobody-at-all" is not a user' mount -o uid=nobody-at-all a.img dir
told "a group that is not there" 'option gid: "nobody-at-all" is not a group' mount -o gid=nobody-at-all a.img dir
told "a slot that is too large" '"1x4G" is not COUNTxSIZE.*at most' format --slots 1x4G a.img
told "a key slot that is not there" '"9" is not a key slot, 0 to 7' key remove --slot 9 a.img
check "help of mount" "$VNVRAM" mount --help
is "... names no option in part" "$(grep -cE "[a-z]\.\.\." "$OUT")" 0
told "an argument that is empty" 'argument 1 is empty' format ''
told "... wherever it stands" 'argument 2 is empty' mount a.img ''

check_exit 1 "a name with a line's end and a colour in it" "$VNVRAM" info "$(printf 'two\nlines\033[31m.img')"
is "... is one line all the same" "$(cat "$ERR")" 'vnvram: two\x0alines\x1b[31m.img: cannot open: No such file or directory'
check_exit 1 "a name with a colour in one character, and an umlaut" "$VNVRAM" info "$(printf '\302\23331m\303\234.img')"
is "... loses the colour only" "$(cat "$ERR")" 'vnvram: \xc2\x9b31m'"$(printf '\303\234')"'.img: cannot open: No such file or directory'
long=$(printf 'long/%.0s' {1..600})
check_exit 1 "a path of 3000 bytes" "$VNVRAM" info "${long}a.img"
matches "... leaves room for what is wrong with it" "$ERR" '^vnvram: long/.*\.\.\..*/a\.img: cannot open: No such file or directory$'
is "nothing was made" "$(ls)" dir
finish
