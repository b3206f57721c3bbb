#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# mount(8), umount(8), fstab(5), fsck(8) and mkfs(8) as they are find the program under its other names.
# They look in /sbin, so this script works in a mount namespace in which /sbin and /etc/fstab are its own.
. "${srcdir:-.}/tests/lib.sh"
need_root
need_fuse
need unshare
[ -e /etc/fstab ] || skip_all "/etc/fstab is not there to be replaced"
alone "$@"
server=$(cd "$srcdir" && pwd)/tests/nbdserver.py
cd "$TMP" || exit 99

# Copies of the few programs that are needed: nothing of the host may be reachable below $TMP, which is
# removed at the end.
mkdir sbin dir etc sealed gone far
cp /usr/sbin/mkfs /usr/sbin/fsck sbin/ || exit 99
for name in mount mkfs fsck; do
    ln -s "$VNVRAM" "sbin/$name.vnvram"
done
cat >etc/fstab <<EOT
# a comment
$TMP/a.img  $TMP/dir  vnvram  _netdev,x-systemd.requires=network.target,nosuid,nodev,tpm=2.0  0  2
$TMP/gone.img  $TMP/gone  vnvram  nofail,noauto,x-systemd.before=libvirtd.service,comment=x  0  0
nbd+unix:///?socket=$TMP/far.sock  $TMP/far  vnvram  noauto,_netdev,reconnect=9  0  0
$TMP/sealed.img  $TMP/sealed  vnvram  noauto,nofail,_netdev,key_file=$TMP/key  0  0
EOT
mount --bind sbin /usr/sbin && mount --bind etc/fstab /etc/fstab || exit 99
[ /sbin/mount.vnvram -ef "$VNVRAM" ] || skip_all "/sbin is not /usr/sbin here"

check "mkfs -t vnvram makes an image" mkfs -t vnvram a.img
check_exit 1 "and does not overwrite one" mkfs -t vnvram a.img
check "fsck -t vnvram finds it clean" fsck -t vnvram "$TMP/a.img"
check "fsck by fstab, as at boot" fsck -A -a -R -M
matches "looks at it" "$OUT" "a\.img: [0-9]+ structures verified, 0 problems"

check "mount by fstab" mount dir
mounts+=("$TMP/dir")
check "shows the TPM" test -e dir/tpm0
check "findmnt tells type and source" test "$(findmnt -no FSTYPE,SOURCE dir | tr -s ' ')" = "fuse.vnvram $TMP/a.img"
options=$(findmnt -no OPTIONS dir)
check "nosuid and nodev have reached the kernel ($options)" \
    sh -c 'case $1 in *nosuid*nodev*) exit 0 ;; esac; exit 1' - ",$options,"
check_exit 32 "a second mount of the image fails with mount's code" mount -t vnvram a.img etc
echo kept >dir/file
check "umount" umount dir
check "mount -t vnvram with options" mount -t vnvram -o ro a.img dir
is "shows what was written" "$(cat dir/file)" kept
check_exit 2 "and is read-only" sh -c 'echo x >dir/file'
check "umount" umount dir

# ---- keys --------------------------------------------------------------------------------------------
key=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
echo "$key" >key
chmod 600 key
check "mkfs with a key" mkfs -t vnvram -o key_file=key sealed.img
check "mount by fstab with a key" mount sealed
mounts+=("$TMP/sealed")
options=$(findmnt -no OPTIONS sealed)
is "findmnt shows nothing of the key's file ($options)" "$(grep -c key <<<"$options")" 0
is "nor does it elsewhere" "$(findmnt -J -o +OPTIONS,FS-OPTIONS,VFS-OPTIONS,OPT-FIELDS sealed | grep -cE 'key_|/key')" 0
check "umount" umount sealed
check "mount with the key itself" mount -t vnvram -o "key=$key,nosuid" sealed.img sealed
is "the key is in no list of mounts" "$(cat /proc/self/mountinfo /proc/self/mounts /run/mount/utab 2>/dev/null | grep -c "$key")" 0
is "... nor in what findmnt shows" "$(findmnt -A -o +OPTIONS | grep -c "$key")" 0
is "... nor with any process of ours" "$(grep -lFf key /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null |
    wc -l)" 0
check "umount" umount sealed
check_exit 32 "without its key it is not mounted" mount -t vnvram sealed.img sealed
matches "... with the finding" "$ERR" 'key'
check_exit 32 "a key that is not there fails with mount's code" mount -t vnvram -o key_file=none sealed.img sealed
check_exit 32 "an image that is not there fails by fstab, too" mount gone
matches "... and is named" "$ERR" 'gone\.img'

# ---- an NBD server's export --------------------------------------------------------------------------
truncate -s 5M far.img
python3 "$server" --socket "$TMP/far.sock" --file far.img &
pid=$!
check "an NBD server" wait_until 20 test -S far.sock
check "mkfs of its export" mkfs -t vnvram "nbd+unix:///?socket=$TMP/far.sock"
check "mount of it by fstab" mount far
mounts+=("$TMP/far")
is "findmnt tells the URI" "$(findmnt -no SOURCE far)" "nbd+unix:///?socket=$TMP/far.sock"
check "umount" umount far
check "mount -t vnvram URI" mount -t vnvram "nbd+unix:///?socket=$TMP/far.sock" far -o ro
check "umount" umount far
check "fsck of it" fsck.vnvram -a "nbd+unix:///?socket=$TMP/far.sock"
kill -9 $pid
wait $pid 2>/dev/null # one that is still to die accepts
check_exit 32 "without its server it is not mounted" mount far
matches "... and the message says so" "$ERR" 'cannot connect'

# ---- fsck's codes ------------------------------------------------------------------------------------
check_exit 0 "fsck of a sealed image needs no key" fsck.vnvram -a sealed.img
check_exit 16 "fsck used wrongly" fsck.vnvram
check_exit 8 "fsck of what is not there" fsck.vnvram none.img
head -c 100000 /dev/urandom >foreign.img
check_exit 8 "fsck of what is no image" fsck.vnvram foreign.img
truncate -s 4M zero.img
check_exit 8 "fsck of a blank image" fsck.vnvram zero.img
check "a mounted one can be looked at" mount -t vnvram sealed.img sealed -o key_file=key
check_exit 0 "... by fsck" fsck.vnvram -p sealed.img
check "umount" umount sealed
head -c 3000000 sealed.img >short.img
check_exit 4 "fsck of a truncated one" fsck.vnvram short.img
printf 'scribble' | dd of=a.img bs=1 seek=100 conv=notrunc status=none
check_exit 4 "fsck passes on that it is damaged" fsck -t vnvram "$TMP/a.img"
truncate -s 4M blank.img
check_exit 32 "mount fails on a blank image, with mount's code" mount -t vnvram blank.img dir
matches "and the finding" "$ERR" 'blank\.img: blank image'
check_exit 1 "mount passes on that an option is wrong" mount -t vnvram -o frob a.img dir
finish
