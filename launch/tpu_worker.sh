#!/usr/bin/env bash
# One worker of a TPU pod; tpu_pod.sh calls it there by ssh. Verbs:
#   setup [COMMAND]   install this commit beside its code, then run COMMAND
#   start ARGS        run `ddgan ARGS` detached, its output in ~/ddgan/run/log; once if repeated
#   poll              print "run: " and running, the exit code, stopped (by `stop`) or none
#   stop              SIGTERM, then wait until the checkpoint is saved
set -euo pipefail
code=$(cd "$(dirname "$0")/.." && pwd -P)
run=$HOME/ddgan/run
mkdir -p "$run"
export PATH=$code/.venv/bin:$HOME/.local/bin:$PATH

# A lock, unlike a process number, cannot outlive a reboot or a kill -9.
running() { ! flock --nonblock "$run/lock" true; }

setup() { # setup COMMAND
    local installed=$code/.venv/installed
    if running && [[ $HOME/ddgan/current -ef $code ]]; then return; fi # what it would replace is in use
    if [[ ! -e $installed || $(<"$installed") != "$1" ]]; then
        cd "$code"
        # The VM's own Python may be older than the one the project needs.
        command -v uv >/dev/null || python3 -m pip install --quiet --user uv
        rm -rf .venv
        uv venv --quiet --python 3.12 .venv
        uv pip install --quiet --python .venv ".[tpu]"
        bash -c "$1"
        printf '%s' "$1" >"$installed"
    fi
    ln -sfn "$code" "$HOME/ddgan/current"
}

start() { # start ARGS
    local arguments
    printf -v arguments '%q ' "$@"
    flock "$run/stopping" true # a `stop` that still goes on is not meant for this run
    exec 9>>"$run/lock"
    if ! flock --timeout 2 9; then # longer than `running` holds it
        [[ $(<"$run/arguments") == "$arguments" ]] && return
        echo "another run is going on: ddgan $(<"$run/arguments")" >&2
        exit 2
    fi
    rm -f "$run"/{exit,pid,stopped}
    printf '%s' "$arguments" >"$run/arguments"
    # The new session inherits the lock and keeps it, whatever becomes of this connection.
    setsid nohup bash "$0" keep "$@" >>"$run/log" 2>&1 </dev/null &
}

keep() { # keep ARGS: with the lock on descriptor 9
    local status=0
    cd "$code"
    ddgan "$@" 9>&- &
    echo $! >"$run/pid"
    wait $! || status=$?
    echo "$status" >"$run/exit"
}

poll() {
    local word=none
    if running; then
        echo "run: running"
        return
    fi
    if [[ -e $run/exit ]]; then word=$(<"$run/exit"); fi
    if [[ -e $run/stopped && $word != 0 ]]; then word=stopped; fi
    echo "run: $word"
}

stop() {
    exec 8>>"$run/stopping"
    flock 8
    running || return 0
    touch "$run/stopped"
    until [[ -s $run/pid ]]; do sleep 0.2; done
    kill -TERM "$(<"$run/pid")" || true # it may just have ended
    while running; do sleep 1; done
}

case ${1:-} in
    setup) setup "${2:-}" ;;
    start | keep) "$@" ;;
    poll | stop) "$1" ;;
    *) sed -n '2,6s/^# *//p' "$0" >&2 && exit 2 ;;
esac
