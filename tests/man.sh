#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The man pages: valid POD, in one order, and each option of each command is explained.
. "${srcdir:-.}/tests/lib.sh"
need podchecker

order="NAME SYNOPSIS DESCRIPTION OPTIONS FILES EXIT\ STATUS SECURITY EXAMPLES SEE\ ALSO"
order=$(eval "printf '%s\n' $order")
for pod in "$srcdir"/doc/*.pod; do
    name=${pod##*/}
    check "$name is valid POD" podchecker -warnings "$pod"
    is "$name has its sections in order" "$(sed -n 's/^=head1 //p' "$pod")" "$order"
done

commands=$("$VNVRAM" help | sed -n 's/^  \([a-z]*\) .*/\1/p')
[ "$(wc -w <<<"$commands")" -ge 8 ] || fail "help lists the commands" "$commands"
for command in $commands; do
    pod=$srcdir/doc/vnvram-$command.pod
    check "there is a page for $command" test -e "$pod"
    check "the page of $command is built" test -s "doc/vnvram-$command.8"
    matches "vnvram(1) names $command" "$srcdir/doc/vnvram.pod" "B<$command>"
    missing=
    options=0
    while IFS= read -r option; do
        options=$((options + 1))
        grep '^=item' "$pod" | grep -qF "B<${option%=}>" || missing+=" $option"
    done < <("$VNVRAM" "$command" --list-options)
    is "the page of $command explains its $options options" "$missing" ""
    check "$command has its two general options" test "$options" -ge 2
done
finish
