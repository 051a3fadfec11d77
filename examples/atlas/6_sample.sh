#!/usr/bin/env bash
# 250 samples of each test target from four models; on each node a process for each of its GPUs.
#SBATCH --job-name=atlas-sample
#SBATCH --array=1-2
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --mem=256G
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

# Status 3: targets without samples are named in the log; the evaluation counts them as failed.
protenix-eba sample --config configs/eba.yaml --input atlas_test/atlas_test.csv \
    --checkpoint pretrained=checkpoint/protenix_base_default_v0.5.0.pt \
    --checkpoint sft=runs/atlas/sft_stage2/model_ema.pt \
    --checkpoint eba_dpo=runs/atlas/eba_dpo/model_ema.pt \
    --checkpoint eba=runs/atlas/eba/model_ema.pt \
    --out samples -n 250 --preset tuned --embeddings embeddings_test --msa msas_test \
    --processes 4 --shard "$SLURM_ARRAY_TASK_ID/2" || [ $? -eq 3 ]
