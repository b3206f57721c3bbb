# SPDX-License-Identifier: BSD-3-Clause
# Completion of vnvram in bash: commands from "vnvram help", options from "vnvram COMMAND --list-options".

_vnvram_options() {
    "${COMP_WORDS[0]}" "$1" --list-options 2>/dev/null
}

_vnvram() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    local before

    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "help --help --version $("${COMP_WORDS[0]}" help 2>/dev/null |
            sed -n 's/^  \([a-z]*\) .*/\1/p')" -- "$cur")
    elif [ "$command" = key ] && [ "$COMP_CWORD" -eq 2 ] && [[ $cur != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "add remove change reseal list test destroy" -- "$cur")
    elif [[ $prev = -o || ($command = @(key|clone|export|import) && $prev = -n) ]] && [[ $cur != *=* ]]; then
        before=${cur%"${cur##*,}"}
        mapfile -t COMPREPLY < <(compgen -P "$before" \
            -W "$(_vnvram_options "$command" | sed -n 's/^-o //p')" -- "${cur##*,}")
        compopt -o nospace
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "-o $(_vnvram_options "$command" | grep '^--')" -- "$cur")
        [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace
    elif [[ $prev = : || $cur = nbd*:* ]]; then
        : # a URI is no path
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        compopt -o filenames
    fi
}
complete -F _vnvram vnvram
