#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What is committed when, with shells and tools as they are.
#
# A crash image is a copy of the image file taken between two steps: the file changes only in a commit, so the
# copy is what a power cut at that moment leaves.  It is mounted read-only and looked into.  Shells are held
# between their system calls by a named pipe that they read from.
. "${srcdir:-$(dirname "$0")/..}/tests/lib.sh"
need_fuse
need jq

cases=$(dirname "$VNVRAM")/tests/posix_cases
image=$TMP/image
mnt=$TMP/mnt
pipe=$TMP/pipe

# ---- helpers ---------------------------------------------------------------------------------------

# What a crash now would leave of NAME: its content, or "(none)".
crash_content() {
    cp "$image" "$TMP/crash.img" && mkdir -p "$TMP/crash" &&
        "$VNVRAM" mount -o ro "$TMP/crash.img" "$TMP/crash" || return
    if [ -e "$TMP/crash/$1" ]; then cat "$TMP/crash/$1"; else echo "(none)"; fi
    "$VNVRAM" unmount "$TMP/crash"
}
mounts+=("$TMP/crash")

# crash "what" NAME CONTENT: one test.
crash() {
    is "$1" "$(crash_content "$2")" "$3"
}

crash_shows() {
    [ "$(crash_content "$1")" = "$2" ]
}

# For what RELEASE commits, which comes after close() has returned.
soon() {
    if wait_until 30 crash_shows "$2" "$3"; then
        pass "$1"
    else
        fail "$1" "after 30 s still: $(crash_content "$2")"
    fi
}

generation() {
    jq .generation "$mnt/.vnvram/status"
}

content_is() {
    [ "$(cat "$1")" = "$2" ]
}

size_is() {
    [ "$(stat -c %s "$1")" = "$2" ]
}

# now NAME CONTENT: waits until the mount itself shows it.
now() {
    wait_until 30 content_is "$mnt/$1" "$2" || fail "$1 shows $2" "$(cat "$mnt/$1")"
}

# Starts COMMAND with its standard input held open by us; give writes to it, done_with ends it.
hold() {
    rm -f "$pipe" && mkfifo "$pipe"
    bash -c "$1" <"$pipe" &
    held=$!
    exec {gate}>"$pipe"
}

give() {
    printf '%s' "$1" >&"$gate"
}

done_with() {
    exec {gate}>&-
    wait "$held" || fail "held command ended" "exit $?"
}

# Puts "old" into NAME, committed.
old() {
    echo old >"$mnt/$1"
}

# sys STEPS: system calls, by the driver in posix_cases.c, which must succeed.
start_driver() {
    coproc DRIVER { exec "$cases" "$mnt" steps; }
    driver=$DRIVER_PID
}

sys() {
    local answer
    echo "$1" >&"${DRIVER[1]}"
    read -r answer <&"${DRIVER[0]}"
    [ "$answer" = ok ] || fail "$1" "$answer"
}

stop_driver() {
    eval "exec ${DRIVER[1]}>&-"
    wait "$driver"
}

# ---- shells and tools ------------------------------------------------------------------------------

cat_redirected() {
    old f
    crash "echo >f is committed when the shell goes on" f old
    hold "cat >'$mnt/f'"
    wait_until 30 size_is "$mnt/f" 0
    crash "cat >f: the truncation alone is not committed" f old
    give new1
    now f new1
    crash "cat >f: what is written and not closed is not committed" f old
    give new2
    done_with
    crash "cat >f: committed when cat has ended" f new1new2
}

echo_redirected() {
    old f
    echo new >"$mnt/f"
    crash "echo >f over old content" f new
    printf '%s\n' a b c >"$mnt/f"
    crash "printf >f" f $'a\nb\nc'
    echo more >>"$mnt/f"
    crash "echo >>f" f $'a\nb\nc\nmore'
    : >"$mnt/f"
    soon ": >f is committed soon after" f ""
    echo first >"$mnt/new"
    crash "echo >f makes a new file" new first
}

descriptor_of_a_shell() {
    old f
    exec 3>"$mnt/f"
    crash "exec 3>f: nothing committed" f old
    echo one >&3
    crash "echo >&3: committed, for the shell closed a copy of the descriptor" f one
    echo two >&3
    crash "echo >&3 again" f $'one\ntwo'
    exec 3>&-
    crash "exec 3>&-" f $'one\ntwo'
}

subshell() {
    old f
    hold "(echo one; read -r x; echo two) >'$mnt/f'"
    now f one
    crash "(echo; echo) >f: not committed between the two" f old
    give $'x\n'
    done_with
    crash "(echo; echo) >f: both committed at its end" f $'one\ntwo'
    old f
    hold "(echo one; /bin/true; echo two; read -r x; echo three) >'$mnt/f'"
    now f $'one\ntwo'
    crash "a child that ends closes its copy: what was written then is committed" f one
    give $'x\n'
    done_with
    crash "and the rest at the end" f $'one\ntwo\nthree'
}

pipelines() {
    old f
    hold "tee '$mnt/f' >/dev/null"
    wait_until 30 size_is "$mnt/f" 0
    give new
    now f new
    crash "tee f: not committed while it runs" f old
    done_with
    crash "tee f: committed at its end" f new
    hold "tee -a '$mnt/f' >/dev/null"
    give more
    now f newmore
    crash "tee -a f: not committed while it runs" f new
    done_with
    crash "tee -a f: committed at its end" f newmore
    printf 'c\nb\na\n' | sort >"$mnt/f"
    crash "sort >f" f $'a\nb\nc'
    sort -r -o "$mnt/f" "$mnt/f"
    crash "sort -o f f" f $'c\nb\na'
}

dd_writes() {
    old f
    hold "dd of='$mnt/f' bs=3 status=none"
    wait_until 30 size_is "$mnt/f" 0
    give new
    now f new
    crash "dd of=f: not committed while it runs" f old
    done_with
    crash "dd of=f: committed at its end" f new
    hold "dd of='$mnt/f' bs=4 oflag=sync status=none"
    wait_until 30 size_is "$mnt/f" 0
    crash "dd oflag=sync: the truncation alone is not committed" f new
    give one1
    now f one1
    # The write is seen before its sync has ended.
    soon "dd oflag=sync: each block is committed" f one1
    give two2
    now f one1two2
    soon "dd oflag=sync: and the next" f one1two2
    done_with
    printf X | dd of="$mnt/f" bs=1 seek=2 conv=notrunc status=none
    crash "dd conv=notrunc seek=" f onX1two2
    printf synced | dd of="$mnt/f" conv=fsync status=none
    crash "dd conv=fsync" f synced
}

copies_and_moves() {
    old f
    echo from >"$TMP/from"
    cp "$TMP/from" "$mnt/f"
    crash "cp over f" f from
    chmod 600 "$TMP/from" && touch -d '2001-02-03 04:05:06.789' "$TMP/from"
    cp -p "$TMP/from" "$mnt/f"
    cp "$image" "$TMP/crash.img" && "$VNVRAM" mount -o ro "$TMP/crash.img" "$TMP/crash"
    is "cp -p: the attributes, too" "$(stat -c '%a %y' "$TMP/crash/f")" "$(stat -c '%a %y' "$TMP/from")"
    "$VNVRAM" unmount "$TMP/crash"
    echo inner >"$mnt/g"
    mv "$mnt/g" "$mnt/f"
    crash "mv g f: f is new" f inner
    crash "mv g f: g is gone" g "(none)"
    cp "$TMP/from" "$TMP/away" && mv "$TMP/away" "$mnt/f"
    crash "mv from outside over f" f from
    rm "$mnt/f"
    crash "rm f" f "(none)"
    install -m 640 "$TMP/from" "$mnt/f"
    crash "install" f from
    truncate -s 2 "$mnt/f"
    soon "truncate -s" f fr
}

editors() {
    old f
    echo edited | dd of="$mnt/.f.tmp" conv=fsync status=none
    crash "a save's temporary file is committed by its fsync" .f.tmp edited
    crash "and f is still old" f old
    mv "$mnt/.f.tmp" "$mnt/f"
    crash "the rename makes f new" f edited
    crash "and leaves no temporary file" .f.tmp "(none)"
    sed -i s/edited/sedited/ "$mnt/f"
    crash "sed -i" f sedited
    if command -v ed >/dev/null; then
        printf '%s\n' '1s/sedited/eded/' w q | ed -s "$mnt/f"
        crash "ed" f eded
    fi
    for vim in vim vim.tiny; do
        command -v "$vim" >/dev/null || continue
        "$vim" -es -u NONE -N -c "1s/.*/by $vim/" -c wq "$mnt/f" </dev/null >/dev/null 2>&1
        crash "$vim" f "by $vim"
    done
    is "editors leave nothing else" "$(cd "$mnt" && echo .[!.]* *)" ".[!.]* f new"
}

# ---- system calls ----------------------------------------------------------------------------------

# swtpm's own sequence (its storage on a directory), a crash after each call.
swtpm_stores() {
    echo old >"$mnt/tpm2-00.permall"
    sys "open 0 .lock wronly,creat,trunc,nofollow 0660"
    sys "open 1 tpm2-00.permall rdonly; fchmod 1 0640; fis 1 size 4; close 1"
    sys "open 2 TMP2-00.permall wronly,creat,trunc,nofollow 0640"
    crash "swtpm: temporary file opened" tpm2-00.permall old
    sys "write 2 n*6000"
    crash "swtpm: blob written" tpm2-00.permall old
    sys "close 2"
    crash "swtpm: temporary file closed; the state is the old one" tpm2-00.permall old
    is "swtpm: and the temporary file is whole" "$(crash_content TMP2-00.permall | wc -c)" 6000
    sys "rename TMP2-00.permall tpm2-00.permall"
    is "swtpm: renamed, the state is the new one" "$(crash_content tpm2-00.permall | wc -c)" 6000
    crash "swtpm: no temporary file" TMP2-00.permall "(none)"
    sys "close 0; unlink .lock; unlink tpm2-00.permall"
}

# swtpm's other storage: one mapped file.
swtpm_maps() {
    sys "open 1 linear rdwr,creat 0640; ftruncate 1 4096; ftruncate 1 8192; map 1 8192; poke 0 abc; msync"
    is "a mapped file: msync commits" "$(crash_content linear | head -c 3)" abc
    sys "poke 0 xyz"
    is "a mapped file: a store alone does not" "$(crash_content linear | head -c 3)" abc
    sys "close 1; poke 1 Y; unmap"
    wait_until 30 mapped_is xYz
    is "a mapped file: late pages follow at the last release" "$(crash_content linear | head -c 3)" xYz
    sys "unlink linear"
}

mapped_is() {
    [ "$(crash_content linear | head -c 3)" = "$1" ]
}

commit_points() {
    sys "put a old; put b old; open 1 a rdwr; open 2 b rdwr; pwrite 1 0 new; pwrite 2 0 new"
    sys "fsync 2"
    crash "fsync of b commits b" b new
    crash "fsync of b carries no half-written a" a old
    sys "close 2"
    crash "close of b carries no half-written a" a old
    sys "put c x; rename c d; unlink d; chmod b 0600"
    crash "nor do rename, unlink and chmod of others" a old
    sys "chmod a 0604"
    crash "chmod of a carries no half-written bytes" a old
    sys "fdatasync 1"
    crash "fdatasync commits" a new
    sys "pwrite 1 3 er; rename a e"
    crash "rename carries the file's own bytes" e newer
    crash "and the old name is gone" a "(none)"
    sys "ftruncate 1 3"
    crash "ftruncate on a handle is a write" e newer
    sys "close 1"
    crash "committed at close" e new
    sys "open 1 e wronly,trunc; close 1"
    soon "O_TRUNC alone is committed at release" e ""
    sys "put e x; open 1 e wronly,trunc; write 1 y; rename b e"
    crash "rename over a file that is being written" e new
    sys "write 1 z; close 1"
    crash "whose close changes nothing" e new
    sys "put a one; put b two; rename a b exchange"
    crash "exchange: a" a two
    crash "exchange: b" b one
    sys "open 1 g rdwr,creat 0600; write 1 never; unlink g; fsync 1; close 1"
    crash "an unlinked file is not there" g "(none)"
    sys "unlink a; unlink b; unlink e"
}

is_settled() {
    jq -e .clean "$mnt/.vnvram/status" >/dev/null
}

no_commit_without_a_change() {
    local before
    sys "put a x"
    check "settles" wait_until 30 is_settled # no commit of its own may come in between
    before=$(generation)
    sys "open 1 a rdwr; close 1; open 1 a rdonly; read 1 x; fsync 1; close 1; is a size 1; access a 0"
    sys "open 1 . rdonly; fsync 1; close 1; count $(ls -A "$mnt" | wc -l)"
    is "reading, opening and closing commit nothing" "$(generation)" "$before"
    sys "unlink a"
}

# ---- run -------------------------------------------------------------------------------------------

check "an image" new_image "$image"
check "mounts" mounted "$image" "$mnt"
cat_redirected
echo_redirected
descriptor_of_a_shell
subshell
pipelines
dd_writes
copies_and_moves
editors
start_driver
swtpm_stores
swtpm_maps
commit_points
no_commit_without_a_change
stop_driver
check "unmounts" unmounted "$mnt"
check "the image is clean" "$VNVRAM" check "$image"
finish
