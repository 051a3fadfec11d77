#!/usr/bin/env bash
# The ATLAS tutorial (docs/tutorials/atlas.md) as one chain of SLURM jobs: each begins when those that
# it needs have succeeded, and none begins after one that has not.
#
#   bash examples/atlas/submit.sh --account=mine --partition=gpu
#   STEPS=20000 bash examples/atlas/submit.sh        # fewer steps of each training than the recipes'
#
# in a checkout that all nodes see, in the activated environment. All options are sbatch's, for every
# job. The same command goes on where a chain has ended, for whatever reason: what is done is kept.
# Where nodes reach no network, run `bash examples/atlas/1_download.sh` before, where there is one.
set -euo pipefail
OPTIONS=("$@")
STAGES=examples/atlas
training=(${STEPS:+--max_steps "$STEPS"})

job() { # job AFTER SCRIPT [WORD]...: print the number of a job that waits for others, a:b
    local number
    number=$(sbatch --parsable --kill-on-invalid-dep=yes ${1:+"--dependency=afterok:$1"} \
        ${OPTIONS[@]+"${OPTIONS[@]}"} "${@:2}")
    echo "${number%%;*}" # without the name of the cluster
}

train() { # train AFTER NAME: that stage, by the recipe of its name
    job "$1" examples/slurm.sh "configs/$2.yaml" "runs/atlas/$2" ${training[@]+"${training[@]}"}
}

download=$(job "" $STAGES/1_download.sh)
import=$(job "$download" $STAGES/2_import.sh)
label=$(job "$import" $STAGES/3_label.sh)
merge=$(job "$label" $STAGES/3_merge.sh)
embed=$(job "$import" $STAGES/4_embed.sh)
sft_stage1=$(train "$merge:$embed" sft_stage1)
sft_stage2=$(train "$sft_stage1" sft_stage2)
eba=$(train "$sft_stage2" eba)
eba_dpo=$(train "$sft_stage2" eba_dpo)
sample=$(job "$eba:$eba_dpo" $STAGES/6_sample.sh)
evaluate=$(job "$sample" $STAGES/7_evaluate.sh)
compare=$(job "$evaluate" $STAGES/7_compare.sh)
echo "submitted: jobs $download to $compare; squeue --me shows them"
