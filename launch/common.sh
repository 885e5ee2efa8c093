# Sourced by the launchers: messages, flags, and commands that a dry run prints instead of running.
# shellcheck shell=bash

dry_run=false
skip_check=false

note() { echo "${0##*/}: $1" >&2; }

mistake() { # of the user: one line and exit code 2, as `ddgan` itself does
    note "$1"
    exit 2
}

quoted() { # the words so that a shell reads them back
    local text
    printf -v text '%q ' "$@"
    printf '%s' "${text% }"
}

run() { # run COMMAND...
    if $dry_run; then printf '%s\n' "$(quoted "$@")"; else "$@"; fi
}

ask() { # ask VARIABLE ASSUMED COMMAND...: sets VARIABLE to its output, in a dry run to ASSUMED
    local variable=$1 answer=$2
    shift 2
    if $dry_run; then run "$@"; else answer=$("$@") || return; fi
    printf -v "$variable" '%s' "$answer"
}

check_verb() { # check_verb 'VERB ...' ARGS...: the first of ARGS must be one
    case ${2:-} in
        '') mistake "no verb; see $0 --help" ;;
        -h | --help | help) usage && exit ;;
    esac
    [[ " $1 " == *" $2 "* ]] || mistake "unknown verb '$2'; see $0 --help"
}

set_flag() { # set_flag --some-name=VALUE: sets some_name
    local flag=${1%%=*}
    flag=${flag#--}
    printf -v "${flag//-/_}" '%s' "${1#*=}"
}

number() { # number --flag=VALUE: a mistake of the user unless VALUE is a whole number above 0
    [[ ${1#*=} =~ ^[1-9][0-9]*$ ]] || mistake "$1 is not a whole number above 0"
}

newest_checkpoint() { # newest_checkpoint WORKDIR: its step; nothing if there is none on this disk
    if [[ -d $1/checkpoints ]]; then
        find "$1/checkpoints" -mindepth 1 -maxdepth 1 ! -name '*[!0-9]*' | sed 's|.*/||' | sort -n |
            tail -n 1
    fi
}

check_run() { # check_run ARGS...: what `ddgan train` would refuse ends this program, with code 2
    local status=0
    if $skip_check; then return; fi
    command -v ddgan >/dev/null ||
        mistake "no ddgan on PATH to check the run with; activate its environment, or --skip-check"
    # Standard output is for the commands of a dry run.
    ddgan check "$@" >&2 </dev/null || status=$?
    if ((status)); then exit "$status"; fi
}
