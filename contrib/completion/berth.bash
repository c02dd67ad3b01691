# Completion for bash: commands, flags, their values, and names from the daemon.
# Load it with: source <(berth completion bash)

_berth() {
    local words=() word glue="" line candidates=() files="" cut
    COMPREPLY=()
    # Bash splits words at '=' and ':', which are part of ours.
    local i
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == [=:] && ${#words[@]} -gt 0 ]] && _berth_adjacent "$i"; then
            words[-1]+=$word
            glue=1
        elif [[ -n $glue ]] && _berth_adjacent "$i"; then
            words[-1]+=$word
            glue=""
        else
            words+=("$word")
            glue=""
        fi
    done
    local current=${words[-1]}
    while IFS= read -r line; do
        case $line in
            :files) files=1 ;;
            :nospace) compopt -o nospace 2> /dev/null ;;
            ?*) candidates+=("${line%%$'\t'*}") ;;
        esac
    done < <(command berth __complete "${words[@]}" 2> /dev/null)
    if [[ -n $files ]]; then
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "${current##*[=:]}")
        return
    fi
    # Bash puts back what stands before the last of the characters that it splits at.
    cut=""
    [[ $current == *[=:]* ]] && cut=${current%"${current##*[=:]}"}
    for word in "${candidates[@]}"; do
        COMPREPLY+=("${word#"$cut"}")
    done
}

# Whether word $1 follows the one before it without a space.
_berth_adjacent() {
    local i rest=$COMP_LINE
    for ((i = 0; i < $1; i++)); do
        rest=${rest#*"${COMP_WORDS[i]}"}
    done
    [[ $rest != [[:space:]]* ]]
}

complete -F _berth berth
