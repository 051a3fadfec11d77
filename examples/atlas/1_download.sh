#!/usr/bin/env bash
# Half a terabyte of trajectories. Archives that are there are kept, so it can run before the chain.
#SBATCH --job-name=atlas-download
#SBATCH --cpus-per-task=2
#SBATCH --time=48:00:00
set -euo pipefail

# Status 3: some are missing on the server; they are named in the log, and the others are used.
for split in train val; do
    scripts/download_atlas.sh --split "$split" --out atlas --jobs 8 || [ $? -eq 3 ]
done
scripts/download_atlas.sh --split test --out atlas_test --jobs 8 || [ $? -eq 3 ]
