#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# mount_libvirt.sh - libvirt's two ways to a TPM: its own swtpm with its state on a mount, and the control socket
# of a mount's TPM.  libvirtd is an unmodified one in a mount namespace in which /etc/libvirt, /var/lib, /var/log,
# /var/cache and /run are the test's own: of the host's libvirt nothing is seen, and nothing changed.
. "${srcdir:-.}/tests/lib.sh"
need_root
need_fuse
need unshare libvirtd virsh qemu-system-x86_64 swtpm swtpm_setup swtpm_localca certtool tpm2_nvread jq
alone "$@"

uuid=7d1b5f52-6a3c-4b58-9c1e-0f3f0c6a1d01
external_uuid=7d1b5f52-6a3c-4b58-9c1e-0f3f0c6a1d02
D=/var/lib/libvirt/swtpm/$uuid/tpm2
IMG=$TMP/vm1.img
libvirtd=

# Those that libvirt has started are not our children: their PID files tell them.
end_libvirt() {
    local file pid
    for file in /run/libvirt/qemu/*.pid /run/libvirt/qemu/swtpm/*.pid; do
        [ -e "$file" ] && pid=$(<"$file") && kill -9 "$pid" 2>/dev/null
    done
    if [ -n "$libvirtd" ]; then
        kill -9 "$libvirtd" 2>/dev/null
        wait "$libvirtd" 2>/dev/null
    fi
}
trap 'end_libvirt; cleanup' EXIT

v() {
    timeout 300 virsh -q -c qemu:///system "$@"
}

# ---- a host for libvirt ----------------------------------------------------------------------------
# The namespace has a copy of every mount there is: those of others must not be held, and without control groups
# libvirt leaves the host's alone.
findmnt -rno TARGET -t fuse.vnvram,cgroup,cgroup2 | tac | while read -r dir; do
    umount -l "$dir"
done
for dir in /var/lib /var/log /var/cache /run; do
    mount -t tmpfs -o mode=755 none "$dir" || exit 99
done
mkdir "$TMP/etc"
mount --bind "$TMP/etc" /etc/libvirt || exit 99
install -d -o tss -m 750 /var/lib/swtpm-localca
mkdir -p /var/lib/libvirt /run/lock
# Its package makes this user when libvirt is set up as a service.  As there it may use KVM: where QEMU can and this user
# cannot, libvirt asks QEMU anew what it can do at each step.
if ! getent passwd libvirt-qemu >/dev/null; then
    cp /etc/passwd /etc/group "$TMP/etc"
    kvm=$(getent group kvm | cut -d: -f3)
    [ -n "$kvm" ] || echo 'kvm:x:64056:' >>"$TMP/etc/group"
    echo 'libvirt-qemu:x:64055:' >>"$TMP/etc/group"
    echo "libvirt-qemu:x:64055:${kvm:-64056}::/var/lib/libvirt:/usr/sbin/nologin" >>"$TMP/etc/passwd"
    for file in passwd group; do
        mount --bind "$TMP/etc/$file" "/etc/$file" || exit 99
    done
fi
cat >"$TMP/etc/qemu.conf" <<EOT
stdio_handler = "file"
security_driver = "none"
swtpm_user = "tss"
swtpm_group = "tss"
EOT
cat >"$TMP/etc/libvirtd.conf" <<EOT
log_outputs = "3:file:$TMP/libvirtd.log"
auth_unix_rw = "none"
EOT

is_up() {
    v list >/dev/null 2>&1 || ! kill -0 "$libvirtd" 2>/dev/null
}

domain() { # NAME UUID BACKEND: its XML
    cat <<EOT
<domain type='qemu'>
  <name>$1</name>
  <uuid>$2</uuid>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>$(command -v qemu-system-x86_64)</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <tpm model='tpm-crb'>$3</tpm>
  </devices>
</domain>
EOT
}

define() { # NAME UUID BACKEND
    domain "$@" >"$TMP/$1.xml" && v define "$TMP/$1.xml"
}

emulator() { # [ATTRIBUTE]
    echo "<backend type='emulator' version='2.0' ${1-}/>"
}

generation() {
    jq .generation "$D/.vnvram/status"
}

has_gone_on() { # GENERATION: the firmware has used the TPM
    [ "$(generation)" -gt "$1" ]
}

has_ended() { # NAME
    [ "$(v domstate "$1")" = "shut off" ]
}

swtpm_has_gone() { # UUID; libvirt does not wait for it
    ! compgen -G '/run/libvirt/qemu/swtpm/*.pid' >/dev/null || ! pgrep -f "swtpm socket.*$1" >/dev/null
}

stop() { # NAME [UUID]
    v destroy "$1" && wait_until 30 has_ended "$1" && wait_until 30 swtpm_has_gone "${2:-$uuid}"
}

# What the image's TPM is: its EK, and the certificate of it.
identity() {
    unmounted "$D" && mounted "$IMG" "$TMP/look" -o tpm=2.0 &&
        tpm2_createek -Q -T "device:$TMP/look/tpm0" -c "$TMP/ek.ctx" -G rsa -u "$TMP/ek.pub" &&
        tpm2_nvread -Q -T "device:$TMP/look/tpm0" -C o -o "$TMP/ek.cert" 0x1c00002 2>/dev/null
    local r=$?
    tpm2_flushcontext -Q -T "device:$TMP/look/tpm0" -t
    unmounted "$TMP/look"
    mounted "$IMG" "$D" -o allow_other && [ "$r" -eq 0 ] && cat "$TMP/ek.pub" "$TMP/ek.cert" | sha256sum
}

# The hook of contrib/, which leaves alone what is not its own.
mkdir -p "$TMP/etc/hooks/qemu.d" "$TMP/bin"
ln -s "$VNVRAM" "$TMP/bin/vnvram"
PATH=$TMP/bin:$PATH
install -m 755 "$srcdir/contrib/libvirt/qemu" "$TMP/etc/hooks/qemu.d/vnvram"
[ -e /etc/fstab ] || skip_all "/etc/fstab is not there to be replaced"
: >"$TMP/etc/fstab"
mount --bind "$TMP/etc/fstab" /etc/fstab || exit 99

libvirtd -f /etc/libvirt/libvirtd.conf >"$TMP/libvirtd.out" 2>&1 &
libvirtd=$!
wait_until 60 is_up
check "libvirtd answers" v version

# ---- a new machine -----------------------------------------------------------------------------------
new_image "$IMG" >/dev/null
check "its image is mounted where libvirt keeps the TPM's state" mounted "$IMG" "$D" -o allow_other
chmod 711 "${D%/*/*}"
is "libvirt will see an empty directory" "$(ls "$D")" ""
check "define" define vm1 "$uuid" "$(emulator)"

# Up to 9.x libvirt runs swtpm_setup only where it makes the directory itself; this is what it would run.
provision() {
    setpriv --reuid tss --regid "$(id -g tss)" --clear-groups -- swtpm_setup --tpm2 --tpm-state "$D" \
        --vmid "vm1:$uuid" --createek --create-ek-cert --create-platform-cert --lock-nvram --not-overwrite
}
chown tss "$D"
check "swtpm_setup makes a TPM with certificates" provision
check "it has one" test "$(stat -c %s "$D/tpm2-00.permall")" -gt 3000
first=$(identity)
check "which the mount's own TPM shows" test -n "$first"

before=$(generation)
check "start" v start vm1
check "the firmware uses the TPM" wait_until 60 has_gone_on "$before"
is "libvirt has given the directory to swtpm" "$(stat -c %U:%a "$D")" tss:700
is "... and the files" "$(stat -c %U "$D/tpm2-00.permall")" tss
check_exit 11 "while it runs, the image is in use" "$VNVRAM" unmount "$D"
check "stop" stop vm1
check "the image verifies" "$VNVRAM" check "$IMG"
second=$(identity)
is "the TPM is the same" "$second" "$first"

check "a second provisioning leaves it alone" provision
before=$(generation)
check "start again" v start vm1
check "the firmware uses the TPM" wait_until 60 has_gone_on "$before"
check "reset" v reset vm1
check "stop" stop vm1
is "the TPM is still the same" "$(identity)" "$first"

# ---- without the mount -------------------------------------------------------------------------------
# A bare mount point that can be written to would get a TPM of its own.
check "unmount" unmounted "$D"
mount --bind "$D" "$D" && mount -o remount,bind,ro "$D" || exit 99
check_exit 1 "where the bare directory is read-only, the machine does not start without the mount" v start vm1
is "... and gets no new TPM there" "$(ls -A "$D")" ""
check "mounted over it" mounted "$IMG" "$D" -o allow_other
check "the machine starts" v start vm1
check "stop" stop vm1
is "with its TPM" "$(identity)" "$first"

# ---- undefine ----------------------------------------------------------------------------------------
state=$(hash "$D/tpm2-00.permall")
check "undefine --keep-tpm" v undefine --keep-tpm vm1
is "... keeps the state" "$(hash "$D/tpm2-00.permall")" "$state"
check "define with persistent_state" define vm1 "$uuid" "$(emulator "persistent_state='yes'")"
check "undefine" v undefine vm1
is "persistent_state keeps the state" "$(hash "$D/tpm2-00.permall")" "$state"
check "define without" define vm1 "$uuid" "$(emulator)"
check "undefine" v undefine vm1
is "the state is gone" "$(ls -A "$D")" ""
check "the mount is not" test -e "$D/.vnvram/status"
check "the image verifies" "$VNVRAM" check "$IMG"
is "what there was can be read" "$(hash "$D/.vnvram/previous/tpm2-00.permall")" "$state"
check "... and restored" cp "$D/.vnvram/previous/tpm2-00.permall" "$D/tpm2-00.permall"
is "the TPM is the same once more" "$(identity)" "$first"
check "unmount" unmounted "$D"

# ---- the hook ----------------------------------------------------------------------------------------
hooked=7d1b5f52-6a3c-4b58-9c1e-0f3f0c6a1d03
H=/var/lib/libvirt/swtpm/$hooked/tpm2
new_image "$TMP/vm3.img" >/dev/null
mkdir -p "$H"
check "define another machine" define vm3 "$hooked" "$(emulator)"
echo "$TMP/vm3.img $H vnvram noauto,allow_other 0 0" >"$TMP/etc/fstab"
check_exit 1 "it does not start while its mount is missing" v start vm3
matches "... and the hook says why" "$ERR" 'is not mounted'
is "... and nothing is made beneath it" "$(ls -A "$H")" ""
check "mount it" mounted "$TMP/vm3.img" "$H" -o allow_other
check "it starts" v start vm3
check "with a TPM that has certificates" test "$(stat -c %s "$H/tpm2-00.permall")" -gt 3000
check "stop" stop vm3 "$hooked"
check "start" v start vm3
check "stop" stop vm3 "$hooked"
check "undefine" v undefine vm3
check "define it again" define vm3 "$hooked" "$(emulator)"
check_exit 1 "no new TPM in place of one whose state is gone" v start vm3
matches "... and the hook says what to do" "$ERR" 'previous'
check "bring it back" cp "$H/.vnvram/previous/tpm2-00.permall" "$H/tpm2-00.permall"
check "it starts" v start vm3
check "stop" stop vm3 "$hooked"
check "undefine" v undefine vm3
check "unmount" wait_until 30 unmounted "$H"

# ---- the external backend ----------------------------------------------------------------------------
S=$TMP/external.sock
E=$TMP/external
external="<backend type='external'><source type='unix' mode='connect' path='$S'/></backend>"

external_up() {
    mounted "$TMP/external.img" "$E" -o "tpm=2.0,ctrl=$S,ctrl_uid=libvirt-qemu,pcap=$TMP/external.pcap"
}

external_booted() { # the firmware's TPM2_HierarchyChangeAuth
    LC_ALL=C grep -qaP '\x80\x02\x00\x00\x00\x31\x00\x00\x01\x29' "$TMP/external.pcap"
}

external_gone() {
    ! grep -qF " $E " /proc/self/mountinfo && [ ! -e "$S" ]
}

new_image "$TMP/external.img" >/dev/null
check "define with the external backend" define vm2 "$external_uuid" "$external"
check_exit 1 "without a mount it does not start" v start vm2
check "a mount with a TPM and its control socket" external_up
check "start" v start vm2
check "the firmware uses the TPM" wait_until 60 external_booted
check "stop" v destroy vm2
check "... ends the mount" wait_until 30 external_gone
check "the image verifies" "$VNVRAM" check "$TMP/external.img"
check "mount" external_up
check "start again" v start vm2
check "the firmware uses the TPM" wait_until 60 external_booted
check "stop" v destroy vm2
check "... ends the mount" wait_until 30 external_gone
check "undefine" v undefine vm2
check "the state is no business of libvirt's" mounted "$TMP/external.img" "$E"
check "it is still there" test -s "$E/tpm2-00.permall"
finish
