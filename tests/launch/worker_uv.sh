#!/usr/bin/env bash
# `uv` on a worker of the stand-in cloud: what it installs is worker_ddgan.sh.
if [[ $1 == venv ]]; then
    mkdir -p .venv/bin
    cp "$FAKES/worker/ddgan" .venv/bin/ddgan
fi
