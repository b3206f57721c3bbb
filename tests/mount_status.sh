#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# mount_status.sh - what vnvram status says of mounts that are well, and of those that are not.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need jq python3
cd "$TMP" || exit 99

health() { # DIRECTORY
    "$VNVRAM" status --json "$1" | jq -r '.mounts[0].health'
}

pid_of() { # DIRECTORY
    jq .pid "$1/.vnvram/status"
}

is_dead() { # DIRECTORY
    ! stat "$1/.vnvram/status" >/dev/null 2>&1
}

new_image a.img >/dev/null
new_image 'b b.img' >/dev/null
check_exit 2 "neither directory nor --all" "$VNVRAM" status
check_exit 2 "both" "$VNVRAM" status --all .
check_exit 1 "a directory that is not there" "$VNVRAM" status nowhere
check_exit 1 "a directory that is none of ours" "$VNVRAM" status "$TMP"
matches "... says so" "$ERR" 'not mounted by vnvram'

check "a mount with a TPM" mounted a.img a -o tpm=2.0
check "another" mounted 'b b.img' 'b b'
check_exit 0 "a mount that is well" "$VNVRAM" status a
matches "... in text" "$OUT" "^ok +$TMP/a  $TMP/a\.img  generation [0-9]+, committed 20[0-9-]+T[0-9:]+Z, TPM 2\.0 running$"
check "in JSON" "$VNVRAM" status --json a
is "... what it is" "$(jq -r '.mounts[0] | .health, .directory, .image, .status.tpm.state' "$OUT")" "ok
$TMP/a
$TMP/a.img
running"
is "... as the mount says" "$(jq '.mounts[0] | .generation == .status.generation' "$OUT")" true
"$VNVRAM" status --all >"$OUT" 2>"$ERR" # others may have mounts here that are not well
is "all: these two" "$(grep -c " $TMP/" "$OUT")" 2
matches "... with a space in its name" "$OUT" "^ok +$TMP/b b  $TMP/b b\.img  generation"

pid=$(pid_of a)
kill -STOP "$pid"
is "a daemon that is stopped" "$(health a)" silent
"$VNVRAM" status --all >"$OUT" 2>"$ERR"
is "all: its exit code" $? 1
matches "the other one is well all the same" "$OUT" "^ok +$TMP/b b "
kill -CONT "$pid"
check "it goes on" "$VNVRAM" status a
kill -9 "$pid"
check "a daemon that was killed" wait_until 20 is_dead a
is "... is dead" "$(health a)" dead
check_exit 1 "... which is a failure" "$VNVRAM" status a
check "unmount it" unmounted a

check "mount read-only" mounted a.img a -o ro
is "asked for, it is well" "$(health a)" ok
check "unmount" unmounted a
check "mount" mounted a.img a
cp a.img older.img
echo new >a/file
write_over a.img older.img # somebody else's hand
echo newer 2>/dev/null >a/file
is "a mount that others have written to" "$(health a)" read-only
matches "... and why" <("$VNVRAM" status a) 'somebody else has written'
unmounted a

as_nobody() {
    setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
}

if [ "$(id -u)" -eq 0 ]; then
    cp "$VNVRAM" program && chmod 755 program
    install -d -o 65534 theirs theirs/mnt
    check "a user's image" as_nobody ./program format theirs/image
    check "mounted by that user" as_nobody ./program mount theirs/image theirs/mnt
    mounts+=("$TMP/theirs/mnt")
    check_exit 1 "lets root not in" cat theirs/mnt/.vnvram/status
    is "root asks it as that user" "$(health theirs/mnt)" ok
fi
finish
