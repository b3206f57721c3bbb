#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Clients that ask for too much: the daemon's memory stays within bounds (doc/design.md, section 5), and
# others are served meanwhile.
# Nothing here is about durability: in memory, where there is such a place.
[ ! -w /dev/shm ] || export TMPDIR=/dev/shm
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need_root
need jq

limits=$(dirname "$VNVRAM")/tests/limits
img=$TMP/img
dir=$TMP/dir
new_image "$img" >/dev/null && mounted "$img" "$dir" -o tpm=2.0 || exit 99
daemon=$(jq .pid "$dir/.vnvram/status")
tpm=$(jq .tpm_pid "$dir/.vnvram/status")

# Where memory is not what it was, as sanitizers make it, only the rest is looked at.
measured=true
! grep -q '^#define WITH_SANITIZERS 1' "$(dirname "$VNVRAM")/config.h" || measured=false
MIB=1024
MOST=32 # MiB, for an image of 4
LATENCY_MS=2000 # on a busy machine; a stall would last as long as what causes it

kib() {
    sed -n "s/^$1:[^0-9]*\([0-9]*\) kB/\1/p" "/proc/$daemon/status"
}

# Peaks count from here, and another client begins to use the mount.
begin() {
    echo 5 >"/proc/$daemon/clear_refs"
    before=$(kib VmRSS)
    exec {latency_in}> >(exec "$limits" latency "$dir" >"$TMP/latency" 2>&1)
    latency_pid=$!
}

# end NAME MIB: it has grown by no more than that since begin, and the other client was served.
end() {
    local grown longest
    exec {latency_in}>&-
    wait "$latency_pid"
    grown=$(($(kib VmHWM) - before))
    longest=$(cat "$TMP/latency")
    echo "# $1: the daemon grew by $grown KiB to $(kib VmHWM); another client waited $longest ms at most"
    if ! $measured || { [ "$grown" -le $(($2 * MIB)) ] && [ "$(kib VmHWM)" -le $((MOST * MIB)) ]; }; then
        pass "$1: its memory grows by less than $2 MiB"
    else
        fail "$1: its memory grows by less than $2 MiB" "$grown KiB"
    fi
    if [ "$longest" -le "$LATENCY_MS" ] 2>/dev/null; then
        pass "$1: others are served"
    else
        fail "$1: others are served" "$longest"
    fi
}

# hold LINE ARGUMENT...: a client in the background, which has said LINE when this returns
hold() {
    local want=$1
    shift
    rm -f "$TMP/held"
    exec {hold_in}> >(
        exec {latency_in}>&- # or that client would never see the end of its input
        exec "$limits" "$@" >"$TMP/held" 2>"$TMP/held.err"
    )
    hold_pid=$!
    wait_until 30 grep -qsE "$want" "$TMP/held"
}

release() {
    exec {hold_in}>&-
    wait "$hold_pid"
}

fill() {
    head -c "$1" /dev/urandom >"$2"
}

fill 250K "$dir/large"
fill 60K "$dir/medium"
: >"$dir/small"

# ---- handles --------------------------------------------------------------------------------------

begin
check "10,000 open handles" hold '^open$' handles 10000 "$dir/large"
check "the file can be used meanwhile" cmp "$dir/large" "$dir/large"
end "10,000 handles" 6
release
begin
check "and once more" hold '^open$' handles 10000 "$dir/medium"
release
end "10,000 handles again" 4

# ---- a writer -------------------------------------------------------------------------------------

begin
is "a writer of 1 GiB is stopped at the largest slot" "$("$limits" write "$dir/huge" $((1 << 30)))" \
    "$((256 * 1024)) EFBIG"
for n in 1 2 3; do
    "$limits" write "$dir/huge$n" $((1 << 30)) >"$TMP/wrote"
done
matches "and where there is no slot left, sooner" "$TMP/wrote" " ENOSPC$"
check_exit 1 "no file is made longer than that" truncate -s 1G "$dir/huge"
check_exit 1 "nor is there room ahead" fallocate -l 1G "$dir/huge"
check_exit 1 "nor a write far behind the end" \
    dd if=/dev/zero of="$dir/huge" bs=4k count=1 seek=262144 conv=notrunc
end "writers of 1 GiB" 8
rm "$dir"/huge*

# ---- readers --------------------------------------------------------------------------------------

begin
"$limits" readers 1000 2000 "$dir/large" >"$TMP/readers" &
readers_pid=$!
busy=0
for _ in $(seq 30); do
    echo | "$limits" command "$dir/tpm0" >"$TMP/answer" 2>&1 || busy=$((busy + 1))
done
is "beside them no client of the TPM finds the one before it still there" "$busy" 0
wait "$readers_pid"
matches "1,000 readers at once all read" "$TMP/readers" "^[0-9]+ reads, 0 errors$"
sed 's/^/# /' "$TMP/readers"
end "1,000 readers" 8

# ---- snapshots ------------------------------------------------------------------------------------

begin
hold '[A-Z]|all' snapshots 100 "$dir/small" "$dir/.vnvram/image"
is "images of a few generations can be open at once" "$(cat "$TMP/held")" "4 ENFILE"
check_exit 1 "not of more" cat "$dir/.vnvram/image"
check "the status is there all the same" jq -e .pid "$dir/.vnvram/status"
end "open images" 8
release
check "and then the image is there again" wait_until 30 cmp "$dir/.vnvram/image" "$dir/.vnvram/image"
check "one generation can be open a thousand times" hold '^open$' handles 1000 "$dir/.vnvram/image"
release

# ---- names ----------------------------------------------------------------------------------------

begin
check "100,000 names that are not there" "$limits" lookups 100000 "$dir"
end "missing names" 1

# ---- a client of the TPM that is stopped in the middle --------------------------------------------

begin
check "a client writes a command" hold '^written$' command "$dir/tpm0"
kill -STOP "$hold_pid"
check_exit 1 "while it is stopped, the TPM is busy" "$limits" command "$dir/tpm0"
check "files are served" cmp "$dir/large" "$dir/large"
check_exit 11 "unmounting says who uses it" "$VNVRAM" unmount "$dir"
matches "by its PID" "$ERR" "in use by process $hold_pid"
end "a stopped client" 1
kill -CONT "$hold_pid"
release
is "it reads its response when it goes on" "$(tail -n 1 "$TMP/held")" 20
hold '^written$' command "$dir/tpm0"
kill -STOP "$hold_pid"
kill -KILL "$hold_pid"
release 2>/dev/null
check "when it is killed instead, the TPM is free" \
    wait_until 30 sh -c 'echo | "$1" command "$2"' - "$limits" "$dir/tpm0"

# ---- after all that -------------------------------------------------------------------------------

check "the TPM's process is still there" kill -0 "$tpm"
check "unmount" "$VNVRAM" unmount "$dir"
check_exit 0 "the image is in order" "$VNVRAM" check "$img"
finish
