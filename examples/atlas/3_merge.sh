#!/usr/bin/env bash
# One table of all labels, and what they are worth.
#SBATCH --job-name=atlas-merge
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=8G
#SBATCH --time=1:00:00
set -euo pipefail

protenix-eba label merge data/atlas/labels.parquet
protenix-eba label report data/atlas/labels.parquet --out data/atlas/labels.md
