#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The man pages: valid POD, in one order; each option of each command is explained, and shown in use.
. "${srcdir:-.}/tests/lib.sh"
need podchecker
need python3

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
    mapfile -t list < <("$VNVRAM" "$command" --list-options)
    is "the page of $command shows each option in an example" \
        "$(python3 "$srcdir/tests/examples.py" "$VNVRAM" "$pod" "$command" "${list[@]%=}")" ""
    is "the page of $command explains no others" \
        "$(sed -n '/^=head1 OPTIONS/,/^=head1 FILES/s/^=item //p' "$pod" | grep -oP 'B<\K(--|-o )[^<>]+' |
            grep -vxFf <(printf '%s\n' "${list[@]%=}"))" ""
    check "$command has its two general options" test "$options" -ge 2
done
finish
