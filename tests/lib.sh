# SPDX-License-Identifier: BSD-3-Clause
# lib.sh - what the shell tests share; they source it first.  Bash; speaks TAP.
#
#   check NAME COMMAND...          one test: does COMMAND succeed?
#   check_exit CODE NAME COMMAND...  one test: does it exit with CODE?  Its output is in $OUT and $ERR
#   is NAME GOT WANTED             one test: are the two strings the same?
#   matches NAME FILE REGEX        one test: does a line of FILE match (grep -E)?
#   pass NAME, fail NAME [WHY]     one test, decided by you
#   skip_all WHY                   ends the script, nothing tested
#   need COMMAND..., need_fuse, need_root, need_guest   skip_all if it is not there
#   new_image PATH [OPTION...]     vnvram format
#   mounted IMAGE DIR [OPTION...]  vnvram mount; unmounted again when the script ends, however it ends
#   unmounted DIR                  vnvram unmount
#   settled DIR                    waits until the mount has nothing more to commit by itself: it adds a generation and a
#                                  flush when it settles, two seconds after a commit, wherever the test may be by then
#   alone "$@"                     goes on in a mount namespace of its own
#   wait_until SECONDS COMMAND...  polls until COMMAND succeeds
#   swtpm_answers SOCKET           does swtpm answer on its control socket?  It is there before that
#   own_ca                         from here on swtpm_setup's certificates are of a CA of the test's, not of the host's
#   program_for_all                prints a copy of the program that every user reaches, wherever it was built
#   hash FILE                      its SHA-256
#   loop_on FILE [SECTOR [ro] [partitions]]  prints the loop device that it attaches (sectors of 512 bytes);
#                                  fails where there are none
#   loop_off DEVICE                detaches it; those on files in $TMP go by themselves at the end
#   finish                         last line of every script
#
# $VNVRAM is the program, $TMP a directory of the test's own, removed at the end.
set -u
: "${srcdir:=$(dirname "${BASH_SOURCE[0]}")/..}"
: "${VNVRAM:=$(cd "$srcdir" && pwd)/vnvram}"
export LC_ALL=C

TMP=$(mktemp -d "${TMPDIR:-/tmp}/vnvram-test.XXXXXX") || exit 99
chmod 755 "$TMP"
OUT=$TMP/.out
ERR=$TMP/.err
tests_run=0
mounts=()

cleanup() {
    local dir
    for dir in "${mounts[@]}"; do
        umount -l "$dir" 2>/dev/null || fusermount3 -uz "$dir" 2>/dev/null
    done
    for dir in /sys/block/loop*/loop/backing_file; do
        grep -qsF "$TMP/" "$dir" && loop_off "/dev/$(cut -d/ -f4 <<<"$dir")"
    done
    # What is still mounted there is not ours to remove (a bind mount may even be the host's own files).
    if cut -d' ' -f5 /proc/self/mountinfo | grep -qF "$TMP/"; then
        echo "# left behind, with mounts in it: $TMP"
    else
        rm -rf --one-file-system "$TMP"
    fi
}
trap cleanup EXIT
trap 'exit 99' INT TERM HUP

pass() {
    tests_run=$((tests_run + 1))
    echo "ok $tests_run - $1"
}

fail() {
    tests_run=$((tests_run + 1))
    echo "not ok $tests_run - $1"
    [ $# -lt 2 ] || printf '%s\n' "$2" | sed 's/^/# /'
}

check() {
    local name=$1
    shift
    if "$@" >"$OUT" 2>"$ERR"; then
        pass "$name"
    else
        fail "$name" "exit $? of: $*
$(head -c 4000 "$OUT" "$ERR")"
    fi
}

check_exit() {
    local want=$1 name=$2 got
    shift 2
    "$@" >"$OUT" 2>"$ERR"
    got=$?
    if [ "$got" -eq "$want" ]; then
        pass "$name"
    else
        fail "$name" "exit $got, not $want, of: $*
$(head -c 4000 "$OUT" "$ERR")"
    fi
}

is() {
    if [ "$2" = "$3" ]; then
        pass "$1"
    else
        fail "$1" "got    $2
wanted $3"
    fi
}

matches() {
    if grep -qE -- "$3" "$2"; then
        pass "$1"
    else
        fail "$1" "no line matches $3 in
$(head -c 4000 "$2")"
    fi
}

skip_all() {
    echo "1..0 # SKIP $*"
    exit 0
}

need() {
    local command
    for command; do
        command -v "$command" >/dev/null || skip_all "$command is not there"
    done
}

need_fuse() {
    [ -c /dev/fuse ] && [ -w /dev/fuse ] || skip_all "/dev/fuse is not there"
}

need_root() {
    [ "$(id -u)" -eq 0 ] || skip_all "root is needed"
}

need_guest() { # what guestkit.py needs
    need qemu-system-x86_64 busybox lz4 python3
    [ -e "${VNVRAM_TEST_CACHE:-/var/cache/vnvram-tests}/vmlinuz" ] ||
        skip_all "scripts/install-deps has fetched no kernel for the guest"
}

# Goes on in a mount namespace of its own.  Whoever makes one meanwhile would hold our mounts and the devices that
# they are on; and the copies that we have of others' would keep their daemons from ending.
alone() { # SCRIPT'S-ARGUMENT...
    local dir
    if [ -z "${VNVRAM_TEST_ALONE-}" ]; then
        rm -rf "$TMP"
        unshare --mount --propagation private true 2>/dev/null || skip_all "no mount namespace can be made"
        VNVRAM_TEST_ALONE=1 exec unshare --mount --propagation private "$BASH" "$0" "$@"
    fi
    unset VNVRAM_TEST_ALONE
    findmnt -rno TARGET -t fuse.vnvram | tac | while read -r dir; do
        umount -l "$dir"
    done
}

new_image() {
    "$VNVRAM" format "${@:2}" "$1"
}

mounted() {
    mkdir -p "$2" && "$VNVRAM" mount "${@:3}" "$1" "$2" || return
    mounts+=("$2")
}

unmounted() {
    "$VNVRAM" unmount "$1"
}

is_clean() {
    grep -q '"clean": *true' "$1/.vnvram/status"
}

settled() {
    wait_until 30 is_clean "$1"
}

wait_until() {
    local deadline=$((SECONDS + $1 + 1)) # the second that has begun may be over at once
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.02
    done
}

swtpm_answers() {
    swtpm_ioctl --unix "$1" -g >/dev/null 2>&1
}

# The host's belongs to the user of its swtpm, who cannot use what root has made there.
own_ca() {
    local ca=$TMP/.ca
    mkdir -p "$ca"
    cat >"$ca/swtpm-localca.conf" <<CONF
statedir = $ca
signingkey = $ca/signkey.pem
issuercert = $ca/issuercert.pem
certserial = $ca/certserial
CONF
    sed "s|^create_certs_tool_config *=.*|create_certs_tool_config = $ca/swtpm-localca.conf|" \
        /etc/swtpm_setup.conf >"$ca/swtpm_setup.conf"
    export XDG_CONFIG_HOME=$ca
}

program_for_all() {
    [ -e "$TMP/.program/vnvram" ] || install -D -m 755 "$VNVRAM" "$TMP/.program/vnvram"
    echo "$TMP/.program/vnvram"
}

hash() {
    sha256sum <"$1" | cut -d' ' -f1
}

spoil() { # FILE OFFSET: the byte there becomes another one, whatever it was
    local byte
    byte=$(od -An -tu1 -j"$2" -N1 "$1") &&
        printf "\\x$(printf %02x $((byte ^ 64)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# Until its change shows, that is: times have the grain of a tick in most kernels, and what somebody else writes within
# the tick of the daemon's own last write is not noticed.
write_over() { # FILE SOURCE: the content of SOURCE
    local before
    before=$(stat -c %z "$1")
    wait_until 30 has_been_written "$@"
}

has_been_written() {
    cat "$2" >"$1" && [ "$(stat -c %z "$1")" != "$before" ]
}

# By ioctl: util-linux comes without losetup in places.
loop_on() {
    [ -c /dev/loop-control ] && python3 - "$@" <<'PY'
import fcntl, os, struct, sys
CONFIGURE, CTL_GET_FREE, READ_ONLY, PARTITIONS = 0x4C0A, 0x4C82, 1, 8
name, sector, words = sys.argv[1], int((sys.argv + ["512"])[2]), sys.argv[3:]
back = os.open(name, os.O_RDONLY if "ro" in words else os.O_RDWR)
flags = (READ_ONLY if "ro" in words else 0) | (PARTITIONS if "partitions" in words else 0)
# struct loop_config: the file, the sectors' size, struct loop_info64 (its flags at 52), 8 words reserved
config = struct.pack("=II52xI176x64x", back, sector, flags)
control = os.open("/dev/loop-control", os.O_RDWR)
for _ in range(50):
    name = "/dev/loop%d" % fcntl.ioctl(control, CTL_GET_FREE)
    try:
        fcntl.ioctl(os.open(name, os.O_RDWR), CONFIGURE, config)
    except BlockingIOError:
        continue
    except OSError as e:
        if e.errno == 16:
            continue  # somebody else was faster
        break
    print(name)
    sys.exit(0)
sys.exit(1)
PY
}

loop_off() {
    python3 -c '
import fcntl, os, sys
CLR_FD = 0x4C01
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), CLR_FD)' "$1"
}

finish() {
    echo "1..$tests_run"
}
