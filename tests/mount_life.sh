#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The life of a mount: how it begins, every way it ends, and what it leaves behind.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need_root
need fusermount3 pgrep python3 setpriv

img=$TMP/img
dir=$TMP/dir
mkdir "$dir"
new_image "$img" >/dev/null || exit 99

pid_of() {
    sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$1/.vnvram/status"
}

tpm_pid_of() {
    sed -n 's/.*"tpm_pid": *\([0-9]*\).*/\1/p' "$1/.vnvram/status"
}

is_mounted() {
    grep -q " $1 .* - fuse\.vnvram " /proc/self/mountinfo
}

is_not_mounted() {
    ! is_mounted "$1"
}

# A zombie holds nothing any more; whoever is to reap it may take a moment.
is_gone() {
    ! grep -qs '^State:.[^ZX]' "/proc/$1/status"
}

is_asleep() {
    grep -qs '^State:.S' "/proc/$1/status"
}

has_pidfd() {
    readlink /proc/"$1"/fd/* | grep -q 'pidfd'
}

# ---- how it begins --------------------------------------------------------------------------------

check "mount returns" mounted "$img" "$dir"
check "and the mount is there" is_mounted "$dir"
check "and works at once" cp /bin/true "$dir/file"
is "findmnt shows the image" "$(findmnt -no SOURCE,FSTYPE "$dir" | tr -s ' ')" "$img fuse.vnvram"
check "unmount returns" unmounted "$dir"
check "and the mount has gone" is_not_mounted "$dir"
# The substitution ends when nobody holds its pipe any more.
is "nothing is said, and the caller's output is let go" "$(timeout 60 "$VNVRAM" mount "$img" "$dir" 2>&1)" ""
check "unmount takes the image's path, too" unmounted "$img"

# Ctrl-C in the moment between the two: who waited cannot say any more that the mount is there.
head -c 32 /dev/urandom >"$TMP/key"
new_image "$TMP/sealed.img" -o "key_file=$TMP/key,key_format=binary"
mkfifo "$TMP/later"
"$VNVRAM" mount -o key_fd=9,key_format=binary "$TMP/sealed.img" "$dir" 9<"$TMP/later" &
front=$!
exec 8>"$TMP/later"
check "a mount waits for its key" wait_until 30 pgrep -P "$front"
wait_until 30 is_asleep "$front" # else it may see the answer before the signal, and then it is there
kill -STOP "$front"
cat "$TMP/key" >&8
exec 8>&-
check "and is there when it has it" wait_until 30 test -e "$dir/.vnvram/status"
kill "$front"
kill -CONT "$front"
wait "$front" 2>/dev/null
is "whoever ends the command that has not returned" $? 143
check "ends the mount" wait_until 30 is_not_mounted "$dir"
check "and frees the image" "$VNVRAM" check "$TMP/sealed.img"

# Ctrl-Z at the same moment: the daemon has long gone on when its front does, near the end of this test.
mkdir "$TMP/stopped"
mounts+=("$TMP/stopped")
"$VNVRAM" mount -o key_fd=9,key_format=binary "$TMP/sealed.img" "$TMP/stopped" 9<"$TMP/later" &
stopped=$!
exec 8>"$TMP/later"
wait_until 30 pgrep -P "$stopped" >/dev/null
kill -STOP "$stopped"
cat "$TMP/key" >&8
exec 8>&-
check "a mount whose command was stopped is there" wait_until 30 test -e "$TMP/stopped/.vnvram/status"
stopped_at=$SECONDS

"$VNVRAM" mount -o foreground "$img" "$dir" &
front=$!
check "a foreground mount works" wait_until 30 test -e "$dir/file"
is "and is the process that was started" "$(pid_of "$dir")" "$front"
kill "$front"
wait "$front"
is "SIGTERM ends it with success" $? 0

"$VNVRAM" mount -o foreground "$img" "$dir" &
front=$!
check "with files of .vnvram open" wait_until 30 test -e "$dir/file"
exec 7<"$dir/.vnvram/status" 8<"$dir/.vnvram/image"
kill "$front"
check "SIGTERM takes it off the tree" wait_until 30 is_not_mounted "$dir"
kill "$front" 2>/dev/null # and does not wait for those who hold files
wait_until 30 is_gone "$front" || kill -KILL "$front"
wait "$front"
is "and the second one ends it, with nothing left behind" $? 0
exec 7<&- 8<&-

"$VNVRAM" mount -o foreground "$img" "$dir" &
front=$!
wait_until 30 test -e "$dir/file"
printf OLDOLD >"$dir/half"
exec 9> >(exec python3 -c '
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY)
os.write(f, b"NEW")
open(sys.argv[2], "w").close()
sys.stdin.read()' "$dir/half" "$TMP/written")
check "a writer that neither closes nor syncs" wait_until 30 test -e "$TMP/written"
is "has written for those who look" "$(cat "$dir/half")" NEWOLD
kill "$front"
wait_until 30 is_not_mounted "$dir"
kill "$front"
wait_until 30 is_gone "$front" || kill -KILL "$front"
wait "$front"
is "two SIGTERMs end its mount" $? 0
exec 9>&-
mounted "$img" "$dir"
is "and what it had written by half is dropped" "$(cat "$dir/half")" OLDOLD
rm "$dir/half"
unmounted "$dir"

cat >"$TMP/notify.py" <<'PYTHON'
import os, socket, subprocess, sys
path, vnvram, image, where = sys.argv[1:]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(path)
s.settimeout(20)
p = subprocess.Popen([vnvram, "mount", "-o", "foreground", image, where],
                     env=dict(os.environ, NOTIFY_SOCKET=path))
print(s.recv(4096).decode())
print("works" if os.path.exists(where + "/file") else "does not work")
p.terminate()
print(s.recv(4096).decode())
print("exit", p.wait())
PYTHON
python3 "$TMP/notify.py" "$TMP/notify" "$VNVRAM" "$img" "$dir" >"$TMP/notified"
matches "a service manager is told READY=1" "$TMP/notified" '^READY=1$'
matches "when the mount works" "$TMP/notified" '^works$'
matches "and STOPPING=1" "$TMP/notified" '^STOPPING=1$'
matches "before the orderly end" "$TMP/notified" '^exit 0$'

cat >"$TMP/watchdog.py" <<'PYTHON'
import os, socket, subprocess, sys
path, vnvram, image, where, usec = sys.argv[1:]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(path)
s.settimeout(20)
env = dict(os.environ, NOTIFY_SOCKET=path)
if usec != "0":
    env["WATCHDOG_USEC"] = usec
p = subprocess.Popen([vnvram, "mount", "-o", "foreground", image, where], env=env)
said = [s.recv(4096).decode().split("\n")[0]]
while usec != "0" and len(said) < 4:
    said.append(s.recv(4096).decode())
p.terminate()
while said[-1] != "STOPPING=1":
    said.append(s.recv(4096).decode())
p.wait()
print(said)
PYTHON
python3 "$TMP/watchdog.py" "$TMP/watchdog" "$VNVRAM" "$img" "$dir" 400000 >"$TMP/notified"
matches "a service manager that asks for signs of life gets them" "$TMP/notified" \
    "'READY=1', 'WATCHDOG=1', 'WATCHDOG=1', 'WATCHDOG=1'"
python3 "$TMP/watchdog.py" "$TMP/no-watchdog" "$VNVRAM" "$img" "$dir" 0 >"$TMP/notified"
is "one that does not gets none" "$(cat "$TMP/notified")" "['READY=1', 'STOPPING=1']"
if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
    caps=$(sed -n 's/^CapabilityBoundingSet=//p' "$srcdir/systemd/vnvram@.service.in" | tr 'A-Z\n' 'a-z ' |
        sed 's/ *$//; s/cap_/+/g; s/  */,/g')
    check "the rights that its unit has are enough" setpriv --no-new-privs --bounding-set="-all,$caps" \
        --inh-caps=-all "$VNVRAM" mount -o tpm=2.0,tpm_manufacture,allow_other "$img" "$dir"
    check "... to give it away" chown 65534 "$dir"
    check "unmount" unmounted "$dir"
    check "... and to run its TPM as somebody else" setpriv --no-new-privs --bounding-set="-all,$caps" \
        --inh-caps=-all "$VNVRAM" mount -o tpm=2.0,allow_other "$img" "$dir"
    is "... who that is" "$(stat -c %u "/proc/$(jq .tpm_pid "$dir/.vnvram/status")")" 65534
    check "take it back" chown 0 "$dir"
    check "unmount" unmounted "$dir"
fi

check "mount does without standard descriptors" sh -c '"$1" mount "$2" "$3" <&- >&- 2>&-' - \
    "$VNVRAM" "$img" "$dir"
check "the mount works" cmp /bin/true "$dir/file"
unmounted "$dir"
truncate -s 4M "$TMP/blank"
check_exit 3 "a failure is told though the parent ignores its children" \
    python3 -c 'import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])' "$VNVRAM" mount "$TMP/blank" "$dir"
: >"$TMP/journal"
JOURNAL_STREAM=$(stat -c %d:%i "$TMP/journal") "$VNVRAM" mount "$TMP/blank" "$dir" 2>"$TMP/journal"
matches "the journal gets levels" "$TMP/journal" '^<3>vnvram: .*blank: blank image'

check_exit 1 "no such image" "$VNVRAM" mount "$TMP/none" "$dir"
check_exit 1 "a directory is no image" "$VNVRAM" mount "$TMP" "$dir"
check_exit 1 "a file is no mount point" "$VNVRAM" mount "$img" "$img"
check_exit 2 "startup= without tpm= is a usage error" "$VNVRAM" mount -o startup=clear "$img" "$dir"
check_exit 2 "tpm= with ro is a usage error" "$VNVRAM" mount -o ro,tpm=2.0 "$img" "$dir"

odd="$TMP/o,d=d \\040 %s"
mkdir -p "$odd/d d"
new_image "$odd/i,m\\g \"1\"" >/dev/null
check "odd characters in the paths do no harm" mounted "$odd/i,m\\g \"1\"" "$odd/d d"
check "the mount works" cp /bin/true "$odd/d d/file"
check "it is found by the image's path" unmounted "$odd/i,m\\g \"1\""
check "and has gone" test ! -e "$odd/d d/file"

# ---- the helper's name ----------------------------------------------------------------------------

mkdir "$TMP/sbin"
ln -s "$VNVRAM" "$TMP/sbin/mount.vnvram"
helper=$TMP/sbin/mount.vnvram
check_exit 0 "mount.vnvram -f mounts nothing" "$helper" "$img" "$dir" -f -o rw
check "indeed" is_not_mounted "$dir"
check_exit 0 "mount.vnvram takes what mount(8) gives" \
    "$helper" "$img" "$dir" -sv -n -o rw,nofail,_netdev,x-systemd.automount,noexec
matches "noexec has arrived" /proc/self/mountinfo " $dir .*noexec.* - fuse\.vnvram"
check "umount ends it" umount "$dir"
check_exit 32 "a failed mount is 32" "$helper" "$TMP/none" "$dir"
check_exit 1 "a usage error is 1" "$helper" "$img"

# mount(8) looks for helpers in /sbin: lay ours over it, for a moment, where nobody else sees it.
ln -s "$VNVRAM" "$TMP/sbin/fsck.vnvram"
sbin=$(realpath /sbin)
echo "$img $dir vnvram noauto,nofail,x-systemd.requires=x,tpm=2.0 0 0" >"$TMP/fstab"
cat >"$TMP/privately" <<'SH'
mount -t overlay -o "lowerdir=$1:$2" overlay "$2" && shift 2 && "$@"
SH
privately() {
    unshare -m sh "$TMP/privately" "$TMP/sbin" "$sbin" "$@"
}
if privately true 2>/dev/null; then
    check "mount -t vnvram works" privately sh -ec '
        mount -t vnvram -o noatime "$1" "$2"; cp /bin/true "$2/file"; umount "$2"' - "$img" "$dir"
    check "fstab works" privately sh -ec '
        mount -T "$1" "$2"; cmp /bin/true "$2/file"; test -e "$2/tpm0"; umount "$2"' - "$TMP/fstab" "$dir"
    if privately sh -c "command -v fsck" >/dev/null; then
        check "fsck works" privately fsck -t vnvram "$img"
    fi
fi

# ---- every way to end -----------------------------------------------------------------------------

by_signal() {
    local pid
    pid=$(pid_of "$2")
    kill -s "$1" "$pid" && wait_until 30 is_gone "$pid"
}

n=0
for way in "umount" "fusermount3 -u" "by_signal TERM" "by_signal INT" "unmounted"; do
    n=$((n + 1))
    mounted "$img" "$dir" || fail "mount before $way"
    head -c $((n * 1000)) /dev/urandom >"$TMP/want"
    cp "$TMP/want" "$dir/file"
    check "$way ends a mount" $way "$dir"
    check "after $way the next mount works at once" mounted "$img" "$dir"
    check "after $way everything is there" cmp "$TMP/want" "$dir/file"
    unmounted "$dir"
    check_exit 0 "after $way the image is in order" "$VNVRAM" check "$img"
done

# The kernel drops the release of a closed file that the daemon has not seen when the mount goes.
lost=0
for i in $(seq 40); do
    mounted "$img" "$dir"
    echo data >"$dir/short"
    : >"$dir/short"
    umount "$dir"
    mounted "$img" "$dir"
    [ ! -s "$dir/short" ] || lost=$((lost + 1))
    unmounted "$dir"
done
is "what a truncating open left is there after umount, 40 times" "$lost" 0

mounted "$img" "$dir"
sleep 0.3 <"$dir/.vnvram/status" &
check "unmount waits for whoever only takes a look" "$VNVRAM" unmount "$dir"
wait $!

# The daemon is told to end while unmount waits; what was mounted beneath is not unmount's business.
mount -t tmpfs beneath "$dir"
mounted "$img" "$dir"
pid=$(pid_of "$dir")
exec 8<"$dir/.vnvram/status"
"$VNVRAM" unmount "$dir" 8<&- &
waits=$!
check "unmount has found the daemon" wait_until 30 has_pidfd "$waits"
kill -STOP "$waits"
kill "$pid"
check "which ends on another's word" wait_until 30 is_not_mounted "$dir"
kill -CONT "$waits"
exec 8<&-
wait "$waits"
is "unmount is content when somebody else was faster" $? 0
is "and leaves alone what lies beneath" "$(findmnt -no SOURCE "$dir")" beneath
umount "$dir"

mounted "$img" "$dir"
mount -t tmpfs above "$dir"
check_exit 11 "an image whose mount something else lies over is not unmounted" "$VNVRAM" unmount "$img"
matches "and it says why" "$ERR" "something else is mounted over it"
is "and what lies over it stays" "$(findmnt -no SOURCE "$dir" | tail -1)" above
umount "$dir"
check "until that has gone" unmounted "$img"

mounted "$img" "$dir"
exec 8<"$dir/file"
check_exit 11 "unmount says that the mount is in use" "$VNVRAM" unmount "$dir"
matches "and by whom" "$ERR" "in use by process $$ \\($(cat /proc/$$/comm)\\)"
matches "and what to do" "$ERR" "$dir: in use; what to do: end what uses it"
check "so the mount stays" is_mounted "$dir"
new_image "$TMP/other" >/dev/null
check_exit 11 "another image cannot be mounted over it" "$VNVRAM" mount "$TMP/other" "$dir"
matches "and it says what to do" "$ERR" "$dir: in use: .*; what to do: unmount it"
by_signal_now() {
    kill -TERM "$1"
}
pid=$(pid_of "$dir")
by_signal_now "$pid"
check "SIGTERM takes the mount off the host's tree" wait_until 30 is_not_mounted "$dir"
check "and serves whoever has a file open" cmp "$TMP/want" <(cat <&8)
exec 8<&-
check "until it is closed" wait_until 30 is_gone "$pid"

mounted "$img" "$dir"
cp "$(command -v cat)" "$dir/program"
mkfifo "$TMP/fifo"
"$dir/program" <"$TMP/fifo" >"$TMP/ran" &
program=$!
exec 8>"$TMP/fifo"
echo runs >&8
check "a program of the mount runs" wait_until 30 test -s "$TMP/ran"
check_exit 11 "which keeps the mount in use" "$VNVRAM" unmount "$dir"
matches "as is said" "$ERR" "in use by process $program \\(program\\)"
exec 8>&-
wait "$program"
rm "$dir/program"
unmounted "$dir"

mounted "$img" "$dir"
exec 8<"$dir/file"
pid=$(pid_of "$dir")
check "unmount --force does not wait for it" "$VNVRAM" unmount --force "$dir"
check "the daemon has ended" is_gone "$pid"
check "the mount has gone" is_not_mounted "$dir"
exec 8<&-
check_exit 0 "and the image is in order" "$VNVRAM" check "$img"

mounted "$img" "$dir"
exec 8<"$dir/file"
check "unmount --lazy detaches" "$VNVRAM" unmount --lazy "$dir"
check "the mount has gone from the tree" is_not_mounted "$dir"
exec 8<&-
check_exit 1 "unmount of what is not mounted fails" "$VNVRAM" unmount "$dir"

# ---- kill -9 --------------------------------------------------------------------------------------

is_dead() {
    LC_ALL=C stat -f "$1" 2>&1 | grep -q 'not connected'
}

for options in rw tpm=2.0; do
    mounted "$img" "$dir" -o $options || fail "mount -o $options"
    cp "$TMP/want" "$dir/file"
    tpm=$(tpm_pid_of "$dir")
    kill -KILL "$(pid_of "$dir")"
    check "$options: the mount of a killed daemon stays, dead" wait_until 30 is_dead "$dir"
    [ -z "$tpm" ] || check "$options: the TPM's process has ended with it" wait_until 30 is_gone "$tpm"
    check "$options: the next mount replaces it" mounted "$img" "$dir"
    check "$options: what was acknowledged is there" cmp "$TMP/want" "$dir/file"
    is "$options: nothing is mounted beneath" "$(grep -c " $dir " /proc/self/mountinfo)" 1
    unmounted "$dir"
done
mounted "$img" "$dir"
kill -KILL "$(pid_of "$dir")"
wait_until 30 is_dead "$dir"
check_exit 3 "what cannot be mounted replaces no dead mount" "$VNVRAM" mount "$TMP/blank" "$dir"
check "which stays, dead" is_dead "$dir"
check "unmount clears a dead mount" "$VNVRAM" unmount "$dir"
check "it has gone" is_not_mounted "$dir"

mounted "$img" "$dir" -o tpm=2.0
pid=$(pid_of "$dir")
kill -KILL "$(tpm_pid_of "$dir")"
check "when the TPM's process is killed, the daemon ends, too" wait_until 30 is_gone "$pid"
check "and the mount with it" is_not_mounted "$dir"
check "the next mount works at once" mounted "$img" "$dir" -o tpm=2.0
check "unmount with a TPM" unmounted "$dir"

# ---- a mount namespace that has a mount of its own --------------------------------------------------

if [ "$(id -u)" -eq 0 ]; then
    mounted "$img" "$dir" -o tpm=2.0
    mkfifo "$TMP/end"
    unshare --mount --propagation private sh -c 'echo >"$1.ready"; read -r _ <"$1"' - "$TMP/end" &
    other=$!
    check "a process has a mount namespace of its own" wait_until 30 test -s "$TMP/end.ready"
    "$VNVRAM" unmount "$dir" 2>"$ERR" &
    unmount=$!
    check "unmount says who has the mount still" wait_until 30 grep -q "mount namespace of process $other" "$ERR"
    echo >"$TMP/end"
    wait "$unmount"
    is "and returns when that has gone" $? 0
    wait "$other"
    check "the image is free" "$VNVRAM" mount -o ro "$img" "$dir"
    unmounted "$dir"
fi

# ---- the command that was stopped ------------------------------------------------------------------

while [ $((SECONDS - stopped_at)) -lt 12 ]; do # the daemon waits for ten seconds
    sleep 0.1
done
kill -CONT "$stopped"
wait_until 30 is_gone "$stopped" || kill -KILL "$stopped"
wait "$stopped"
is "a command that was stopped for long says that the mount is there" $? 0
check "as it is" unmounted "$TMP/stopped"

# ---- one writer -----------------------------------------------------------------------------------

mounted "$img" "$dir"
pid=$(pid_of "$dir")
mkdir "$TMP/second"
ln "$img" "$TMP/hard"
ln -s "$img" "$TMP/soft"
loop=$(loop_on "$img") || fail "a loop device is attached"
# Each waits three seconds: all at once.
for name in "$img" "$TMP/hard" "$TMP/soft" "$loop"; do
    {
        "$VNVRAM" mount "$name" "$TMP/second" 2>"$TMP/said.$(basename "$name")"
        echo $? >"$TMP/code.$(basename "$name")"
    } &
done
wait
for name in img hard soft "$(basename "$loop")"; do
    is "a second mount by $name is refused" "$(cat "$TMP/code.$name")" 11
    matches "with the holder's PID" "$TMP/said.$name" "in use by process $pid "
done
unmounted "$dir"
check "the loop device mounts" mounted "$loop" "$dir"
check_exit 11 "and then the file is in use" "$VNVRAM" mount "$img" "$TMP/second"
unmounted "$dir"
loop_off "$loop"
rm "$TMP/hard" "$TMP/soft"

mounted "$img" "$dir"
new_image "$TMP/other" >/dev/null
check_exit 11 "a mount point with a living mount is in use" "$VNVRAM" mount "$TMP/other" "$dir"
check "the mount there has not noticed" cmp "$TMP/want" "$dir/file"
unmounted "$dir"
check_exit 0 "and the other image is free" "$VNVRAM" check "$TMP/other"

# ---- what is not an image stays as it is ----------------------------------------------------------

refused() {
    local code=$1 name=$2 before
    before=$(hash "$TMP/bad")
    check_exit "$code" "$name: refused" "$VNVRAM" mount "${@:3}" "$TMP/bad" "$dir"
    matches "$name: the image is named" "$ERR" "$TMP/bad"
    is "$name: nothing is written" "$(hash "$TMP/bad")" "$before"
    check "$name: nothing is mounted" is_not_mounted "$dir"
}

truncate -s 4M "$TMP/bad"
refused 3 "blank and sparse"
refused 3 "blank, with a TPM asked for" -o tpm=2.0,tpm_manufacture
head -c 4M /dev/zero >"$TMP/bad"
refused 3 "blank"
head -c 4M /dev/urandom >"$TMP/bad"
refused 4 "garbage"
head -c 100 /dev/urandom >"$TMP/bad"
refused 4 "a small file"
cp "$img" "$TMP/bad" && truncate -s 1M "$TMP/bad"
refused 10 "truncated"
cp "$img" "$TMP/bad" && dd if=/dev/zero of="$TMP/bad" bs=64K count=2 conv=notrunc status=none
refused 5 "no superblock above data"
cp "$img" "$TMP/bad"
for at in 131072 196608; do
    dd if=/dev/urandom of="$TMP/bad" bs=512 seek=$((at / 512 + 1)) count=2 conv=notrunc status=none
done
refused 5 "damaged directories"
rm "$TMP/bad"

# ---- descriptors ----------------------------------------------------------------------------------

descriptors() {
    local fd
    for fd in /proc/"$1"/fd/*; do
        readlink "$fd" || :
    done | sed "s/\[[0-9]*\]\$//; s|^$img\$|IMAGE|" | sort | uniq -c | tr -s ' \n' ' '
}

# Strays of a careless caller: none may live on in any process of the mount.
exec 5<"$TMP" 6<"$img" 9>"$TMP/stray"
mounted "$img" "$dir" -o tpm=2.0
exec 5<&- 6<&- 9>&-
pid=$(pid_of "$dir")
# What the start took, and what a fork brought to another process, is closed in a moment.
needed='^ 1 /dev/fuse 3 /dev/null 1 /proc/[0-9]*/mountinfo 1 IMAGE 2 anon_inode:\[eventfd\] 1 anon_inode:\[signalfd\] 1 pipe: [23] socket: $'
has_what_it_needs() {
    descriptors "$pid" >"$TMP/fds" # a third socket is syslog's
    grep -qE "$needed" "$TMP/fds"
}
holds_nothing_of_it() { # PID
    ls -l /proc/"$1"/fd >"$TMP/fds"
    ! grep -qE "$img|/dev/fuse|stray|$TMP\$" "$TMP/fds"
}
has_a_socket_only() { # PID
    [ "$(descriptors "$1")" = " 3 /dev/null 1 socket: " ]
}
wait_until 30 has_what_it_needs
matches "the daemon has what it needs, nothing else" "$TMP/fds" "$needed"
others=$(cat /proc/"$pid"/task/*/children)
is "it has two children" "$(echo $others | wc -w)" 2
tpm=$(tpm_pid_of "$dir")
for other in $others; do
    if wait_until 30 holds_nothing_of_it "$other"; then
        pass "process $(cat /proc/"$other"/comm) holds neither the image nor the FUSE descriptor"
    else
        fail "process $other holds the image, the FUSE descriptor or a stray" "$(cat "$TMP/fds")"
    fi
    [ "$other" = "$tpm" ] || check "the unmounter has a socket only" wait_until 30 has_a_socket_only "$other"
done
is "the daemon has left the caller's directory" "$(readlink /proc/"$pid"/cwd)" /
unmounted "$dir"
check "all have ended" is_gone "$tpm"

# ---- as somebody else -----------------------------------------------------------------------------

as_nobody() {
    setpriv --reuid nobody --regid nogroup --clear-groups "$@"
}

if as_nobody "$VNVRAM" --version >/dev/null 2>&1; then
    mkdir "$TMP/theirs"
    chown nobody "$TMP/theirs"
    as_nobody "$VNVRAM" format "$TMP/theirs/img" >/dev/null
    as_nobody mkdir "$TMP/theirs/dir"
    for options in rw tpm=2.0; do
        check "$options: an unprivileged user mounts" \
            as_nobody "$VNVRAM" mount -o $options "$TMP/theirs/img" "$TMP/theirs/dir"
        mounts+=("$TMP/theirs/dir")
        check "$options: and writes" as_nobody cp "$TMP/want" "$TMP/theirs/dir/file"
        check "$options: and unmounts" as_nobody "$VNVRAM" unmount "$TMP/theirs/dir"
        check "$options: it has gone" is_not_mounted "$TMP/theirs/dir"
        check_exit 0 "$options: the image is free" as_nobody "$VNVRAM" check "$TMP/theirs/img"
    done
    check "an unprivileged mount with a TPM" \
        as_nobody "$VNVRAM" mount -o tpm=2.0 "$TMP/theirs/img" "$TMP/theirs/dir"
    check "is unmounted by root" "$VNVRAM" unmount "$TMP/theirs/dir"
    check_exit 0 "the image is free" as_nobody "$VNVRAM" check "$TMP/theirs/img"
    check "again" as_nobody "$VNVRAM" mount "$TMP/theirs/img" "$TMP/theirs/dir"
    kill -KILL "$(as_nobody sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$TMP/theirs/dir/.vnvram/status")"
    check "an unprivileged user replaces a dead mount" wait_until 30 \
        as_nobody "$VNVRAM" mount "$TMP/theirs/img" "$TMP/theirs/dir"
    check "with everything there" as_nobody cmp "$TMP/want" "$TMP/theirs/dir/file"
    check "and unmounts" as_nobody "$VNVRAM" unmount "$TMP/theirs/dir"
else
    fail "an unprivileged user can run $VNVRAM"
fi

cat >"$TMP/userns" <<'SH'
mount=$1 img=$2 dir=$3
"$mount" mount -o tpm=2.0,uid=0,gid=0 "$img" "$dir" && cp /bin/true "$dir/file" && umount "$dir" &&
    "$mount" mount -o uid=0,gid=0 "$img" "$dir" && cmp /bin/true "$dir/file" && "$mount" unmount "$dir"
SH
if as_nobody unshare -Urm true 2>/dev/null; then
    check "root of a user namespace mounts, and umount says nothing of busy" \
        as_nobody unshare -Urm sh "$TMP/userns" "$(program_for_all)" "$TMP/theirs/img" "$TMP/theirs/dir"
fi

# ---- many -----------------------------------------------------------------------------------------

many=40
failed=
for i in $(seq $many); do
    new_image "$TMP/img$i" >/dev/null && mounted "$TMP/img$i" "$TMP/dir$i" -o tpm=2.0 || failed+=" $i"
done
is "$many mounts with TPMs side by side" "$failed" ""
for i in 1 $((many / 2)) $many; do
    check "$i is unmounted" umount "$TMP/dir$i"
    check "$i is free at once, whatever the others hold" mounted "$TMP/img$i" "$TMP/dir$i" -o tpm=2.0
    check "$i is unmounted by its image's name" unmounted "$TMP/img$i"
    check_exit 0 "$i is in order" "$VNVRAM" check "$TMP/img$i"
done
failed=
for i in $(seq $many); do
    is_mounted "$TMP/dir$i" || continue
    unmounted "$TMP/dir$i" || failed+=" $i"
done
is "all are unmounted" "$failed" ""
processes_left() {
    grep -lsF "$TMP/" /proc/[0-9]*/cmdline | while read -r f; do
        [ "$(tr '\0' ' ' <"$f" | grep -c "^[^ ]*vnvram mount")" = 0 ] || echo "$f"
    done
}
none_is_left() {
    [ -z "$(processes_left)" ]
}
wait_until 30 none_is_left
is "no process is left" "$(processes_left)" ""
finish
