#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# One writer across hosts: two host ids on one disk, which reach it in ways that no lock of one host joins: two
# loop devices over a file without a name, and an NBD export of which another server makes a second one.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need_root
need python3 nbdkit unshare
alone "$@"
cd "$TMP" || exit 99
truncate -s 8M probe
probe=$(loop_on probe) || skip_all "no loop device can be attached"
loop_off "$probe"
mkdir a b c
pids=()
stop_all() {
    [ ${#pids[@]} -eq 0 ] || kill -9 "${pids[@]}" 2>/dev/null
    cleanup
}
trap stop_all EXIT

status() { # DIRECTORY EXPRESSION
    python3 -c 'import json, sys; s = json.load(open(sys.argv[1] + "/.vnvram/status")); print(eval(sys.argv[2]))' "$@"
}

info() { # DEVICE EXPRESSION
    "$VNVRAM" info --json "$1" | python3 -c 'import json, sys; s = json.load(sys.stdin); print(eval(sys.argv[1]))' "$2"
}

# put FILE TEXT: durably, or it says so
put() {
    printf '%s\n' "$2" | dd of="$1" conv=fsync status=none
}

gone() {
    ! kill -0 "$1" 2>/dev/null
}

# No lock of this host joins the two.
loops() {
    truncate -s 8M disk
    first=$(loop_on disk) && second=$(loop_on disk) || exit 99
    rm disk
}

loops_end() {
    loop_off "$first"
    loop_off "$second"
}

# SOCKET ARGUMENT...
kit() {
    nbdkit -P "$TMP/$1.pid" -U "$TMP/$1" "${@:2}" && wait_until 20 test -s "$1.pid" || exit 99
    pids+=("$(cat "$1.pid")")
}

exports() {
    truncate -s 8M disk
    kit s1 file disk cache=none
    kit s2 nbd socket="$TMP/s1"
    first="nbd+unix:///?socket=$TMP/s1" second="nbd+unix:///?socket=$TMP/s2"
}

exports_end() {
    kill "${pids[@]}"
    for pid in "${pids[@]}"; do
        wait_until 20 gone "$pid" || fail "a server ends when it is told to"
    done
    pids=()
    rm -f disk s1 s2 ./*.pid
}

# The same by both roads.  Host a reaches the disk as $first, host b as $second.
play() {
    check "$1: format" "$VNVRAM" format "$first"
    is "$1: its owner was whoever formatted it" "$(info "$second" 's["owner"]["state"]')" released
    check "$1: host a mounts" mounted "$first" a -o host_id=a
    is "$1: status tells the owner" "$(status a '(lambda o: (o["owned"], o["host"], o["guarded"]))(s["owner"])')" \
        "(True, 'a', False)"
    "$VNVRAM" status a >"$OUT"
    matches "$1: and to people" "$OUT" 'owner "a" of epoch 2$'
    check "$1: writes" put a/f one
    is "$1: info tells the owner, too" "$(info "$second" 's["owner"]["state"], s["owner"]["host"]')" "('owned', 'a')"
    "$VNVRAM" info "$second" >"$OUT"
    matches "$1: and so it does to people" "$OUT" 'owner +host "a" since 20.*, epoch 2'
    check "$1: check tells it, and finds nothing wrong" "$VNVRAM" check "$second"
    matches "$1: by name" "$OUT" 'host "a" owns it'

    check_exit 11 "$1: host b is refused" "$VNVRAM" mount -o host_id=b "$second" b
    matches "$1: told by whom" "$ERR" 'in use by host "a" \(owner of epoch 2 since 20'
    matches "$1: and what to do, if a lives" "$ERR" 'what to do: unmount it where it is mounted'
    matches "$1: and if it is dead" "$ERR" 'what to do: .*only if that one is certainly dead.*"-o takeover"'
    if [ "$1" = loop ]; then # each of them waits for a while
        check_exit 11 "$1: grow is, too" "$VNVRAM" grow --host-id=b --slots 2x4K "$second"
        check_exit 11 "$1: and reserve" "$VNVRAM" reserve --host-id=b "$second" x 4K
    fi
    check_exit 11 "$1: and format --force" "$VNVRAM" format --host-id=b --force "$second"
    check "$1: a reader is not" mounted "$second" b -o ro,host_id=b
    is "$1: and sees what is committed" "$(cat b/f)" one
    check "$1: unmounts" unmounted b
    check "$1: host a has not noticed" put a/f two

    cp a/.vnvram/image copy
    is "$1: a snapshot has no owner" "$(info copy 's["owner"]')" None
    check "$1: and can be mounted anywhere" mounted copy c -o host_id=b,owner_record=on
    is "$1: with what was there" "$(cat c/f)" two
    check "$1: unmounts" unmounted c

    check "$1: host a unmounts" unmounted a
    check "$1: host b mounts, without a takeover" mounted "$second" b -o host_id=b
    is "$1: what a wrote" "$(cat b/f)" two
    check "$1: writes" put b/f three
    pid=$(status b 's["pid"]')

    # kill -9, and again by the same host; nobody else without more ado
    kill -9 "$pid"
    wait_until 20 gone "$pid" || fail "$1: the daemon is gone"
    umount -l b
    check_exit 11 "$1: what a killed daemon left, another host does not take" "$VNVRAM" mount -o host_id=a "$first" a
    check "$1: its own does" mounted "$second" b -o host_id=b
    is "$1: with all that was acknowledged" "$(cat b/f)" three
    is "$1: without a guard" "$(status b 's["owner"]["guarded"]')" False

    check "$1: host a takes it over" mounted "$first" a -o host_id=a,takeover
    is "$1: with all that was acknowledged" "$(cat a/f)" three
    is "$1: guarded" "$(status a 's["owner"]["guarded"]')" True
    check "$1: writes" put a/f four
    is "$1: each commit is settled" "$(status a 's["clean"]')" True
    put b/f lost 2>"$ERR" && fail "$1: the former owner writes" || pass "$1: the former owner's next write fails"
    put b/f again 2>"$ERR" && fail "$1: the former owner writes again" || pass "$1: and the one after it"
    matches "$1: it is read-only" "$ERR" 'Read-only|Input/output'
    is "$1: and says why" "$(status b 's["read_only_why"]')" "another host has taken the image over"
    check "$1: unmounts" unmounted b
    is "$1: which takes nothing from the owner" "$(info "$first" 's["owner"]["state"], s["owner"]["host"]')" "('owned', 'a')"
    check "$1: who goes on" put a/f five
    check "$1: and unmounts" unmounted a
    check "$1: host b mounts" mounted "$second" b -o host_id=b
    is "$1: what is there" "$(cat b/f)" five
    is "$1: the guard stays" "$(status b 's["owner"]["guarded"]')" True
    check "$1: unmounts" unmounted b
    check "$1: until all former owners are fenced" mounted "$second" b -o host_id=b,fenced
    is "$1: then it goes" "$(status b 's["owner"]["guarded"]')" False
    check "$1: unmounts" unmounted b

    # hand-over: each waits for the other's image
    check "$1: host a waits for it" mounted "$first" a -o host_id=a,incoming
    check "$1: host b, too" mounted "$second" b -o host_id=b,incoming
    is "$1: neither owns it" "$(status a 's["owner"]')" None
    check "$1: a takes it" bash -c 'echo take >a/.vnvram/control'
    check "$1: writes" put a/f six
    check "$1: b is refused" bash -c '! echo take >b/.vnvram/control'
    check "$1: a lets go" bash -c 'echo release >a/.vnvram/control'
    is "$1: it is released" "$(info "$second" 's["owner"]["state"]')" released
    check "$1: b takes it" bash -c 'echo take >b/.vnvram/control'
    is "$1: as it is" "$(cat b/f)" six
    check "$1: and lets go without a change" bash -c 'echo release >b/.vnvram/control'
    check "$1: a takes it back" bash -c 'echo take >a/.vnvram/control'
    check "$1: lets go" bash -c 'echo release >a/.vnvram/control'
    check "$1: b takes it" bash -c 'echo take >b/.vnvram/control'
    check "$1: writes" put b/f seven
    check "$1: lets go" bash -c 'echo release >b/.vnvram/control'
    check "$1: a does not take back what has changed" bash -c '! echo take >a/.vnvram/control'
    check "$1: unmounts" unmounted a
    check "$1: unmounts" unmounted b

    # tools
    check "$1: host a mounts" mounted "$first" a -o host_id=a
    pid=$(status a 's["pid"]')
    kill -9 "$pid"
    wait_until 20 gone "$pid" || fail "$1: the daemon is gone"
    umount -l a
    echo x >x
    check_exit 11 "$1: import is refused" "$VNVRAM" import --host-id=b "$second" x
    check "$1: unless it takes over" "$VNVRAM" import --host-id=b --takeover "$second" x
    is "$1: which releases it at its end" "$(info "$first" 's["owner"]["state"], s["owner"]["host"]')" "('released', 'b')"
    check "$1: format --force takes over, too" mounted "$first" a -o host_id=a
    epoch=$(info "$second" 's["owner"]["epoch"]')
    check "$1: whoever is there" "$VNVRAM" format --host-id=b --takeover --force "$second"
    is "$1: above all epochs" "$(info "$second" 's["owner"]["epoch"]')" $((epoch + 1))
    put a/f lost 2>"$ERR" && fail "$1: the former owner writes" || pass "$1: and the former owner's next write fails"
    check "$1: unmounts" unmounted a
    check "$1: the new image is whole" "$VNVRAM" check "$first"
    check "$1: without records nobody is refused" mounted "$first" a -o host_id=a,owner_record=off
    is "$1: nor told" "$(status a 's["owner"]')" None
    check "$1: unmounts" unmounted a
}

loops
play loop
loops_end
exports
play nbd
exports_end

# A regular file has an owner if it is asked to.
check "file: format" "$VNVRAM" format file
check "file: mounts" mounted file a
is "file: without an owner" "$(status a 's["owner"]')" None
check "file: unmounts" unmounted a
is "file: or a record" "$(info file 's["owner"]')" None
check "file: mounts with one" mounted file a -o host_id=a,owner_record=on
pid=$(status a 's["pid"]')
kill -9 "$pid"
wait_until 20 gone "$pid" || fail "file: the daemon is gone"
umount -l a
check_exit 11 "file: who asks is refused" "$VNVRAM" mount -o host_id=b,owner_record=on file b
check "file: who does not is not" mounted file b
check "file: unmounts" unmounted b
is "file: and changes nothing of it" "$(info file 's["owner"]["state"], s["owner"]["host"]')" "('owned', 'a')"

# Without its keys the owner would have lost the image.
printf %064d 1 >key
chmod 600 key
check "keys: format" "$VNVRAM" format -o key_file=key sealed
check "keys: mounts" mounted sealed a -o key_file=key,host_id=a,owner_record=on
pid=$(status a 's["pid"]')
kill -9 "$pid"
wait_until 20 gone "$pid" || fail "keys: the daemon is gone"
umount -l a
check_exit 11 "keys: another host does not destroy them" "$VNVRAM" key destroy --force --host-id=b --owner-record=on sealed
check "keys: they are there" "$VNVRAM" key test -o key_file=key sealed
check "keys: unless it takes over" "$VNVRAM" key destroy --force --host-id=b --owner-record=on --takeover sealed
finish
