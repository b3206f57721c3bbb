#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# README.md: what it tells a new user to type works, in its order and in a fresh directory.
. "${srcdir:-.}/tests/lib.sh"
need_fuse
need_root
need jq tpm2_nvdefine tpm2_nvwrite tpm2_nvread getfattr
[ -r /usr/share/OVMF/OVMF_VARS_4M.fd ] || skip_all "OVMF is not installed"
readme=$(realpath "$srcdir/README.md")
mkdir "$TMP/bin" "$TMP/home"
ln -s "$(realpath "$VNVRAM")" "$TMP/bin/vnvram"
PATH=$TMP/bin:$PATH
cd "$TMP/home" || exit 99
mounts+=("$PWD/vm1" "$PWD/vm2")

# Its lines that are commands: where prompts tell them from answers, those behind one.  Not the scripts of the checkout,
# and no line of /etc/fstab.
commands() {
    awk '/^    / { block = block $0 "\n"; next }
        block != "" { print block; block = "" }' "$readme" | awk '
        /^    \$ / { print substr($0, 7); answers = 1; next }
        /^$/ { answers = 0 }
        /^    [a-z]/ && !answers { print substr($0, 5) }' | grep -v '^scripts/'
}

# Where it names a directory of the reader's host, one of ours.
here() {
    sed "s,/var/lib/libvirt/swtpm/UUID/tpm2,$TMP/swtpm-state,; s,=/root/,=$TMP/," <<<"$1"
}

commands >../commands
[ "$(wc -l <../commands)" -ge 30 ] || fail "it has its commands" "$(cat ../commands)"
while IFS= read -r command <&9; do
    if [[ $command = *swtpm/UUID* ]]; then
        vnvram export --swtpm dir vm1.img "$TMP/swtpm-state" || exit 99
    fi
    eval "$(here "$command")" >"$OUT" 2>"$ERR"
    r=$?
    if [[ $command = *"status --all"* ]] && grep -q "^ok .*$PWD/vm2 " "$OUT"; then
        r=0 # others' mounts on this host may not be well
    fi
    if [ "$r" -eq 0 ]; then
        pass "$command"
    else
        fail "$command" "exit $r: $(head -c 4000 "$OUT" "$ERR")"
    fi
    [[ $command != tpm2_nvread* ]] || is "which prints what was written" "$(cat "$OUT")" "do not lose."
done 9<../commands
check "and can be undone" unmounted vm2
finish
