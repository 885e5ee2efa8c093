#!/usr/bin/env bash
# Training on a Cloud TPU pod through queued resources. What runs on the workers is tpu_worker.sh.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$root/launch/common.sh"

usage() {
    cat <<'EOF'
Train on a Cloud TPU pod (v4, v5e, v5p, v6e) through queued resources.

Usage: launch/tpu_pod.sh VERB --zone=ZONE [--flag=value ...]

Verbs:
  create   ask for the pod; it may wait in the queue for hours
  setup    wait for the pod, copy the commit to every worker and install it
  train    create, setup and run, again after every preemption, until the run is
           complete
  status   state of the pod, and of the run on each worker
  logs     follow the log of a worker
  ssh      a shell on a worker, or the command behind "--"
  stop     end the run with a checkpoint; the pod stays and bills
  delete   delete the pod; the run folder in the bucket stays

Flags:
  --name=NAME           of the pod and its queued resource (default ddgan)
  --zone=ZONE           default $CLOUDSDK_COMPUTE_ZONE
  --type=TYPE           accelerator type (default v5litepod-16)
  --runtime=VERSION     software of the VMs (default: the one for the type)
  --spot                cheaper, preempted at any time; without it on demand
  --reserved            from your reservation
  --create-flag=FLAG    one more flag of `queued-resources create`; may be
                        repeated
  --commit=REF          the code and config to run (default HEAD)
  --allow-dirty         take HEAD although files differ from it; the workers get
                        HEAD
  --prepare=COMMAND     setup, train: run by every worker once installed, e.g.
                        to prepare data
  --worker=N            logs, ssh: which worker (default 0); ssh with a command:
                        also "all"
  --poll=SECONDS        setup, train: between two looks (default 60)
  --max-crashes=N       train: give up after so many without a new checkpoint
                        (default 3)
  --skip-check          train: do not check the run with `ddgan check` before a
                        pod is asked for
  --delete-after        train: delete the pod at the end, unless it was `stop`
  --dry-run             print the commands as if all went well; run none

train also takes --config=NAME[:ARG], or a path in the commit,
--workdir=gs://BUCKET/FOLDER, --config.FIELD=VALUE, and behind "--" any other
flag of `ddgan train`. It exits with 0 when the run is complete, 2 on a mistake
of yours, 75 after `stop`, 1 when it gives up.

Example:
  launch/tpu_pod.sh train --zone=us-central1-a --type=v6e-16 \
      --spot --delete-after \
      --config=cifar10_ddgan --workdir=gs://my-bucket/cifar10
EOF
}

# ---------------------------------------------------------------------------------- the pod

create_pod() {
    run gcloud compute tpus queued-resources create "$name" --node-id="$name" "${where[@]}" \
        --accelerator-type="$type" --runtime-version="$runtime" "${create_flags[@]}"
}

delete_pod() {
    run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

replace_pod() {
    note "the pod was preempted; asking for another"
    delete_pod && create_pod
}

find_state() { # sets state: absent, waiting, ready, lost or failed. $1: what a dry run assumes
    local query=("${where[@]}" --filter="name~/$name\$") request node
    # `list` tells a pod that does not exist from a cloud that does not answer; `describe` fails.
    ask request "$1" gcloud compute tpus queued-resources list "${query[@]}" \
        --format='value(state.state)' || return
    case $request in
        '') state=absent ;;
        ACTIVE) state=ready ;;
        SUSPENDED) state=lost ;;
        FAILED) state=failed ;;
        *) state=waiting ;;
    esac
    if [[ $state == ready ]]; then
        # A preempted node is seen before its queued resource is SUSPENDED.
        ask node READY gcloud compute tpus tpu-vm list "${query[@]}" --format='value(state)' || return
        case $node in
            READY) ;;
            '' | PREEMPTED | TERMINATED) state=lost ;;
            *) state=waiting ;;
        esac
    fi
}

obtain_pod() { # returns when the pod is ready; 1 if its request failed
    local assumed="" # a dry run finds no pod, then the one it made
    while true; do
        find_state "$assumed" || return
        case $state in
            ready) return ;;
            absent) create_pod || return ;;
            lost) replace_pod || return ;;
            failed) note "the request for a pod failed" && delete_pod && return 1 ;;
        esac
        assumed=ACTIVE
        run sleep "$poll"
    done
}

on_workers() { # on_workers COMMAND: an array in `reply`, for run and ask
    reply=(gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1")
}

# ---------------------------------------------------------------------------------- the run

check_commit() { # the code and the config that the workers will get, for chips of the type
    if $skip_check; then return; fi
    local code status=0 chips=${type##*-} of_chips=()
    [[ $chips =~ ^[1-9][0-9]*$ ]] || chips=0
    case $type in # with the GiB of a chip; v4 and v5p count cores, of which a chip has two
        v6e-*) of_chips=(--devices="$chips" --memory-gib=32) ;;
        v5litepod-*) of_chips=(--devices="$chips" --memory-gib=16) ;;
        v5p-*) of_chips=(--devices=$((chips / 2)) --memory-gib=95) ;;
        v4-*) of_chips=(--devices=$((chips / 2)) --memory-gib=32) ;;
    esac
    code=$(mktemp -d)
    git -C "$root" archive "$commit" | tar -x -C "$code"
    (
        cd "$code" && export PYTHONPATH=$code
        check_run "${arguments[@]}" --no-data "${of_chips[@]}"
    ) || status=$?
    rm -rf "$code"
    if ((status)); then exit "$status"; fi
}

setup_workers() {
    local archive=ddgan-$commit.tar.gz
    on_workers "mkdir -p ddgan/$commit && tar -xzf $archive -C ddgan/$commit && \
bash ddgan/$commit/launch/tpu_worker.sh setup $(quoted "$prepare")"
    run git -C "$root" archive --format=tar.gz --output="${TMPDIR:-/tmp}/$archive" "$commit" &&
        run gcloud compute tpus tpu-vm scp "${TMPDIR:-/tmp}/$archive" "$name:$archive" \
            "${where[@]}" --worker=all &&
        run "${reply[@]}"
}

start_run() {
    on_workers "$worker_script start $(quoted train "${arguments[@]}")"
    run "${reply[@]}"
}

launch_run() { # gcloud and the workers end with 2 on what running again does not mend
    local status=0
    { obtain_pod && setup_workers && start_run; } || status=$?
    if ((status == 2)); then finish 2 "the mistake above must be mended first"; fi
    return "$status"
}

judge() { # judge WORDS: one word for the run, from those of all workers
    local words
    words=" $(sed -n 's/^run: //p' <<<"$1" | sort -u | tr '\n' ' ')"
    case $words in
        ' ') echo silent ;;
        *' running '*) echo running ;;
        *' 2 '*) echo mistake ;;
        *' stopped '* | *' 130 '*) echo stopped ;;
        ' 0 ') echo complete ;;
        ' 75 ' | ' 0 75 ') echo again ;;
        *) echo crashed ;;
    esac
}

watch_run() { # sets outcome once the run has ended on every worker or the pod is lost
    local words
    while true; do
        run sleep "$poll"
        on_workers "$worker_script poll"
        outcome=silent
        if ask words 'run: 0' "${reply[@]}"; then outcome=$(judge "$words"); fi
        if [[ $outcome == running ]]; then continue; fi
        if [[ $outcome != silent ]]; then return; fi
        if find_state ACTIVE && [[ $state != ready && $state != waiting ]]; then
            outcome=lost
            return
        fi
        note "the workers do not answer; trying again"
    done
}

finish() { # finish CODE MESSAGE
    note "$2"
    if $delete_after && [[ $1 != 75 ]]; then
        delete_pod
    else
        note "the pod still bills; end that with: $0 delete --name=$name $(quoted "${where[@]}")"
    fi
    exit "$1"
}

train() {
    local crashes=0 seen="" checkpoints
    trap 'note "the run goes on and the pod bills; the same command watches again"; exit 130' INT
    while true; do
        if launch_run; then
            watch_run
        elif find_state ACTIVE && [[ $state == lost ]]; then
            outcome=lost
        else
            outcome=crashed
        fi
        case $outcome in
            complete) finish 0 "the run is complete" ;;
            mistake) finish 2 "the run ended with a mistake that running again does not mend" ;;
            stopped) finish 75 "the run was stopped; the same command goes on from its checkpoint" ;;
            crashed)
                ask checkpoints "" gcloud storage ls "$workdir/checkpoints/" || checkpoints=""
                if [[ $checkpoints != "$seen" ]]; then crashes=0; fi
                seen=$checkpoints
                crashes=$((crashes + 1))
                if ((crashes >= max_crashes)); then
                    finish 1 "gave up: crash $crashes without a new checkpoint; see '$0 logs'"
                fi
                run sleep "$poll"
                ;;
        esac
        note "$outcome: running again"
    done
}

# ------------------------------------------------------------------------------ command line

check_verb 'create setup train status logs ssh stop delete' "$@"
verb=$1
shift
name=ddgan zone=${CLOUDSDK_COMPUTE_ZONE:-} type=v5litepod-16 runtime="" commit=""
prepare="" worker=0 poll=60 max_crashes=3 allow_dirty=false delete_after=false
config="" workdir="" create_flags=(--quiet) arguments=()
while (($#)); do
    case $1 in
        --config=* | --workdir=*) set_flag "$1" && arguments+=("$1") ;;
        --config.*=*) arguments+=("$1") ;;
        --name=* | --zone=* | --type=* | --runtime=* | --commit=* | --prepare=*) set_flag "$1" ;;
        --poll=* | --max-crashes=*) number "$1" && set_flag "$1" ;;
        --worker=*) set_flag "$1" ;;
        --allow-dirty | --delete-after | --dry-run | --skip-check) set_flag "$1=true" ;;
        --spot | --reserved) create_flags+=("$1") ;;
        --create-flag=*) create_flags+=("${1#*=}") ;;
        --help | -h) usage && exit ;;
        --) shift && arguments+=("$@") && break ;;
        *) mistake "unknown argument '$1'; flags are given as --name=value, see $0 --help" ;;
    esac
    shift
done

pod_name='^[a-z]([-a-z0-9]{0,60}[a-z0-9])?$'
[[ $name =~ $pod_name ]] || mistake "--name=$name: use a-z, 0-9 and hyphens, a letter first"
[[ -n $zone ]] ||
    mistake "--zone is missing: a zone that has $type, or export CLOUDSDK_COMPUTE_ZONE=us-central1-a"
if [[ -z $runtime ]]; then # https://cloud.google.com/tpu/docs/runtimes
    case $type in
        v6e-*) runtime=v2-alpha-tpuv6e ;;
        v5p-*) runtime=v2-alpha-tpuv5 ;;
        v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
        v4-*) runtime=tpu-ubuntu2204-base ;;
        *) mistake "--type=$type: add --runtime=VERSION, the software of its VMs" ;;
    esac
fi
where=(--zone="$zone")
worker_script="bash ddgan/current/launch/tpu_worker.sh"

if [[ $verb == train ]]; then
    [[ -n $config ]] || mistake "--config is missing, e.g. --config=cifar10_ddgan"
    [[ $workdir == gs://?* ]] ||
        mistake "--workdir=$workdir: the workers share no disk, use gs://BUCKET/FOLDER"
elif [[ $verb != ssh ]] && ((${#arguments[@]})); then
    mistake "$verb takes no '${arguments[0]}'; see $0 --help"
fi
if [[ $verb == train || $verb == setup ]]; then
    git -C "$root" ls-files --error-unmatch launch/tpu_worker.sh &>/dev/null ||
        mistake "the workers get a commit: run launch/tpu_pod.sh of a checkout of the repository"
    changes=$(git -C "$root" status --porcelain)
    if [[ -z $commit && -n $changes ]]; then
        $allow_dirty || mistake "uncommitted changes in $root; commit them, or add --allow-dirty"
        note "these changes stay here, the workers get HEAD without them:"$'\n'"$changes"
    fi
    named=${commit:-HEAD}
    commit=$(git -C "$root" rev-parse --verify --quiet "$named^{commit}") ||
        mistake "--commit=$named names no commit"
    # What is no path is the name of a config that ships.
    [[ $config != */* && $config != *.py* ]] || git -C "$root" cat-file -e "$commit:${config%%:*}" 2>/dev/null ||
        mistake "--config=$config: commit ${commit:0:12} has no file ${config%%:*}"
fi

case $verb in
    create) create_pod ;;
    setup) obtain_pod && setup_workers ;;
    train) check_commit && train ;;
    status)
        find_state ACTIVE
        $dry_run || echo "pod: $state"
        on_workers "$worker_script poll"
        if [[ $state == ready ]]; then run "${reply[@]}"; fi
        ;;
    logs)
        run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker="$worker" \
            --command='tail -n 100 -F ddgan/run/log'
        ;;
    ssh)
        shell=(gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker="$worker")
        if ((${#arguments[@]})); then shell+=(--command="$(quoted "${arguments[@]}")"); fi
        run "${shell[@]}"
        ;;
    stop)
        on_workers "$worker_script stop"
        run "${reply[@]}"
        note "the pod still bills; '$0 delete' ends that"
        ;;
    delete) delete_pod ;;
esac
