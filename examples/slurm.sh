#!/usr/bin/env bash
# Train on several nodes under SLURM. Preempted or out of time, the job saves and is queued again.
#
#   sbatch examples/slurm.sh eba.yaml runs/atlas/eba
#
# with a configuration and its run folder (base_dir/run_name), in the activated environment, from a
# folder that all nodes see. What follows are keys of the configuration.
#SBATCH --job-name=protenix-eba
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1       # one torchrun on each node, which starts a process for each GPU
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue                 # after preemption or the failure of a node
#SBATCH --open-mode=append        # one log for all starts
# SIGTERM to the task on each node (B:TERM would be to this script) 10 minutes before time is up.
# Preemption sends it as well: the partition's GraceTime has to cover a step and its checkpoint.
#SBATCH --signal=TERM@600
set -euo pipefail
CONFIG=${1:?usage: sbatch $0 CONFIG.yaml RUN_FOLDER [--KEY VALUE]...}
RUN_FOLDER=${2:?usage: sbatch $0 CONFIG.yaml RUN_FOLDER [--KEY VALUE]...}
shift 2

HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 20000))
SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK    # srun does not take it over by itself
export CONFIG HEAD PORT SRUN_CPUS_PER_TASK

# SIGTERM goes to the training processes, past torchrun: that would kill them after 30 seconds
# (before torch 2.12 always), so it runs in a session of its own, which the signal does not reach.
# They agree on the step, save and leave, which is no failure.
train_on_this_node() {
    local agent code=0 stopped=0
    setsid torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node gpu \
        --rdzv-backend c10d --rdzv-endpoint "$HEAD:$PORT" --rdzv-id "$SLURM_JOB_ID" \
        --no-python protenix-train --plugin protenix_eba --config "$CONFIG" "$@" &
    agent=$!
    trap 'stopped=1; pkill -TERM --parent "$agent"' TERM
    while kill -0 "$agent" 2>/dev/null; do
        wait "$agent" && code=0 || code=$?
    done
    ((stopped)) || exit "$code"
}
export -f train_on_this_node

# A node that fails ends the step on all, where the others would wait for it; then this script ends.
srun --kill-on-bad-exit=1 bash -c 'train_on_this_node "$@"' train_on_this_node "$@"

# Stopped, not finished: the same command goes on from the checkpoint.
[[ -f $RUN_FOLDER/finished.json ]] || scontrol requeue "$SLURM_JOB_ID"
