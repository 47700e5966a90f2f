complete -c cnnsens-bench -f -n __fish_use_subcommand -a '@commands@'
complete -c cnnsens-bench -n '__fish_seen_subcommand_from @name@' -a '@completions@'
