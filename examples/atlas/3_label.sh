#!/usr/bin/env bash
# An energy for each frame: one or two targets a job, one core each. Killed, it loses one frame.
#SBATCH --job-name=atlas-label
#SBATCH --array=1-1000
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=4G
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

# Status 3: frames without an energy are rows with their reason; no training uses them.
protenix-eba label --input data/atlas --out data/atlas/labels.parquet \
    --shard "$SLURM_ARRAY_TASK_ID/1000" || [ $? -eq 3 ]
