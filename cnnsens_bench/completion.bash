_cnnsens_bench() {
    local line=${COMP_LINE:0:COMP_POINT} words
    local current=${line##*[[:space:]]}
    case "$([[ $COMP_CWORD -gt 1 ]] && echo "${COMP_WORDS[1]}")" in
        '') words='@commands@' ;;
        @name@) words='@completions@' ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    if [[ $current == *=* && $COMP_WORDBREAKS == *=* ]]; then COMPREPLY=("${COMPREPLY[@]#*=}"); fi
    if [[ ${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi
}
complete -o default -F _cnnsens_bench cnnsens-bench
