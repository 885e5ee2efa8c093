# shellcheck shell=bash
# A cloud in $FAKES/cloud: `request`, the state of the queued resource, `node`, the state of the TPU,
# and a home folder for each worker, in which ssh and scp do what they are told.
cloud=$FAKES/cloud
here() { cd "$home" && HOME=$home PATH=$FAKES/worker:/usr/bin:/bin bash -c "$1"; }
case "$*" in
    *'queued-resources list'*) cat "$cloud/request" 2>/dev/null || true ;;
    *'tpu-vm list'*) cat "$cloud/node" 2>/dev/null || true ;;
    *'queued-resources create'*)
        mkdir -p "$cloud/worker0" "$cloud/worker1"
        echo ACTIVE >"$cloud/request"
        echo READY >"$cloud/node"
        ;;
    *'queued-resources delete'*) rm -rf "$cloud" ;;
    *'storage ls'*) ls "$FAKES/bucket/checkpoints" ;;
    *'tpu-vm scp'*) for home in "$cloud"/worker*; do cp "$5" "$home/${6#*:}"; done ;;
    *'tpu-vm ssh'*)
        if [[ -e $cloud/unreachable ]]; then
            rm "$cloud/unreachable"
            exit 255
        fi
        [[ $(cat "$cloud/node" 2>/dev/null) == READY ]] || exit 1
        status=0
        for home in "$cloud"/worker*; do
            if [[ $* == *"--worker=all"* || $* == *"--worker=${home##*worker}"* ]]; then
                for argument in "$@"; do
                    if [[ $argument == --command=* ]]; then
                        here "${argument#--command=}" || status=$?
                    fi
                done
            fi
        done
        exit "$status"
        ;;
esac
