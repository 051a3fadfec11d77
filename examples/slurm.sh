#!/usr/bin/env bash
# Train on several nodes under SLURM; preempted or out of time, the job saves and is queued again.
#
#   sbatch examples/slurm.sh eba.yaml runs/atlas/eba
#
# with the configuration and the run folder (its base_dir/run_name), in the activated environment,
# from a folder that all nodes see. What follows are keys of the configuration.
#SBATCH --job-name=protenix-eba
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1       # one torchrun on each node, which starts a process for each GPU
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue                 # after preemption or a node's failure
#SBATCH --open-mode=append        # one log for all starts
# SIGTERM to every node's task (not to this script: that would be B:TERM) 10 minutes before the time
# is up. Preemption sends it too; the partition's GraceTime must cover one step and the saving.
#SBATCH --signal=TERM@600
set -euo pipefail
CONFIG=${1:?usage: sbatch $0 CONFIG.yaml RUN_FOLDER [--KEY VALUE]...}
RUN_FOLDER=${2:?usage: sbatch $0 CONFIG.yaml RUN_FOLDER [--KEY VALUE]...}
shift 2

export CONFIG HEAD PORT
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 20000))

# On each node. SIGTERM goes to the training processes past torchrun, which would kill them after 30
# seconds (fixed before torch 2.12): in a session of its own it does not see the signal. They agree
# on the step, save, and leave; that is no failure.
train_on_node() {
    local code=0 stopped=0
    # Everybody who is left after this node has stopped would hang: one that fails ends the job.
    setsid torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node gpu \
        --rdzv-backend c10d --rdzv-endpoint "$HEAD:$PORT" --rdzv-id "$SLURM_JOB_ID" \
        --no-python protenix-train --plugin protenix_eba --config "$CONFIG" "$@" &
    local agent=$!
    trap 'stopped=1; pkill -TERM --parent "$agent"' TERM
    while kill -0 "$agent" 2>/dev/null; do
        wait "$agent" && code=0 || code=$?
    done
    ((stopped)) || exit "$code"
}
export -f train_on_node

srun --kill-on-bad-exit=1 bash -c 'train_on_node "$@"' train_on_node "$@"

# The same command resumes. An error has ended this script above: it is not tried again.
[[ -f $RUN_FOLDER/model.pt ]] || scontrol requeue "$SLURM_JOB_ID"
