#!/usr/bin/env bash
# The job of slurm.sh: one turn of a run. Slurm keeps a copy of this file, and runs it every turn.
#   slurm_job.sh LAUNCH_FOLDER STOP_FILE MAX_CRASHES WORKDIR ARGS...
set -uo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$1/common.sh"

stop_file=$2 max_crashes=$3 workdir=$4
shift 4
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    workdir+=/seed_$SLURM_ARRAY_TASK_ID
    set -- "$@" --config.train.seed="$SLURM_ARRAY_TASK_ID"
fi
crash_file=${stop_file%.stop}.$SLURM_JOB_ID.crashes # a requeued job keeps its number

if [[ -e $stop_file ]]; then exit 0; fi
before=$(newest_checkpoint "$workdir")
# srun does not take --cpus-per-task over from the job.
if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi
messages=$(mktemp)
# Signals must leave this shell alive to judge how its step ended. Slurm gives TERM to the step as
# well, USR1 (sbatch --signal=B:USR1@SECONDS) to this shell alone, which passes it on as TERM.
signalled=false
trap 'signalled=true' TERM
trap 'signalled=true; scancel --signal=TERM "$SLURM_JOB_ID"' USR1 HUP
exec 3> >(trap '' TERM USR1 HUP && exec tee "$messages" >&2)
copying=$!
srun --kill-on-bad-exit=0 --gpu-bind=none ddgan train "$@" --workdir="$workdir" \
    2>&3 3>&- </dev/null &
step=$!
while true; do
    signalled=false code=0
    wait "$step" || code=$?
    # A signal to this shell ends `wait` early.
    if ! $signalled; then break; fi
done
exec 3>&-
wait "$copying" || true # until the last message is written
# srun returns the highest code: the 2 of one process hides behind the 75 of its peers.
if ((code == 75)) && grep -q 'Exited with exit code 2$' "$messages"; then code=2; fi
rm -f "$messages"

crashes=0
if [[ $code == 0 || $code == 2 || $code == 130 || -e $stop_file ]]; then
    rm -f "$crash_file"
    exit "$code"
fi
if [[ $code != 75 && $(newest_checkpoint "$workdir") == "$before" ]]; then
    crashes=$(($(cat "$crash_file" 2>/dev/null || echo 0) + 1))
fi
echo "$crashes" >"$crash_file"
if ((crashes >= max_crashes)); then
    rm -f "$crash_file"
    note "gave up: $crashes turns without a new checkpoint, exit code $code"
    exit "$code"
fi
note "this turn ended with exit code $code; queued again"
scontrol requeue "$SLURM_JOB_ID"
