#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Completion offers commands, switches and words.
. "${srcdir:-.}/tests/lib.sh"
compopt() { :; } # works inside of readline only
. "$srcdir/completion/vnvram.bash"

# offers WORD...: what is offered for the last of the words
offers() {
    COMP_WORDS=("$VNVRAM" "$@")
    COMP_CWORD=$#
    _vnvram
    echo "${COMPREPLY[*]}"
}

is "a command" "$(offers form)" "format"
is "a switch" "$(offers format --prof)" "--profile="
is "a word behind -o" "$(offers format -o key_fi)" "key_file="
is "the second word behind -o" "$(offers mount -o ro,key_fi)" "ro,key_file="
is "swtpm's part of import" "$(offers import --swt)" "--swtpm --swtpm-key= --swtpm-migration-key="
is "nothing that is not there" "$(offers format --frob)" ""
is "an action of key" "$(offers key rem)" "remove"
is "a word of the key of a clone" "$(offers clone -n key_fi)" "key_file="
is "a word of its new key" "$(offers key add -n key_fi)" "key_file="
is "a word of the key of a stream" "$(offers export --der -n key_fi)" "key_file="
: >"$TMP/some-image"
is "a file" "$(offers info "$TMP/some-im")" "$TMP/some-image"
is "what readline has divided" "$(offers mount -o tpm = 2.0,key_fi)" "2.0,key_file="
is "a value of a word" "$(offers mount -o tpm =)" "2.0 1.2"
is "a value of the second word" "$(offers mount -o ro,key_format = pass)" "passphrase"
is "a value of a switch" "$(offers format --profile = v)" "vm"
is "a value of a switch in a word of its own" "$(offers format --profile v)" "vm"
is "a command to be helped with" "$(offers help form)" "format"
is "no pattern" "$(offers mount -o "x")" ""
is "a file for a word that takes any" "$(offers mount -o key_file = "$TMP/some-im")" "$TMP/some-image"

# all: each option of each command is offered somewhere
commands=$("$VNVRAM" help | sed -n 's/^  \([a-z]*\) .*/\1/p')
[ "$(wc -w <<<"$commands")" -ge 8 ] || fail "help lists the commands" "$commands"
for command in $commands; do
    offered=$(
        offers "$command" - | tr ' ' '\n' | grep -vxe '-o'
        offers "$command" -o "" | tr ' ' '\n' | sed -n 's/^./-o &/p'
    )
    is "all options of $command" "$(sort -u <<<"$offered")" "$("$VNVRAM" "$command" --list-options | grep -v '[*]' | sort -u)"
done
finish
