#!/usr/bin/env bash
# `ddgan` on a worker of the stand-in cloud. Its N-th run ends as the N-th word of $FAKES/plan says:
# an exit code, perhaps with "+saved" for a new checkpoint, or "hang": at SIGTERM, with 75.
worker=${HOME##*/}
echo >>"$FAKES/$worker.runs"
printf '%s\0' "$@" >"$FAKES/$worker.arguments"
cp "$PWD/marker" "$FAKES/$worker.marker"
read -r -a plan <"$FAKES/plan"
word=${plan[$(wc -l <"$FAKES/$worker.runs") - 1]}
if [[ $word == *+saved ]]; then mkdir -p "$FAKES/bucket/checkpoints/$(wc -l <"$FAKES/$worker.runs")"; fi
if [[ $word != hang ]]; then exit "${word%+saved}"; fi
trap 'exit 75' TERM
exec {never}<> <(:)
touch "$FAKES/$worker.hangs"
# A signal that arrives just before bash begins to read is handled after the reading.
for ((i = 0; i < 600; i++)); do read -r -t 0.1 -u "$never"; done
