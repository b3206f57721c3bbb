#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# vnvram restore: what a file held before, and deleted files, in an image and in a mount; a TPM's state with force.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need jq python3 tpm2_nvdefine xxd
cd "$TMP" || exit 99
umask 022
mkdir mnt

new_image a.img || exit 99
check "mounts" mounted a.img mnt

# ---- a mount ----------------------------------------------------------------------------------------

echo one >mnt/f
echo two >mnt/f
chmod 640 mnt/f
check "settles" settled mnt
generation=$(jq .generation mnt/.vnvram/status)
check "restores" "$VNVRAM" restore mnt f
matches "and says so" "$OUT" '^mnt: f: restored, 4 B$'
is "what was before" "$(cat mnt/f)" one
is "with its mode" "$(stat -c %a mnt/f)" 640
check "settles" settled mnt
is "in one commit, and one that marks it clean" "$(jq .generation mnt/.vnvram/status)" $((generation + 2))
check "restores again" "$VNVRAM" restore mnt f
is "which undoes it" "$(cat mnt/f)" two
is "nothing else is left" "$(ls -A mnt)" f
echo "to be deleted" >mnt/gone
chmod 600 mnt/gone
rm mnt/gone
echo new >mnt/new
check "it lists what can be restored" "$VNVRAM" restore mnt
is "and nothing else" "$(sort "$OUT")" $'f: 4 B, from before its last change\ngone: 14 B, deleted'
check "a deleted file is restored" "$VNVRAM" restore mnt gone
is "as it was" "$(cat mnt/gone) $(stat -c %a mnt/gone)" "to be deleted 600"
check_exit 1 "a file without a past is not" "$VNVRAM" restore mnt new
matches "with a word" "$ERR" 'nothing is kept'
check_exit 1 "nor is one that never was" "$VNVRAM" restore mnt never
check_exit 2 "nor is a path" "$VNVRAM" restore mnt ../f
is "new is what it was" "$(cat mnt/new)" new
mkdir bare
check_exit 1 "a directory without a mount is refused" "$VNVRAM" restore bare f
matches "with a word" "$ERR" 'no image is mounted there'
check_exit 2 "a mount has its key already" "$VNVRAM" restore -o key_file=x mnt f
check_exit 11 "a mounted image says so" "$VNVRAM" restore a.img f

# Renamed over: the content of before lies in another slot, which somebody else takes.
head -c 250000 /dev/urandom >mnt/large
old=$(hash mnt/large)
head -c 250000 /dev/urandom >temp
cp temp mnt/temp
mv mnt/temp mnt/large
check "what a rename displaced is restored" "$VNVRAM" restore mnt large
is "every byte" "$(hash mnt/large)" "$old"
check "and back" "$VNVRAM" restore mnt large

# Killed in the middle: its first write to a file does it.
killed_restore() (
    ulimit -f 0
    exec "$VNVRAM" restore mnt large
)
room=$(stat -f -c %f mnt)
has_room() {
    [ "$(stat -f -c %f mnt)" = "$1" ]
}
check "settles" settled mnt
generation=$(jq .generation mnt/.vnvram/status)
now=$(hash mnt/large)
check_exit 153 "restore can be killed" killed_restore
check "and its room is free again" wait_until 30 has_room "$room"
is "no other file is there" "$(ls -A mnt)" $'f\ngone\nlarge\nnew'
is "and what is there is as it was" "$(hash mnt/large)" "$now"
is "nothing was committed" "$(jq .generation mnt/.vnvram/status)" "$generation"
check "it can be done again" "$VNVRAM" restore mnt large
is "whole" "$(hash mnt/large)" "$old"
check "unmounts" unmounted mnt
check "the image checks" "$VNVRAM" check a.img

# ---- an image ---------------------------------------------------------------------------------------

check "restores in an image" "$VNVRAM" restore a.img f
check "and again" "$VNVRAM" restore a.img f
check "and again" "$VNVRAM" restore a.img f
check "lists" "$VNVRAM" restore a.img
matches "what is kept" "$OUT" '^f: 4 B, from before its last change$'
check "mounts" mounted a.img mnt
is "what was before" "$(cat mnt/f) $(stat -c %a mnt/f)" "one 640"
rm mnt/gone
check "unmounts" unmounted mnt
check "a deleted file is restored in an image" "$VNVRAM" restore a.img gone
check_exit 1 "one that never was is not" "$VNVRAM" restore a.img never
check "the image checks" "$VNVRAM" check a.img
check "mounts" mounted a.img mnt
is "it is as it was" "$(cat mnt/gone) $(stat -c %a mnt/gone)" "to be deleted 600"
check "unmounts" unmounted mnt

# The bank was used again: all slots of its size, over and over.
new_image b.img --slots 2x4K || exit 99
check "mounts" mounted b.img mnt
echo one >mnt/f
echo two >mnt/f
echo x >mnt/g
check_exit 1 "without a free slot nothing is restored" "$VNVRAM" restore mnt f
matches "and it says what to do" "$ERR" 'no slot of at least 4 bytes'
check "unmounts" unmounted mnt
check_exit 1 "neither in an image" "$VNVRAM" restore b.img f
matches "which says the same" "$ERR" 'no slot of at least 4 bytes'
check "mounts" mounted b.img mnt
is "nothing is changed" "$(cat mnt/f mnt/.vnvram/previous/f | xargs) $(ls -A mnt | xargs)" "two one f g"
rm mnt/f
for i in 1 2 3 4 5; do
    echo "$i" >mnt/h
done
check_exit 1 "what has been overwritten is gone" "$VNVRAM" restore mnt f
matches "and it says so" "$ERR" 'nothing is kept'
check "unmounts" unmounted mnt
check_exit 1 "in the image, too" "$VNVRAM" restore b.img f
check "nothing is damaged" "$VNVRAM" check b.img

# Sealed, with an anchor.
head -c 32 /dev/urandom | xxd -p -c 64 >key
k=(-o key_file=key,anchor=anchor)
new_image s.img -o key_file=key || exit 99
check "mounts" mounted s.img mnt "${k[@]}" -o anchor_create
echo one >mnt/f
echo two >mnt/f
check "restores on a mount" "$VNVRAM" restore mnt f
is "what was before" "$(cat mnt/f)" one
check "unmounts" unmounted mnt
check_exit 6 "without the key nothing is restored" "$VNVRAM" restore s.img f
check "with it, it is" "$VNVRAM" restore "${k[@]}" s.img f
check "it is at its anchor" "$VNVRAM" info "${k[@]}" s.img
check "mounts" mounted s.img mnt "${k[@]}"
is "what was before that" "$(cat mnt/f)" two
check "unmounts" unmounted mnt

# ---- a TPM ------------------------------------------------------------------------------------------

t() {
    timeout 60 "tpm2_$1" -T device:mnt/tpm0 "${@:2}"
}

new_image t.img || exit 99
check "mounts with a TPM" mounted t.img mnt -o tpm=2.0
check "defines a counter" t nvdefine -Q -C o -s 8 -a 'ownerread|ownerwrite|nt=counter' 0x1500019
check "counts" t nvincrement -Q -C o 0x1500019
check "unmounts" unmounted mnt
cp t.img counted.img
check "mounts again" mounted t.img mnt -o tpm=2.0
for _ in 1 2 3; do
    check "counts on" t nvincrement -Q -C o 0x1500019
done
count=$(t nvread -C o 0x1500019 2>/dev/null | xxd -p)
check_exit 1 "a TPM's state needs force" "$VNVRAM" restore mnt tpm2-00.permall
matches "and it says why" "$ERR" 'counters go back'
check_exit 11 "which does not help while it runs" "$VNVRAM" restore --force mnt tpm2-00.permall
matches "and it says so" "$ERR" 'a TPM is running'
is "it goes on" "$(t nvread -C o 0x1500019 2>/dev/null | xxd -p)" "$count"
check "counts on" t nvincrement -Q -C o 0x1500019
check "unmounts" unmounted mnt
check "mounts without it" mounted t.img mnt
check_exit 1 "it needs force here, too" "$VNVRAM" restore mnt tpm2-00.permall
lock='import fcntl, sys
f = open("mnt/.lock", "w")
fcntl.lockf(f, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()'
mkfifo hold
python3 -c "$lock" <hold >locked &
exec 3>hold
check "somebody takes swtpm's lock" wait_until 20 grep -q locked locked
check_exit 11 "then it is in use" "$VNVRAM" restore -f mnt tpm2-00.permall
exec 3>&-
wait
before=$(hash mnt/tpm2-00.permall)
kept=$(hash mnt/.vnvram/previous/tpm2-00.permall)
check "with force it is restored" "$VNVRAM" restore --force mnt tpm2-00.permall
matches "with a warning" "$ERR" 'goes back'
is "to what was kept" "$(hash mnt/tpm2-00.permall)" "$kept"
check "unmounts" unmounted mnt
check "back, in the image" "$VNVRAM" restore --force t.img tpm2-00.permall
check "mounts" mounted t.img mnt
is "to what it was" "$(hash mnt/tpm2-00.permall)" "$before"
check "unmounts" unmounted mnt
check "and once more" "$VNVRAM" restore --force t.img tpm2-00.permall
check "the TPM takes it" mounted t.img mnt -o tpm=2.0
matches "its counter is there" <(t nvread -C o 0x1500019 2>/dev/null | xxd -p) '^0{14}0[2-6]$'
check "unmounts" unmounted mnt
check "the image checks" "$VNVRAM" check t.img
finish
