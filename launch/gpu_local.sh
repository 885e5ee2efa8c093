#!/usr/bin/env bash
# Training on all accelerators of this machine, started again until the run is complete.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$here/common.sh"

usage() {
    cat <<'EOF'
Train on all GPUs (or TPUs) of this machine, again after a crash, until the run
is complete.

Usage: launch/gpu_local.sh train [--flag=value ...]

Flags:
  --max-crashes=N   give up after so many in a row without a new checkpoint
                    (default 3)
  --pause=SECONDS   before running again where nothing was saved (default 10)
  --memory-gib=N    of each GPU: also check that training fits, an upper
                    estimate
  --devices=N       GPUs: also check the batch of each
  --skip-check      do not check the run with `ddgan check` first
  --dry-run         print the command; run nothing

train also takes --config=NAME[:ARG], --workdir=FOLDER, --config.FIELD=VALUE,
and behind "--" any other flag of `ddgan train`. Ctrl-C, SIGTERM, SIGUSR1 or the
end of the terminal ends it with a checkpoint; the same command goes on. Under
nohup it outlives the terminal. CUDA_VISIBLE_DEVICES=0,1 chooses GPUs.

Example:
  launch/gpu_local.sh train --config=cifar10_ddgan --workdir=runs/cifar10
EOF
}

check_verb train "$@"
shift
max_crashes=3 pause=10 checks=() config="" workdir="" arguments=()
while (($#)); do
    case $1 in
        --config=* | --workdir=*) set_flag "$1" && arguments+=("$1") ;;
        --config.*=*) arguments+=("$1") ;;
        --max-crashes=* | --pause=*) number "$1" && set_flag "$1" ;;
        --memory-gib=* | --devices=*) number "$1" && checks+=("$1") ;;
        --dry-run | --skip-check) set_flag "$1=true" ;;
        --help | -h) usage && exit ;;
        --) shift && arguments+=("$@") && break ;;
        *) mistake "unknown argument '$1'; flags are given as --name=value, see $0 --help" ;;
    esac
    shift
done
[[ -n $config || -f $workdir/config.json ]] ||
    mistake "--config is missing, e.g. --config=cifar10_ddgan"
[[ -n $workdir ]] || mistake "--workdir is missing, e.g. --workdir=runs/cifar10"

forward() { # forward SIGNAL: to the run, once; it ends with a checkpoint
    stopping=true interrupted=true
    kill -s "$1" "$child" 2>/dev/null || true
}

run_once() { # sets code
    # In a process group of its own the run gets Ctrl-C once, from `forward`, and not twice.
    set -m
    ddgan train "${arguments[@]}" </dev/null &
    child=$!
    set +m
    while true; do
        interrupted=false code=0
        wait "$child" || code=$?
        # A signal to this shell ends `wait` early.
        if ! $interrupted; then break; fi
    done
}

check_run "${arguments[@]}" "${checks[@]}"
if $dry_run; then
    run ddgan train "${arguments[@]}"
    exit
fi
command -v ddgan >/dev/null || mistake "no ddgan on PATH; activate the environment that has it"
stopping=false crashes=0 child=""
# HUP, if it was ignored when this shell began (nohup), stays ignored, and so the run ignores it.
for name in INT TERM HUP USR1; do
    # shellcheck disable=SC2064 # the name of now
    trap "forward $name" "$name"
done
while true; do
    before=$(newest_checkpoint "$workdir")
    run_once
    if $stopping || ((code == 0 || code == 2 || code == 130)); then exit "$code"; fi
    saved=false
    if [[ $(newest_checkpoint "$workdir") != "$before" ]]; then saved=true; fi
    if ((code != 75)); then
        if $saved; then crashes=0; fi
        crashes=$((crashes + 1))
        if ((crashes >= max_crashes)); then
            note "gave up: crash $crashes without a new checkpoint, exit code $code"
            exit "$code"
        fi
    fi
    # A 75 that saved nothing is a folder or a device that another process holds.
    if ((code != 75)) || ! $saved; then sleep "$pause"; fi
    if $stopping; then exit "$code"; fi
    note "exit code $code: running again"
done
