#!/usr/bin/env bash
# Each model against MD, a part of the test targets in each job.
#SBATCH --job-name=atlas-evaluate
#SBATCH --array=1-4
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=2G
#SBATCH --time=4:00:00
#SBATCH --requeue
set -euo pipefail

# Status 3: targets that failed are named in the log, and tried once more by 7_compare.sh.
for model in pretrained sft eba_dpo eba; do
    protenix-eba evaluate --reference atlas_test --samples "samples/$model" \
        --targets atlas_test/atlas_test.csv --compat alphaflow-1.9.9 \
        --jobs "$SLURM_CPUS_PER_TASK" --out "evaluation/$model" \
        --shard "$SLURM_ARRAY_TASK_ID/4" || [ $? -eq 3 ]
done
