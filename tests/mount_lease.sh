#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Copies of a live image: plain cp of the file, cp of .vnvram/image and vnvram snapshot, all while others write
# without a pause.  COPIES=2000 for the long run; it goes with TMPDIR=... to another file system.
if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ]; then
    export TMPDIR=/dev/shm # where a commit takes least, most of them meet a copy
fi
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need python3
cd "$TMP" || exit 99

copies=${COPIES:-100}
new_image a.img || exit 99

# How long a commit takes says little on a busy machine, and how often the daemon slept meanwhile says it, too: who
# waits for a copy looks for its end at most once in a ms, so a wait has no more ms than it took, and no more than the
# daemon has slept times.
cat >slept.py <<'PY'
import json, os
folder = "/proc/%d/task/" % json.load(open("mnt/.vnvram/status"))["pid"]
def slept():
    n = 0
    for task in os.listdir(folder):
        try:
            with open(folder + task + "/status") as f:
                n += sum(int(line.split()[1]) for line in f if line.startswith("voluntary_ctxt_switches"))
        except OSError:
            pass  # a thread that has ended
    return n
PY

# Writes three files, each with one byte all over, until ./stop is there; tells how many commits there were, and how
# long the longest wait was, in ms.
cat >writer.py <<'PY'
import os, time
from slept import slept
n = 0
worst = 0
while not os.path.exists("stop"):
    for name, size in (("a", 120000), ("b", 30000), ("c", 3000)):
        start, before = time.monotonic(), slept()
        with open("mnt/." + name, "wb") as f:
            f.write(bytes([33 + n % 90]) * size)
        os.rename("mnt/." + name, "mnt/" + name)
        worst = max(worst, min(int((time.monotonic() - start) * 1000), slept() - before))
        n += 1
    with open("begun.new", "w") as f:
        f.write(str(n))
    os.rename("begun.new", "begun")
print(n, worst)
PY

# whole DIR: each file in it has one byte all over, and all three are there.
cat >whole.py <<'PY'
import os, sys
d = sys.argv[1]
for name, size in (("a", 120000), ("b", 30000), ("c", 3000)):
    data = open(os.path.join(d, name), "rb").read()
    assert len(data) == size and len(set(data)) == 1, name
PY

start_writer() {
    rm -f stop begun
    python3 writer.py >written &
    writer=$!
    wait_until 20 test -e begun
}

has_come_to() { # NUMBER of commits
    [ "$(cat begun)" -gt "$1" ]
}

stop_writer() { # NUMBER of commits that there must be
    wait_until 60 has_come_to "$1"
    touch stop
    wait "$writer"
    read -r commits worst <written
}

# Counts in $bad what is not a clean, whole image.  Every tenth is mounted, too.
bad=0
torn=0
judge() {
    "$VNVRAM" check "$1" >check.out 2>&1 || bad=$((bad + 1))
    ! grep -q 'cut short' check.out || torn=$((torn + 1))
    if [ $(($2 % 10)) -eq 0 ]; then
        mkdir -p copy
        if ! "$VNVRAM" mount -o ro "$1" copy 2>>check.out || ! python3 whole.py copy 2>>check.out; then
            bad=$((bad + 1))
        fi
        "$VNVRAM" unmount copy 2>/dev/null
    fi
}

# many N NAME COMMAND...: N times, each making ./copy.img
many() {
    local n=$1 name=$2 i failed=0
    shift 2
    bad=0
    torn=0
    start_writer
    for ((i = 1; i <= n; i++)); do
        rm -f copy.img
        "$@" >many.out 2>&1 || failed=$((failed + 1))
        judge copy.img "$i"
    done
    stop_writer "$n"
    is "$n times $name succeed" "$failed" 0
    is "all $n are whole images" "$bad" 0
    is "and none shows a torn commit" "$torn" 0
    check "the writer went on ($commits commits, the longest wait $worst ms)" test "$commits" -gt "$n"
    check "and never waited twice" test "$worst" -lt 2500 # once is 1.5 s
}

check "mounts" mounted a.img mnt
many "$copies" "cp of the live file" cp --reflink=never --sparse=never a.img copy.img
many $(((copies + 3) / 4)) "cp of .vnvram/image" cp mnt/.vnvram/image copy.img
many $(((copies + 9) / 10)) "snapshot" "$VNVRAM" snapshot mnt copy.img

# ---- a slow copier ---------------------------------------------------------------------------------

pid=$(python3 -c 'import json; print(json.load(open("mnt/.vnvram/status"))["pid"])')
switches() {
    cat /proc/"$pid"/task/*/status | awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n }'
}

# took COMMAND...: $ms, how many it took, and $waited, how many ms of them the daemon can have waited
took() {
    local before start r
    before=$(switches)
    start=${EPOCHREALTIME/./}
    "$@" >/dev/null
    r=$?
    ms=$(((${EPOCHREALTIME/./} - start) / 1000))
    waited=$(($(switches) - before))
    [ "$waited" -lt "$ms" ] || waited=$ms
    return $r
}

store() {
    echo "$1" >mnt/d
}

exec 9<a.img
took store 1
check "a commit waits for a copy ($ms ms)" test "$ms" -ge 1000
check "but not for long" test "$waited" -lt 2500
took store 2
check "and only once ($waited of $ms ms)" test "$waited" -lt 1000
exec 9<&-
store 3
took store 4
check "not at all when the copy has ended ($waited of $ms ms)" test "$waited" -lt 1000
sleep 0.3 # what commits may wait grows back with time
exec 9<a.img
took store 5
check "the next copy is waited for again ($ms ms)" test "$ms" -ge 500
exec 9<&-

if [ "$(id -u)" -eq 0 ]; then
    chown 65534 a.img # needs CAP_LEASE
    store 6
    sleep 0.3
    exec 9<a.img
    took store 7
    check "of a file that is another user's, too ($ms ms)" test "$ms" -ge 500
    exec 9<&-
    chown 0 a.img
fi

# ---- an idle daemon --------------------------------------------------------------------------------

# settled for good: no switch in a whole second
is_idle() {
    local before
    before=$(switches)
    sleep 1
    [ "$(switches)" -eq "$before" ]
}
check "an idle daemon sleeps" wait_until 30 is_idle

# ---- somebody else writes to the file ---------------------------------------------------------------

chmod 640 a.img
ln a.img other-name.img
check "another mode and another name are harmless" store 6
is "the mount can still be written" "$(grep -c '"read_only": false' mnt/.vnvram/status)" 1
head -c 4096 a.img >block
dd if=block of=a.img conv=notrunc status=none
check "so are the same bytes, written by somebody else" store 7
is "the mount can still be written then" "$(grep -c '"read_only": false' mnt/.vnvram/status)" 1

"$VNVRAM" snapshot mnt old.img
store 8
write_over a.img old.img
sync_write() {
    python3 -c 'import os
f = os.open("mnt/new", os.O_WRONLY | os.O_CREAT, 0o600)
os.write(f, b"9")
os.fsync(f)'
}
check_exit 1 "over another state nothing is written" sync_write
is "the mount is read-only" "$(grep -c '"read_only": true' mnt/.vnvram/status)" 1
matches "and says why" mnt/.vnvram/status 'somebody else has written'
check "it unmounts" unmounted mnt
is "what was put there is as it was put" "$(hash a.img)" "$(hash old.img)"

# ---- where there are no leases ----------------------------------------------------------------------

if [ "$(id -u)" -eq 0 ] && loop=$(loop_on a.img); then
    check "a loop device mounts" mounted "$loop" mnt
    start_writer
    cp mnt/.vnvram/image copy.img
    stop_writer 3
    check "and is written" test "$commits" -ge 3
    judge copy.img 10
    is "a copy of its .vnvram/image is whole" "$bad" 0
    check "it unmounts" unmounted mnt
    loop_off "$loop"
fi

# ---- a TPM ------------------------------------------------------------------------------------------

if command -v tpm2_nvdefine >/dev/null && [ "$(id -u)" -eq 0 ]; then
    export TPM2TOOLS_TCTI=device:$TMP/mnt/tpm0
    new_image t.img || exit 99
    check "a mount with a TPM" mounted t.img mnt -o tpm=2.0
    pid=$(python3 -c 'import json; print(json.load(open("mnt/.vnvram/status"))["pid"])')
    check "an NV index is defined" tpm2_nvdefine -s 64 1
    worst=0
    failed=0
    rm -f stop
    (
        n=0
        while [ ! -e stop ]; do
            cp --reflink=never --sparse=never t.img "copy$((n % 2)).img"
            n=$((n + 1))
        done
        echo "$n" >copied
    ) &
    copier=$!
    for ((i = 0; i < 40; i++)); do
        head -c 64 /dev/urandom >nv
        took tpm2_nvwrite -i nv 1 || failed=$((failed + 1))
        [ "$waited" -le "$worst" ] || worst=$waited
    done
    sleep 60 <t.img &
    slow=$!
    head -c 64 /dev/urandom >nv
    took tpm2_nvwrite -i nv 1 || failed=$((failed + 1))
    [ "$waited" -le "$worst" ] || worst=$waited
    kill "$slow"
    touch stop
    wait "$copier"
    is "41 NV writes succeed beside $(cat copied) copies" "$failed" 0
    check "the longest waited $worst ms, no more than once" test "$worst" -lt 2500
    for i in 0 1; do
        [ ! -e copy$i.img ] || check "a copy is whole" "$VNVRAM" check copy$i.img
    done
    check "it unmounts" unmounted mnt
fi
finish
