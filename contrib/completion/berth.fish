# Completion for fish: commands, flags, their values, and names from the daemon.
# Load it with: berth completion fish | source

function __berth_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (command berth __complete $words[2..] 2> /dev/null)
        switch $line
            case :files
                __fish_complete_path (commandline -ct)
            case :nospace
                # Fish knows by itself after which characters no space belongs.
            case '*'
                echo $line
        end
    end
end

complete -c berth -f -a '(__berth_complete)'
