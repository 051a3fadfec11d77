#!/usr/bin/env bash
# The tables and the report of each model, from the parts, and all models side by side.
#SBATCH --job-name=atlas-compare
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=2G
#SBATCH --time=2:00:00
set -euo pipefail

# Status 3: targets that failed are listed in each report.
for model in pretrained sft eba_dpo eba; do
    protenix-eba evaluate --reference atlas_test --samples "samples/$model" \
        --targets atlas_test/atlas_test.csv --compat alphaflow-1.9.9 \
        --jobs "$SLURM_CPUS_PER_TASK" --out "evaluation/$model" || [ $? -eq 3 ]
done
protenix-eba compare evaluation/pretrained evaluation/sft evaluation/eba_dpo evaluation/eba \
    --published --out comparison
