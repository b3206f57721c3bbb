#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The units: systemd finds no fault with them, and with what it makes of a line in fstab.
. "${srcdir:-.}/tests/lib.sh"
need systemd-analyze setpriv
generator=/lib/systemd/system-generators/systemd-fstab-generator
[ -x "$generator" ] || skip_all "$generator is not there"

# Nothing of ours is installed: the program where it was built.
mkdir "$TMP/units"
check_exit 1 "no word is left to be filled in" grep '@[a-z]*@' systemd/vnvram@.service systemd/vnvram-sealed@.service systemd/run-vnvram-vm1.mount
for unit in vnvram vnvram-sealed; do
    sed "s|^ExecStart=[^ ]*/vnvram |ExecStart=$VNVRAM |" "systemd/$unit@.service" >"$TMP/units/$unit@vm1.service"
    matches "$unit@.service runs the program" "$TMP/units/$unit@vm1.service" "^ExecStart=$VNVRAM mount -o foreground,"
done
cp systemd/run-vnvram-vm1.mount "$TMP/units"

faultless() { # UNIT: no word from systemd
    local said
    said=$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$1" 2>&1) && [ -z "$said" ] && return
    echo "$said"
    return 1
}

for unit in "$TMP"/units/*; do
    check "systemd takes ${unit##*/}" faultless "$unit"
    matches "${unit##*/} is there before libvirt" "$unit" '^Before=libvirtd\.service virtqemud\.service '
done
sed '/^ExecStart/s/$/ $(/; s/^KillMode.*/KillMode=sometimes/' "$TMP/units/vnvram@vm1.service" >"$TMP/units/bad@vm1.service"
check_exit 1 "it would not take another one" faultless "$TMP/units/bad@vm1.service"
for unit in vnvram vnvram-sealed; do
    file=$TMP/units/$unit@vm1.service
    # Each of these gives the service a mount namespace, in which the mount would stay.
    is "$unit@.service has no mount namespace" "$(grep -E '^(Private|Protect|Read|Inaccessible|Bind|TemporaryF|RootD|RootI|DynamicU|MountF|ProcS|LogN|Exec.*Paths)' "$file")" ""
    matches "$unit@.service waits for READY=1" "$file" '^Type=notify$'
    matches "$unit@.service sends the first signal to the daemon alone" "$file" '^KillMode=mixed$'
done
matches "the sealed one gets its key as a credential" "$TMP/units/vnvram-sealed@vm1.service" '^LoadCredential=key:/etc/vnvram/%i\.key$'
matches "... and uses it" "$TMP/units/vnvram-sealed@vm1.service" '^ExecStart=.*,key_file=%d/key \$\{IMAGE\} \$\{DIRECTORY\}$'
check_exit 1 "the other one does not" grep -q LoadCredential= "$TMP/units/vnvram@vm1.service"

sed -n "s/^ExecStartPre=-\/bin\/sh -c '\(.*\)'$/\1/p" "$TMP/units/vnvram@vm1.service" >"$TMP/before"
(umask 077 && DIRECTORY=$TMP/far/away sh "$TMP/before")
is "all users reach a mount point that the unit makes" "$(stat -c %a "$TMP/far" "$TMP/far/away" | xargs)" "711 711"

# ---- fstab -------------------------------------------------------------------------------------------
cat >"$TMP/fstab" <<EOT
/var/lib/vnvram/vm1.img /run/vm1 vnvram nofail,_netdev,tpm=2.0,x-systemd.requires-mounts-for=/var/lib/vnvram,x-systemd.before=libvirtd.service 0 0
/dev/vg/vm2 /run/vm2 vnvram nofail 0 2
EOT
mkdir "$TMP/generated" "$TMP/early" "$TMP/late"
check "systemd makes a unit of a line in fstab" env SYSTEMD_FSTAB="$TMP/fstab" SYSTEMD_LOG_TARGET=console "$generator" \
    "$TMP/generated" "$TMP/early" "$TMP/late"
unit=$TMP/generated/run-vm1.mount
matches "... of our type" "$unit" '^Type=vnvram$'
matches "... with the options it leaves to us" "$unit" '^Options=.*tpm=2\.0'
matches "... before libvirt" "$unit" '^Before=.*libvirtd\.service'
matches "... after what it is on" "$unit" '^RequiresMountsFor=/var/lib/vnvram$'
check "the boot does not wait for it" test -e "$TMP/generated/remote-fs.target.wants/run-vm1.mount"
check_exit 1 "... nor fail with it" test -e "$TMP/generated/remote-fs.target.requires/run-vm1.mount"
[ ! -e /sbin/fsck.vnvram ] || matches "an image on a device is checked before" "$TMP/generated/run-vm2.mount" '^Requires=systemd-fsck@dev-vg-vm2\.service$'
finish
