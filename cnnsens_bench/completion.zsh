#compdef cnnsens-bench
_cnnsens_bench() {
    local -a found
    case "${${words[2,CURRENT-1]}[1]}" in
        '') found=(@commands@) ;;
        @name@) found=(@completions@) ;;
    esac
    compadd -S '' -- ${(M)found:#*=}
    compadd -- ${found:#*=}
    (( CURRENT == 2 )) || _files
}
compdef _cnnsens_bench cnnsens-bench
