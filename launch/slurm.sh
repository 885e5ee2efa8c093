#!/usr/bin/env bash
# Training on a Slurm cluster. The job itself is slurm_job.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$here/common.sh"

usage() {
    cat <<'EOF'
Train on the GPUs of a Slurm cluster, from a folder that all nodes see.

Usage: launch/slurm.sh VERB [--flag=value ...]

Verbs:
  train    submit; the job queues itself again after its time limit, a
           preemption or a lost node, until the run is complete
  status   the job in the queue
  logs     follow its log
  stop     end it with a checkpoint and do not queue it again
  delete   cancel it at once; the run folder stays

Flags:
  --name=NAME          of the job; its log is NAME.log (default ddgan)
  --nodes=N            default 1
  --gpus-per-node=N    all of a node's: one process drives one GPU (default 8)
  --cpus-per-task=N    cores of each process, which decode images (default 8)
  --time=LIMIT         of one turn (default 24:00:00)
  --save-seconds=N     left to save a checkpoint before the limit (default 300)
  --seeds=LIST         an array of runs, e.g. 0-3: seed N in WORKDIR/seed_N, log
                       NAME.N.log
  --sbatch-flag=FLAG   one more flag of sbatch, e.g. --account=...; may be
                       repeated
  --max-crashes=N      give up after so many turns without a new checkpoint
                       (default 3)
  --memory-gib=N       of each GPU: also check that training fits, an upper
                       estimate
  --skip-check         do not check the run with `ddgan check` before it is
                       submitted
  --dry-run            print the commands, for train also the job; run none

train also takes --config=NAME[:ARG], --workdir=FOLDER, --config.FIELD=VALUE,
and behind "--" any other flag of `ddgan train`. The `ddgan` on PATH when it is
submitted is the one that runs.

Example:
  launch/slurm.sh train --nodes=2 --gpus-per-node=8 --time=12:00:00 \
      --config=cifar10_ddgan --workdir=runs/cifar10
EOF
}

check_verb 'train status logs stop delete' "$@"
verb=$1
shift
name=ddgan nodes=1 gpus_per_node=8 time=24:00:00 save_seconds=300 seeds="" max_crashes=3
cpus_per_task=8 memory_gib="" config="" workdir="" sbatch_flags=() arguments=()
while (($#)); do
    case $1 in
        --config=*) set_flag "$1" && arguments+=("$1") ;;
        --config.*=*) arguments+=("$1") ;;
        --name=* | --time=* | --seeds=* | --workdir=*) set_flag "$1" ;;
        --nodes=* | --gpus-per-node=* | --save-seconds=* | --max-crashes=* | --cpus-per-task=*)
            number "$1" && set_flag "$1"
            ;;
        --memory-gib=*) number "$1" && set_flag "$1" ;;
        --sbatch-flag=*) sbatch_flags+=("${1#*=}") ;;
        --dry-run | --skip-check) set_flag "$1=true" ;;
        --help | -h) usage && exit ;;
        --) shift && arguments+=("$@") && break ;;
        *) mistake "unknown argument '$1'; flags are given as --name=value, see $0 --help" ;;
    esac
    shift
done

[[ $name =~ ^[A-Za-z0-9_-]+$ ]] || mistake "--name=$name: use letters, digits, _ and -"
if [[ $verb == train ]]; then
    [[ -n $config || -f $workdir/config.json ]] ||
        mistake "--config is missing, e.g. --config=cifar10_ddgan"
    [[ -n $workdir ]] || mistake "--workdir is missing: a run folder that all nodes see"
elif ((${#arguments[@]})); then
    mistake "$verb takes no '${arguments[0]}'; see $0 --help"
fi
job=$here/slurm_job.sh
stop_file=$PWD/$name.stop # tells the job not to queue itself again

case $verb in
    train)
        log=$name.log
        if [[ -n $seeds ]]; then
            log=$name.%a.log
            sbatch_flags=(--array="$seeds" "${sbatch_flags[@]}")
        fi
        # JAX gives process I of a node the I-th GPU that it sees: one process for each, and every
        # one must see all. The signal goes to the processes; srun, given one, kills them instead.
        sbatch_flags=(
            --job-name="$name" --nodes="$nodes" --ntasks-per-node="$gpus_per_node"
            --gres="gpu:$gpus_per_node" --cpus-per-task="$cpus_per_task"
            --time="$time" --signal="TERM@$save_seconds" --requeue
            --open-mode=append --output="$log"
            "${sbatch_flags[@]}" # last, so that they win
        )
        checks=(--elsewhere --devices=$((nodes * gpus_per_node)))
        if [[ -n $memory_gib ]]; then checks+=(--memory-gib="$memory_gib"); fi
        if [[ -z $seeds ]]; then checks+=(--workdir="$workdir"); fi # else each seed has its own
        check_run "${arguments[@]}" "${checks[@]}"
        $dry_run || command -v ddgan >/dev/null ||
            mistake "no ddgan on PATH; activate its environment"
        run rm -f "$stop_file"
        run sbatch "${sbatch_flags[@]}" "$job" "$here" "$stop_file" "$max_crashes" "$workdir" \
            "${arguments[@]}"
        if $dry_run; then cat "$job"; fi
        ;;
    status) run squeue --me --name="$name" ;;
    logs) run tail -n 100 -F "$name".*log ;;
    stop)
        # Without it nobody would take the file away again that keeps the job from the queue.
        $dry_run || command -v scancel >/dev/null ||
            mistake "no scancel on PATH: this is no Slurm cluster"
        run touch "$stop_file"
        run scancel --me --name="$name" --signal=TERM
        ;;
    delete) run scancel --me --name="$name" ;;
esac
