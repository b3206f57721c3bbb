# SPDX-License-Identifier: BSD-3-Clause
# Completion of vnvram in bash: commands from "vnvram help", options from "vnvram COMMAND --list-options".

_vnvram_options() {
    "${COMP_WORDS[0]}" "$1" --list-options 2>/dev/null
}

# _vnvram_values COMMAND OPTION: what may stand behind "OPTION=", where --help lists it, as in tpm=2.0|1.2
_vnvram_values() {
    "${COMP_WORDS[0]}" "$1" --help 2>/dev/null | sed -nE "s/^  (-., )?$2=([a-z0-9.|-]+)( .*)?$/\2/p" | grep '[a-z|]' | tr '|' '\n'
}

_vnvram_commands() {
    "${COMP_WORDS[0]}" help 2>/dev/null | sed -n 's/^  \([a-z]*\) .*/\1/p'
}

_vnvram() {
    local cur=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} first=$COMP_CWORD
    local all=$cur prev typed before values

    # Readline divides words at "=", and replaces the last part only.
    while ((first > 2)) && [[ ${COMP_WORDS[first]} = "=" || ${COMP_WORDS[first - 1]} = "=" ]]; do
        first=$((first - 1))
        all=${COMP_WORDS[first]}$all
    done
    prev=${COMP_WORDS[first - 1]}
    [ "$cur" != "=" ] || cur=

    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "help --help --version $(_vnvram_commands)" -- "$cur")
    elif [ "$command" = help ]; then
        [ "$COMP_CWORD" -ne 2 ] || mapfile -t COMPREPLY < <(compgen -W "$(_vnvram_commands)" -- "$cur")
    elif [ "$command" = key ] && [ "$COMP_CWORD" -eq 2 ] && [[ $cur != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "add remove change reseal list test destroy" -- "$cur")
    elif [[ $prev = -o || ($command = @(key|clone|export|import) && $prev = -n) ]] && [[ ${all##*,} != *=* ]]; then
        before=${cur%"${cur##*,}"}
        mapfile -t COMPREPLY < <(compgen -P "$before" \
            -W "$(_vnvram_options "$command" | sed -n '/[*]/d; s/^-o //p')" -- "${cur##*,}")
        compopt -o nospace
    elif [[ $all == -* && $all != *=* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_vnvram_options "$command" | sed 's/^-o .*/-o/' | sort -u)" -- "$cur")
        [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace
    elif [[ $prev = : || $cur = nbd*:* ]]; then
        : # a URI is no path
    else
        values=
        if [[ $all = *=* ]]; then
            values=$(_vnvram_values "$command" "$(sed 's/.*,//; s/=.*//' <<<"$all")")
        elif [[ $prev = --* ]]; then
            values=$(_vnvram_values "$command" "$prev")
        fi
        if [ -n "$values" ]; then
            typed=${all##*=}
            mapfile -t COMPREPLY < <(compgen -P "${cur%"$typed"}" -W "$values" -- "$typed")
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            compopt -o filenames
        fi
    fi
}
complete -F _vnvram vnvram
