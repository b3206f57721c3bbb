#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# check, check --repair and check --salvage on images that daemons wrote: killed ones, damaged ones, live ones.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need python3
cd "$TMP" || exit 99

umask 077
mkdir mnt
head -c 32 /dev/urandom >key
key=(-o key_file=key,key_format=binary)
long=$(printf 'n%.0s' {1..255})

# place FILE: where in the image its content begins, by what info and the attributes say
place() {
    python3 - "$1" <<'PY'
import sys
wanted = ("content of " + sys.argv[1]).encode()
data = open("a.img", "rb").read()
at = [i for i in range(0, len(data), 4096) if data.startswith(wanted, i)]
assert len(at) == 1, at
print(at[0])
PY
}

# newest_directory IMAGE: the offset of the directory with the higher generation
newest_directory() {
    python3 - "$1" <<'PY'
import sys, struct
data = open(sys.argv[1], "rb").read()
dirs = [i for i in range(0, len(data), 4096) if data.startswith(b"VNVRAMDR", i)]
assert len(dirs) == 2, dirs
print(max(dirs, key=lambda at: struct.unpack_from("<Q", data, at + 32)[0]))
PY
}

damage() { # IMAGE OFFSET
    printf 'damaged' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

pid_of() {
    python3 -c 'import json; print(json.load(open("mnt/.vnvram/status"))["pid"])'
}

fill() {
    echo "content of a" >mnt/a
    echo "old content of b" >mnt/b
    echo "content of b" >mnt/b
    echo "content of gone" >mnt/gone
    rm mnt/gone
    echo "content of the long one" >"mnt/$long"
}

new_image a.img || exit 99
check "mounts" mounted a.img mnt
fill
check "settles" settled mnt

# ---- a live image --------------------------------------------------------------------------------------

check "salvage beside the mount" "$VNVRAM" check --salvage live a.img
matches "tells what it found" "$OUT" '^live/b\.g[0-9]+\.slot[0-9]+\.bank[01]: 13 bytes, the current content$'
is "every content is there" "$(cat live/* | sort | uniq -c | tr -s ' \n' ' ')" \
    " 1 content of a 1 content of b 1 content of gone 1 content of the long one 1 old content of b "
is "the owner alone may read them" "$(stat -c %a live/b.* | sort -u)" 600
sum=$(cat live/* | sha256sum)
check_exit 1 "existing files are not replaced" "$VNVRAM" check --salvage live a.img
is "but left as they are" "$(cat live/* | sha256sum)" "$sum"
check_exit 11 "repair is refused" "$VNVRAM" check --repair a.img

write_busy() { # DIGIT
    head -c 3000 /dev/zero | tr '\0' "$1" >mnt/busy
}
busy() {
    local i=0
    until [ -e stop ]; do
        i=$((i + 1))
        write_busy $((i % 10))
    done
}
write_busy 8 # committed, and so is what lies in the other bank
write_busy 9
busy &
busy=$!
bad=0
mixed=0
for i in {1..10}; do
    rm -rf live
    "$VNVRAM" check --salvage live a.img >/dev/null 2>err || bad=$((bad + 1))
    for file in live/busy.*; do
        [ "$(fold -w1 <"$file" | sort -u | wc -l)" -eq 1 ] || mixed=$((mixed + 1))
    done
done
touch stop
wait $busy
is "10 salvages beside a writer succeed" "$bad$(cat err)" 0
is "and each content is a whole one" "$mixed" 0

# ---- a killed daemon -----------------------------------------------------------------------------------

echo "content of the last" >mnt/last
kill -9 "$(pid_of)"
wait_until 30 sh -c '! test -e mnt/last'
umount -l mnt || fusermount3 -uz mnt
check "what a killed daemon leaves is in order" "$VNVRAM" check a.img
cp a.img torn.img
damage torn.img $(($(newest_directory torn.img) + 40))
check_exit 5 "a directory that is not whole is found" "$VNVRAM" check torn.img
check_exit 0 "and mended" "$VNVRAM" check --repair torn.img
matches "by the state before" "$OUT" '^torn\.img: directory [01]: mended'
check "mounts" mounted torn.img mnt
is "all else is there" "$(cat mnt/a mnt/b)" "content of a
content of b"
check "unmounts" unmounted mnt

# ---- a damaged content ---------------------------------------------------------------------------------

check "the killed one mounts, too" mounted a.img mnt
is "with its last commit" "$(cat mnt/last)" "content of the last"
check "unmounts" unmounted mnt
where_b=$(place b)
damage a.img "$((where_b + 3))"
before=$(hash a.img)
check_exit 5 "a damaged content is found" "$VNVRAM" check a.img
matches "and named, with what is left of it" "$OUT" "'b' generation [0-9]+: damaged; what it held before is whole"
matches "and how much else is in order" "$OUT" "image: 1 of [0-9]+ contents are damaged"
check_exit 5 "it has no other copy to be mended from" "$VNVRAM" check --repair a.img
check_exit 5 "it is not mounted" "$VNVRAM" mount a.img mnt
check_exit 0 "the rest can be salvaged" "$VNVRAM" check --salvage rest a.img
matches "which counts it" "$OUT" '^a\.img: [0-9]+ contents whole, 1 damaged beyond saving$'
matches "and names it" "$ERR" '^vnvram: warning: a\.img: the current content of "b" is not whole any more$'
is "what b held before is there" "$(cat rest/b.*)" "old content of b"
is "and so is the file with a long name" "$(cat rest/nnn*)" "content of the long one"
check "or mounted with -o degraded" mounted a.img mnt -o degraded
is "which serves it, too" "$(cat mnt/a)" "content of a"
check_exit 1 "but not the damaged one" cat mnt/b
check "unmounts" unmounted mnt
is "none of it has changed the image" "$(hash a.img)" "$before"
head -c "$where_b" a.img >cut.img
check_exit 0 "of a truncated image, too" "$VNVRAM" check --salvage cut cut.img
matches "what is behind its end is counted" "$OUT" '^cut\.img: [0-9]+ contents whole, [1-9][0-9]* damaged beyond saving$'
matches "and named" "$ERR" '^vnvram: warning: cut\.img: the current content of "b" is not whole any more$'
check "a new image" new_image new.img
check "takes what was saved" "$VNVRAM" import --name b new.img rest/b.*
check "and mounts" mounted new.img mnt
is "with it" "$(cat mnt/b)" "old content of b"
check "unmounts" unmounted mnt

# ---- owner records ---------------------------------------------------------------------------------------

damage new.img 4096
damage new.img 8192
check_exit 5 "damaged owner records are found" "$VNVRAM" check new.img
matches "which counts as one" "$OUT" ', 1 problem$'
words=$(sed -n "s/.*'vnvram mount -o \(.*takeover\)' makes new ones$/\1/p" "$OUT")
check "a mount as is said" mounted new.img mnt -o "$words"
check "unmounts" unmounted mnt
check_exit 0 "has made new ones" "$VNVRAM" check new.img

# ---- nothing left but contents --------------------------------------------------------------------------

for at in 0 65536 131072 196608; do
    head -c 65536 /dev/zero | dd of=a.img bs=65536 seek=$((at / 65536)) conv=notrunc status=none
done
check_exit 5 "without superblocks and directories it is damaged" "$VNVRAM" check a.img
check_exit 0 "its contents are still found" "$VNVRAM" check --salvage loose a.img
is "loose" "$(grep -lx 'content of \(a\|the long one\|the last\)' loose/loose.g*.slot*.bank* | wc -l)" 3

# ---- a sealed one ----------------------------------------------------------------------------------------

new_image s.img "${key[@]}" || exit 99
check "a sealed image mounts" mounted s.img mnt "${key[@]}"
fill
check "unmounts" unmounted mnt
check_exit 6 "its salvage needs the key" "$VNVRAM" check --salvage sealed s.img
check_exit 0 "and works with it" "$VNVRAM" check --salvage sealed "${key[@]}" s.img
is "every content is there" "$(cat sealed/* | wc -l)" 5
damage s.img 65600
check_exit 6 "repair needs it, too" "$VNVRAM" check --repair s.img
check_exit 0 "and works with it" "$VNVRAM" check --repair "${key[@]}" s.img
check "all is well then" "$VNVRAM" check "${key[@]}" s.img
finish
