#!/usr/bin/env bash
# Train on one node with several GPUs.
#
#   bash examples/torchrun.sh eba.yaml                   # every GPU of the node
#   GPUS=4 bash examples/torchrun.sh eba.yaml --max_steps 1000
#
# What follows the configuration are keys of it. The same command goes on where it was interrupted;
# `iters_to_accumulate` is per process, so the global batch grows with GPUS.
set -euo pipefail
CONFIG=${1:?usage: $0 CONFIG.yaml [--KEY VALUE]...}
shift

# Ctrl-C and SIGTERM finish the step, save and leave. torchrun waits this many seconds for it;
# before torch 2.12 it always waits 30, and a longer step is lost (back to the last checkpoint).
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}

# --no-python: protenix-train is a command, not a Python file to be run.
exec torchrun --standalone --nproc-per-node "${GPUS:-gpu}" --no-python \
    protenix-train --plugin protenix_eba --config "$CONFIG" "$@"
