#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram clone: another machine or the same one; whole or not at all; one generation, beside a writer.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need jq openssl python3 tpm2_createprimary xxd
here=$(cd "${srcdir:-.}" && pwd)
cd "$TMP" || exit 99
umask 077
mkdir mnt out

t() {
    timeout 60 "tpm2_$1" -T device:mnt/tpm0 "${@:2}"
}

endorsement() { # the name of a key that is the TPM's own for good
    t createprimary -Q -C e -c primary && t readpublic -c primary -n "$TMP/name" >/dev/null && xxd -p -c 64 name
    t flushcontext -Q -t
}

counter() {
    t nvread -C o 0x1500019 2>/dev/null | xxd -p
}

of() { # IMAGE MEMBER [OPTION...]: what info tells
    "$VNVRAM" info --json "${@:3}" "$1" | jq -r ".$2"
}

new_image a.img --profile vm || exit 99
check "mounts with a TPM" mounted a.img mnt -o tpm=2.0
head -c 540672 /dev/urandom >vars
check "UEFI variables" cp vars mnt/efivars.fd
touch -d '2020-02-02 02:02:02 UTC' mnt/efivars.fd
chmod 640 mnt/efivars.fd
: >mnt/empty
rm -f mnt/gone
echo gone >mnt/gone && rm mnt/gone
check "room for a name" "$VNVRAM" reserve mnt vpd 5000
check "defines a counter" t nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite|nt=counter' 0x1500019
check "counts" t nvincrement -Q -C o 0x1500019
first=$(endorsement)
count=$(counter)

# ---- usage ------------------------------------------------------------------------------------------

check_exit 2 "what it is for must be said" "$VNVRAM" clone mnt out/x.img
matches "and it says how" "$ERR" 'new-identity.*same-identity'
check_exit 2 "not both" "$VNVRAM" clone --new-identity --same-identity mnt out/x.img
check_exit 2 "the same identity takes no key" "$VNVRAM" clone --same-identity -n key=00 mnt out/x.img
check_exit 1 "a directory without a mount is refused" "$VNVRAM" clone --new-identity out out/x.img
echo precious >out/there
check_exit 1 "an existing file is refused" "$VNVRAM" clone --same-identity mnt out/there
is "and unchanged" "$(cat out/there)" precious
ln -s nowhere out/link
check_exit 1 "so is a dangling symlink" "$VNVRAM" clone --new-identity mnt out/link
rm out/there out/link
limited() {
    (ulimit -f 1024 && trap '' XFSZ && "$VNVRAM" clone "$1" mnt out/large.img)
}
check_exit 1 "no room for the same identity" limited --same-identity
check_exit 1 "no room for a new one" limited --new-identity
is "leaves nothing" "$(ls -A out)" ""

# ---- clones of a mount ------------------------------------------------------------------------------

check "a new identity of a mount" "$VNVRAM" clone --new-identity mnt out/new.img
matches "says so" "$OUT" '^out/new.img: a new identity, UUID '
matches "says what is kept" "$OUT" '^  kept     efivars.fd, 528 KiB$'
matches "and what is not" "$OUT" '^  dropped  tpm2-00.permall, '
matches "loudly" "$ERR" 'makes a new one'
check "the same identity of a mount" "$VNVRAM" clone --same-identity mnt out/same.img
matches "says so, loudly" "$ERR" 'Never run both'
check "the mount goes on" t nvincrement -Q -C o 0x1500019
check "unmounts" unmounted mnt
check "a new identity of an image" "$VNVRAM" clone --new-identity a.img out/new2.img
check "the same identity of an image" "$VNVRAM" clone --same-identity a.img out/same2.img
for img in new new2 same same2; do
    check "$img checks" "$VNVRAM" check "out/$img.img"
    matches "without a remark" "$OUT" ', 0 problems$'
    is "its owner alone may read it" "$(stat -c %a "out/$img.img")" 600
    is "its room is allocated" "$(($(stat -c %b "out/$img.img") * 512 >= $(stat -c %s "out/$img.img")))" 1
    is "it has the slots" "$(of "out/$img.img" slots_total)" "$(of a.img slots_total)"
    is "it has the promise" \
        "$(of "out/$img.img" 'slots[] | select(.name == "vpd") | .reserved')" 5000
done
is "the same identity has the UUID" "$(of out/same.img uuid) $(of out/same2.img uuid)" "$(of a.img uuid) $(of a.img uuid)"
is "all identities differ" "$(for i in a out/new out/new2; do of $i.img uuid; done | sort -u | wc -l)" 3
is "a new identity never held a TPM" "$(of out/new.img held_tpm20)" false
check "the same identity mounts" mounted out/same.img mnt -o tpm=2.0
is "with the same TPM" "$(endorsement)" "$first"
is "and its counter" "$(counter)" "$count"
is "and the variables" "$(hash mnt/efivars.fd)" "$(hash vars)"
is "and what was deleted" "$(cat mnt/.vnvram/previous/gone)" gone
check "unmounts" unmounted mnt
check "a new identity mounts" mounted out/new.img mnt -o tpm=2.0
second=$(endorsement)
check "with a TPM" test -n "$second"
check "that is another one" test "$second" != "$first"
check "without the counter" test -z "$(counter)"
is "it has the variables" "$(hash mnt/efivars.fd)" "$(hash vars)"
is "as they were" "$(stat -c '%a %Y' mnt/efivars.fd)" "640 $(date -d '2020-02-02 02:02:02 UTC' +%s)"
is "an empty file, too" "$(stat -c %s mnt/empty)" 0
check "but nothing that was deleted" test ! -e mnt/.vnvram/previous/gone
check "unmounts" unmounted mnt
check "a grown image" "$VNVRAM" grow --slots 30x4K,1x1M a.img
check "is cloned" "$VNVRAM" clone --new-identity a.img out/grown.img
check "and checks" "$VNVRAM" check out/grown.img
check "the same, too" "$VNVRAM" clone --same-identity a.img out/grown2.img
check "and checks" "$VNVRAM" check out/grown2.img

# ---- sealed -----------------------------------------------------------------------------------------

key() {
    head -c 32 /dev/urandom | xxd -p -c 64
}
key >k1
key >k2
unseal() { # IMAGE KEY
    python3 "$here/tests/independent_unseal.py" "$1" "$(cat "$2")" secret
}
master() { # IMAGE KEY
    python3 - "$here" "$1" "$(cat "$2")" <<'PY'
import sys
sys.path.insert(0, sys.argv[1] + "/tests")
sys.dont_write_bytecode = True
import independent_unseal as u
print(u.volume_key(u.superblock(open(sys.argv[2], "rb").read()), sys.argv[3]).hex())
PY
}
new_image s.img -o key_file=k1 || exit 99
check "mounts" mounted s.img mnt -o key_file=k1,anchor=anchor,anchor_create
echo "in the clear nowhere" >mnt/secret
check_exit 6 "a sealed mount needs its key" "$VNVRAM" clone --new-identity mnt out/x.img
check_exit 7 "the right one" "$VNVRAM" clone --new-identity -o key_file=k2 mnt out/x.img
check_exit 7 "for the same identity, too" "$VNVRAM" clone --same-identity -o key_file=k2 mnt out/x.img
check "no file comes of it" test ! -e out/x.img
check "a new identity under the same key" "$VNVRAM" clone --new-identity -o key_file=k1 mnt out/s1.img
check "a new identity under another" "$VNVRAM" clone --new-identity -o key_file=k1 -n key_file=k2 mnt out/s2.img
check "the same identity" "$VNVRAM" clone --same-identity -o key_file=k1 mnt out/s3.img
check "unmounts" unmounted mnt
check "of an image at its anchor, too" "$VNVRAM" clone --same-identity -o key_file=k1,anchor=anchor s.img out/s4.img
for img in s1:k1 s2:k2 s3:k1 s4:k1; do
    k=${img#*:} img=${img%:*}
    check "$img checks with its key" "$VNVRAM" check -o key_file=$k out/$img.img
    is "an independent reader reads it" "$(unseal out/$img.img $k)" "in the clear nowhere"
done
check_exit 7 "the first key does not open the new one" "$VNVRAM" info -o key_file=k1 out/s2.img
is "new identities have master keys of their own" \
    "$({ master s.img k1; master out/s1.img k1; master out/s2.img k2; } | sort -u | wc -l)" 3
is "the same identity has the same" "$(master out/s3.img k1)" "$(master s.img k1)"
check "nothing is in the clear" sh -c '! grep -aq "in the clear nowhere" out/s?.img'
check "an image that is not sealed becomes one that is" "$VNVRAM" clone --new-identity -n key_file=k2 a.img out/s5.img
check "and checks" "$VNVRAM" check -o key_file=k2 out/s5.img
check_exit 8 "a key for what is not sealed is refused" "$VNVRAM" clone --new-identity -o key_file=k1 a.img out/x.img
check "add a key" "$VNVRAM" key add -o key_file=k1 -n key_file=k2 out/s3.img
check "its clone has both" "$VNVRAM" clone --same-identity -o key_file=k2 out/s3.img out/s6.img
check "the first" "$VNVRAM" key test -o key_file=k1 out/s6.img
check "and the second" "$VNVRAM" key test -o key_file=k2 out/s6.img

# ---- damage -----------------------------------------------------------------------------------------

cp s.img bad.img
spoil bad.img 100
spoil bad.img 65636
check_exit 5 "a damaged image is not cloned" "$VNVRAM" clone --same-identity -o key_file=k1 bad.img out/x.img
check_exit 1 "nor one that is not there" "$VNVRAM" clone --new-identity none.img out/x.img
check "no file comes of it" test ! -e out/x.img

# ---- beside a writer --------------------------------------------------------------------------------

cat >writer.py <<'PY'
import os
n = 0
while not os.path.exists("stop"):
    n += 1
    for name, size in (("a", 30000), ("b", 3000)):
        with open("mnt/." + name, "wb") as f:
            f.write(b"%08d" % n * (size // 8))
        os.rename("mnt/." + name, "mnt/" + name)
    with open("begun.new", "w") as f:
        f.write(str(n))
    os.rename("begun.new", "begun")
PY
cat >whole.py <<'PY'
import sys
n = []
for name, size in (("a", 30000), ("b", 3000)):
    data = open("mnt/" + name, "rb").read()
    assert len(data) == size and data == data[:8] * (size // 8), name
    n.append(int(data[:8]))
assert n[0] - n[1] in (0, 1), n
PY
new_image w.img || exit 99
check "mounts" mounted w.img mnt
python3 writer.py &
writer=$!
has_come_to() { # NUMBER of rounds
    [ "$(cat begun)" -ge "$1" ]
}
check "somebody writes" wait_until 30 test -e begun
rounds=${VNVRAM_QUICK:+3}
for i in $(seq "${rounds:-10}"); do
    for how in new same; do
        "$VNVRAM" clone --$how-identity mnt "out/m$how$i.img" >"$OUT" 2>"$ERR" || fail "clones beside it" "$(cat "$ERR")"
        "$VNVRAM" clone --$how-identity w.img "out/i$how$i.img" >"$OUT" 2>"$ERR" || fail "clones beside it" "$(cat "$ERR")"
    done
done
check "it goes on writing" wait_until 60 has_come_to $(($(cat begun) + 3))
: >stop
wait $writer
check "unmounts" unmounted mnt
bad=
for img in out/[mi][ns][ea]*.img; do
    mounted "$img" mnt && python3 whole.py 2>"$ERR" && unmounted mnt || bad+=" $img: $(tail -n 1 "$ERR")"
done
is "each clone is of one generation" "$bad" ""

# ---- killed -----------------------------------------------------------------------------------------

rm -f out/*
start=${EPOCHREALTIME//./}
check "one is left to its end" "$VNVRAM" clone --new-identity a.img out/k.img
took=$((${EPOCHREALTIME//./} - start))
RANDOM=${SEED:-$$}
echo "# SEED=$RANDOM"
bad= there=0
for i in {1..15}; do
    rm -f out/k.img
    "$VNVRAM" clone --new-identity a.img out/k.img >/dev/null 2>&1 &
    pid=$!
    us=$((took * (RANDOM % 110) / 100))
    printf -v pause '%d.%06d' $((us / 1000000)) $((us % 1000000))
    sleep "$pause"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    [ ! -e out/k.img ] || { "$VNVRAM" check out/k.img >"$OUT" 2>&1 && there=$((there + 1)) || bad+=" $i"; }
    [ "$(ls -A out | grep -cvx k.img)" = 0 ] || bad+=" $i: $(ls -A out)"
done
is "killed anywhere, it leaves a whole file or none" "$bad" ""
echo "# $there of 15 were there"
finish
