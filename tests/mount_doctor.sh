#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# mount_doctor.sh - vnvram doctor: a mount that is well, and each thing that can be wrong with one.
# In a mount namespace in which /etc/fstab, /etc/fuse.conf, /etc/libvirt and /var/lib are the test's own.
. "${srcdir:-.}/tests/lib.sh"
need_root
need_fuse
need unshare jq python3 setpriv
alone "$@"
cd "$TMP" || exit 99
mkdir etc etc/libvirt etc/libvirt/qemu
: >etc/fstab
: >etc/fuse.conf
for file in fstab fuse.conf; do
    [ -e "/etc/$file" ] || skip_all "/etc/$file is not there to be replaced"
    mount --bind "etc/$file" "/etc/$file" || exit 99
done
[ -d /etc/libvirt ] || skip_all "/etc/libvirt is not there to be replaced"
mount --bind etc/libvirt /etc/libvirt && mount -t tmpfs -o mode=755 none /var/lib || exit 99

user=tss
id=$(id -u tss) || skip_all "there is no user tss"

# verdict CHECK DOCTOR'S-ARGUMENT...: what it says of that; the advice is left in $TMP/advice
verdict() {
    "$VNVRAM" doctor --json "${@:2}" >report.json 2>report.err
    jq -r --arg c "$1" '.checks[] | select(.check == $c) | .what_to_do' report.json >advice
    jq -r --arg c "$1" '.checks[] | select(.check == $c) | .verdict' report.json
}

pid_of() { # DIRECTORY
    jq .pid "$1/.vnvram/status"
}

is_dead() {
    ! stat "$1/.vnvram/status" >/dev/null 2>&1
}

D=$TMP/mnt

# ---- well --------------------------------------------------------------------------------------------
check_exit 2 "it wants to know of what" "$VNVRAM" doctor
check_exit 1 "neither a directory nor a domain" "$VNVRAM" doctor nobody-s
check_exit 2 "a user who is not there" "$VNVRAM" doctor --user nobody-s "$TMP"
new_image a.img >/dev/null
chmod 600 a.img
check "a mount" mounted a.img "$D" -o allow_other
chown "$id" "$D"
check "that is well" "$VNVRAM" doctor --user "$user" "$D"
matches "... it says so" "$OUT" "^ok +mount +$TMP/a\.img is mounted on $D$"
check "in JSON" "$VNVRAM" doctor --json --user "$user" "$D"
is "... nothing is bad" "$(jq -r '.ok, .user, ([.checks[] | select(.verdict == "bad")] | length)' "$OUT")" "true
$user
0"
is "... each check has run" "$(jq -r '[.checks[].check] | length' "$OUT")" 14

# ---- the mount ---------------------------------------------------------------------------------------
pid=$(pid_of "$D")
kill -STOP "$pid"
is "mount: it does not answer" "$(verdict mount "$D")" bad
matches "... what to do" advice 'unmount --force'
kill -CONT "$pid"
is "mount: it does again" "$(verdict mount "$D")" ok
kill -9 "$pid"
check "its daemon was killed" wait_until 20 is_dead "$D"
is "mount: dead" "$(verdict mount "$D")" bad
matches "... what to do" advice 'replaces the dead mount'
unmounted "$D"
is "mount: none" "$(verdict mount "$D")" bad
check_exit 1 "... which is a failure" "$VNVRAM" doctor "$D"
echo "$TMP/a.img $D vnvram key_file=$TMP/key,uid=root 0 0" >etc/fstab
is "mount: none, but in fstab" "$(verdict mount "$D")" bad
matches "... what to do" advice '/etc/fstab'
is "allow_other: fstab has it not" "$(verdict allow_other --user "$user" "$D")" bad
: >etc/fstab
is "mount: no directory" "$(verdict mount "$TMP/nowhere")" bad
mknod file p
mount --bind file /dev/fuse
is "fuse: no device" "$(verdict fuse "$D")" bad
umount /dev/fuse
is "fuse: it is there" "$(verdict fuse "$D")" ok

# ---- the directory beneath ---------------------------------------------------------------------------
is "bare-directory: root could write there" "$(verdict bare-directory "$D")" bad
is "bare-directory: $user could not" "$(verdict bare-directory --user "$user" "$D")" ok
chown "$id" "$D"
is "bare-directory: its own" "$(verdict bare-directory --user "$user" "$D")" bad
mount --bind "$D" "$D" && mount -o remount,bind,ro "$D"
is "bare-directory: read-only" "$(verdict bare-directory --user "$user" "$D")" ok
umount "$D"
: >"$D/tpm2-00.permall"
is "bare-directory: a state in it" "$(verdict bare-directory --user "$user" "$D")" bad
matches "... what to do" advice 'written without the mount'
rm "$D/tpm2-00.permall"

# ---- who may enter -----------------------------------------------------------------------------------
check "mount without allow_other" mounted a.img "$D"
is "allow_other: missing" "$(verdict allow_other --user "$user" "$D")" bad
is "allow_other: not needed" "$(verdict allow_other "$D")" ok
unmounted "$D"
check "mount read-only" mounted a.img "$D" -o ro
is "owner: of a read-only mount says nothing" "$(verdict owner "$D")" skipped
unmounted "$D"
check "mount with it" mounted a.img "$D" -o allow_other
is "allow_other: there" "$(verdict allow_other --user "$user" "$D")" ok
is "owner: may write" "$(verdict owner --user "$user" "$D")" ok
chown root "$D"
is "owner: may not" "$(verdict owner --user "$user" "$D")" bad
chown "$id" "$D"
is "path: open" "$(verdict path --user "$user" "$D")" ok
mkdir -m 700 closed
mkdir closed/mnt
is "path: closed" "$(verdict path --user "$user" "$TMP/closed/mnt")" bad
matches "... by what" <(jq -r '.checks[] | select(.check == "path") | .found' report.json) "past $TMP/closed:"

as_nobody() {
    setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
}
cp "$VNVRAM" program && chmod 755 program
install -d -o 65534 theirs theirs/mnt
as_nobody ./program format theirs/image >/dev/null
check "a user's mount" as_nobody ./program mount theirs/image theirs/mnt
mounts+=("$TMP/theirs/mnt")
is "allow_other: which that user may not give" "$(verdict allow_other --user "$user" theirs/mnt)" bad
matches "... what to do" advice 'user_allow_other'
echo user_allow_other >etc/fuse.conf
is "allow_other: now he may" "$(verdict allow_other --user "$user" theirs/mnt)" bad
matches "... what to do" advice '^mount it with -o allow_other$'

# ---- the image ---------------------------------------------------------------------------------------
is "image: in order" "$(verdict image "$D")" ok
chmod 606 a.img
is "image: others can write to it" "$(verdict image "$D")" bad
chmod 600 a.img
is "slots: enough" "$(verdict slots "$D")" ok
for i in 1 2; do
    head -c 200000 /dev/zero >"$D/large$i"
done
is "slots: enough for two" "$(verdict slots "$D")" ok
head -c 200000 /dev/zero >"$D/large3"
is "slots: one is not enough" "$(verdict slots "$D")" bad
head -c 1000 /dev/zero >"$D/tpm2-00.permall"
is "slots: a small state may outgrow its slot" "$(verdict slots "$D")" bad
rm "$D/tpm2-00.permall" "$D"/large*
head -c 200000 /dev/zero >"$D/tpm2-00.permall"
is "slots: a large one has its slot" "$(verdict slots "$D")" ok
is "lease: a file has them" "$(verdict lease "$D")" ok
is "slots: those of a user's image" "$(verdict slots theirs/mnt)" ok
is "lease: a daemon for its own file" "$(verdict lease theirs/mnt)" ok
unmounted theirs/mnt 2>/dev/null || as_nobody ./program unmount theirs/mnt
chown root theirs/image && chmod 666 theirs/image
check "a user's mount of root's image" as_nobody ./program mount theirs/image theirs/mnt
is "image: nobody sends root to another's file" "$(verdict slots theirs/mnt)" skipped
is "lease: not for another's" "$(verdict lease theirs/mnt)" warning
matches "... what to do" advice 'give the image'
if loop=$(truncate -s 4M disk.img && loop_on "$TMP/disk.img"); then
    echo "$loop $TMP/disk vnvram defaults 0 0" >etc/fstab
    mkdir disk
    is "lease: none on a block device" "$(verdict lease "$TMP/disk")" warning
    is "image: a blank one" "$(verdict image "$TMP/disk")" bad
    loop_off "$loop"
fi
echo "$TMP/gone.img $TMP/closed/mnt vnvram defaults 0 0" >etc/fstab
is "image: gone" "$(verdict image "$TMP/closed/mnt")" bad

head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >key
chmod 600 key
is "key-file: unknown" "$(verdict key-file "$D")" skipped
is "key-file: in order" "$(verdict key-file -o "key_file=$TMP/key" "$D")" ok
is "key-file: with a mount's other words" "$(verdict key-file -o "key_file=$TMP/key,key_format=binary" "$D")" ok
chmod 640 key
is "key-file: others can read it" "$(verdict key-file -o "key_file=$TMP/key" "$D")" bad
chmod 600 key
chown "$id" key
is "key-file: another user's" "$(verdict key-file -o "key_file=$TMP/key" "$D")" bad
is "key-file: a directory" "$(verdict key-file -o "key_file=$TMP" "$D")" bad
is "key-file: gone" "$(verdict key-file -o "key_file=$TMP/none" "$D")" bad
echo "$TMP/a.img $D vnvram key_file=$TMP/none 0 0" >etc/fstab
is "key-file: that of fstab" "$(verdict key-file "$D")" bad

unmounted "$D"
check "a mount with an anchor beside its image, without sandbox" \
    mounted a.img "$D" -o "anchor=$TMP/anchor,anchor_create,sandbox=off"
is "anchor: too near" "$(verdict anchor "$D")" warning
is "sandbox: off" "$(verdict sandbox "$D")" warning
mv anchor anchor.away
is "anchor: gone" "$(verdict anchor "$D")" bad
mv anchor.away anchor
unmounted "$D"
mkdir elsewhere
mount -t tmpfs none elsewhere
check "a mount with one elsewhere" mounted a.img "$D" -o "anchor=$TMP/elsewhere/anchor,anchor_create"
is "anchor: in order" "$(verdict anchor "$D")" ok
is "sandbox: on" "$(verdict sandbox "$D")" ok
unmounted "$D"
umount elsewhere

# ---- the clock ---------------------------------------------------------------------------------------
cat >future.c <<'EOT'
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *ts)
{
    int r = (int)syscall(SYS_clock_gettime, id, ts);
    ts->tv_sec += id == CLOCK_REALTIME ? 86400 : 0;
    return r;
}
time_t time(time_t *t)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (t)
        *t = ts.tv_sec;
    return ts.tv_sec;
}
EOT
check "a library that knows tomorrow" "${CC:-cc}" -shared -fPIC -o future.so future.c
check "an image made tomorrow" env LD_PRELOAD="$TMP/future.so" \
    ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 "$VNVRAM" format tomorrow.img
echo "$TMP/a.img $D vnvram defaults 0 0" >etc/fstab
is "clock: in order" "$(verdict clock "$D")" ok
echo "$TMP/tomorrow.img $D vnvram defaults 0 0" >etc/fstab
is "clock: behind" "$(verdict clock "$D")" bad

# ---- a domain of libvirt's ---------------------------------------------------------------------------
uuid=0c7f8f3a-2f0e-4c55-8d52-7f4f6c2a9b01
domain() { # NAME TPM
    echo "<domain type='kvm'><name>$1</name><uuid>$uuid</uuid><devices>
    $2</devices></domain>" >"etc/libvirt/qemu/$1.xml"
}
L=/var/lib/libvirt/swtpm/$uuid/tpm2
domain plain ''
check_exit 1 "a domain without a TPM" "$VNVRAM" doctor plain
matches "... says so" "$ERR" 'no TPM'
rm etc/libvirt/qemu/plain.xml
domain vm1 "<tpm model='tpm-crb'>
      <backend type='emulator' version='2.0'/>
    </tpm>"
mkdir -p "$L"
is "domain: not mounted" "$(verdict mount vm1)" bad
is "... where its state would be" "$(jq -r .directory report.json)" "$L"
is "... for whom" "$(jq -r .user report.json)" "$user"
is "domain: libvirt would write beneath" "$(verdict bare-directory vm1)" bad
matches "... what to do" advice 'chattr'
: >etc/fstab
check "mount it there" mounted a.img "$L" -o allow_other
chown root "$L"
check "a domain that is well" "$VNVRAM" doctor vm1
check "... by its UUID" "$VNVRAM" doctor "$uuid"
is "owner: libvirt gives it to $user" "$(verdict owner vm1)" ok
is "shared-filesystems: missing" "$(verdict shared-filesystems vm1)" warning
echo '#shared_filesystems = [ "/var/lib/libvirt/swtpm" ]' >etc/libvirt/qemu.conf
is "shared-filesystems: a comment" "$(verdict shared-filesystems vm1)" warning
printf 'shared_filesystems = [\n  "/other",\n  "/var/lib/libvirt/swtpm",\n]\nswtpm_user = "daemon"\n' >etc/libvirt/qemu.conf
is "shared-filesystems: there" "$(verdict shared-filesystems vm1)" ok
is "... and another user" "$(jq -r .user report.json)" daemon
unmounted "$L"
rm etc/libvirt/qemu/vm1.xml
domain vm2 "<tpm model='tpm-crb'>
      <backend type='emulator' version='2.0'>
        <source type='dir' path='$TMP/it&apos;s'/>
      </backend>
    </tpm>"
is "domain: a directory of its own" "$(verdict mount vm2)" bad
is "... where" "$(jq -r .directory report.json)" "$TMP/it's"
rm etc/libvirt/qemu/vm2.xml

domain vm3 "<tpm model='tpm-crb'>
      <backend type='external'>
        <source type='unix' mode='connect' path='$TMP/socket'/>
      </backend>
    </tpm>"
echo 'user = "daemon"' >etc/libvirt/qemu.conf
is "socket: nobody there" "$(verdict socket vm3)" bad
check "a mount with a control socket" mounted a.img "$D" -o "tpm=2.0,tpm_manufacture,ctrl=$TMP/socket"
is "socket: not for QEMU" "$(verdict socket vm3)" bad
matches "... what to do" advice 'ctrl_uid'
unmounted "$D"
check "one for QEMU" mounted a.img "$D" -o "tpm=2.0,ctrl=$TMP/socket,ctrl_uid=daemon"
is "socket: in order" "$(verdict socket vm3)" ok
check "the domain is well" "$VNVRAM" doctor vm3
is "it was not connected to" "$(jq -r .health "$D/.vnvram/status")" ok
finish
