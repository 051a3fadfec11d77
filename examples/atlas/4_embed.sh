#!/usr/bin/env bash
# The trunk, once for each target; a GPU for each job. MSAs: msas/NAME.a3m, see the tutorial.
#SBATCH --job-name=atlas-embed
#SBATCH --array=1-8
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=8G
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

# A target that fails ends the chain, for training needs all that lie in data/atlas: the log names it.
protenix-eba embed --config configs/sft_stage1.yaml \
    --checkpoint checkpoint/protenix_base_default_v0.5.0.pt --input data/atlas \
    --out data/atlas/embeddings --msa msas --shard "$SLURM_ARRAY_TASK_ID/8"
