#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# cli_answers.sh - what commands say where there is little to say, and where what they have to say gets lost.
. "${srcdir:-.}/tests/lib.sh"
cd "$TMP" || exit 99
printf '%064d\n' 1 >key
printf 'a passphrase' >words
chmod 600 key words

new_image plain.img >/dev/null
new_image sealed.img -o key_file=key >/dev/null

# ---- keys --------------------------------------------------------------------------------------------
check_exit 1 "a recovery key that nobody gets to see" \
    sh -c '"$1" key add --recovery -o key_file=key sealed.img >/dev/full' - "$VNVRAM"
matches "... is named, with what to do" "$ERR" '^vnvram: sealed\.img: .*key slot 1 .*key remove --slot=1'
check "it is taken away again" "$VNVRAM" key remove --slot=1 -o key_file=key sealed.img
unread() { # COMMAND...: with nobody at the other end of its output
    python3 -c 'import os, subprocess, sys; r, w = os.pipe(); os.close(r); sys.exit(subprocess.run(sys.argv[1:], stdout=w).returncode)' "$@"
}
check_exit 1 "nor one whose reader has gone" unread "$VNVRAM" key add --recovery -o key_file=key sealed.img
matches "... is named, too" "$ERR" '^vnvram: sealed\.img: .*key slot 1 .*key remove --slot=1'
check_exit 2 "key test has no JSON" "$VNVRAM" key test --json -o key_file=key sealed.img
check "key list has" "$VNVRAM" key list --json sealed.img
check "a passphrase that costs little" "$VNVRAM" key add -o key_file=key \
    -n key_file=words,key_format=passphrase,kdf_memory=64,kdf_time=1 sealed.img
check "key list" "$VNVRAM" key list sealed.img
matches "... tells what it costs" "$OUT" '^2: passphrase, .*Argon2id \(64 KiB, 1 pass, 2 lanes\)'
check_exit 8 "keys of an image that is not sealed" "$VNVRAM" key list plain.img
is "... speaks of no key that was given" "$(cat "$ERR")" "vnvram: plain.img: is not sealed: it has no keys"

# ---- a name that is no text --------------------------------------------------------------------------
odd=$(printf 'odd\377.img')
cp sealed.img "$odd"
for command in "info" "check" "key list"; do
    # shellcheck disable=SC2086
    check "vnvram $command --json of it" "$VNVRAM" $command --json "$odd"
    check "... is UTF-8" iconv -f UTF-8 -t UTF-16 "$OUT"
done

# ---- the rest ----------------------------------------------------------------------------------------
check_exit 1 "show of an image that is not there" "$VNVRAM" show gone.img file
is "... is one line" "$(cat "$ERR")" "vnvram: gone.img: cannot open: No such file or directory"
check_exit 1 "show of a file that is not there" "$VNVRAM" show plain.img file
is "... is one, too" "$(cat "$ERR")" 'vnvram: plain.img: holds no file "file"'
head -c 100000 sealed.img >short.img
check_exit 10 "info of a truncated sealed image, without its key" "$VNVRAM" info short.img
check_exit 10 "... as check finds it" "$VNVRAM" check short.img
check "restore where nothing has changed" "$VNVRAM" restore plain.img
matches "... says so" "$ERR" 'plain\.img: nothing is kept'
check "grow by one" "$VNVRAM" grow --slots 1x4K plain.img
matches "... slot" "$OUT" '^plain\.img: 1 slot added, for 4 KiB more'
finish
