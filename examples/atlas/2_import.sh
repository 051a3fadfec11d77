#!/usr/bin/env bash
# 300 frames of each target; those that are there are kept.
#SBATCH --job-name=atlas-import
#SBATCH --cpus-per-task=16
#SBATCH --mem-per-cpu=4G
#SBATCH --time=12:00:00
set -euo pipefail

# Status 3: targets that failed are in data/atlas/import_report.csv, and the others are used.
for split in train val; do
    protenix-eba import --input atlas --split "atlas/atlas_$split.csv" --stride 100 \
        --out data/atlas --jobs "$SLURM_CPUS_PER_TASK" || [ $? -eq 3 ]
done
