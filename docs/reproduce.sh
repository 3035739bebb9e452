#!/usr/bin/env bash
# From labelled folders to a trained, measured, exported model and its answers: how the reference model was made.
#
#   bash docs/reproduce.sh DATA WEIGHTS OUT        about an hour on two CPU cores
#   ALL_FOLDS=1 bash docs/reproduce.sh DATA WEIGHTS OUT   the other four folds too, three hours more
#
# DATA holds figshare/, tcga_lgg/, brisc_no_tumor/, kaggle/ and dicom_brain/; WEIGHTS is a ResNet-50 in safetensors
# (torchvision's key names), or `hub` to download one. A stopped run continues with the same call.
set -euo pipefail
data=$1 weights=$2 out=$3
manifest=$out/manifest.csv

if [ ! -f "$manifest" ]; then
    tumorlens data index "$data/figshare" "$data/tcga_lgg" "no_tumor=$data/brisc_no_tumor" \
        "$data/kaggle/Training/notumor" "$data/kaggle/Testing/notumor" --out "$manifest"
    # Without patient ids near copies stay together; more than two of a kind teach nothing.
    tumorlens data split "$manifest" --folds 5 --group-by-similarity --keep-similar 2
fi

folds=0
[ -n "${ALL_FOLDS:-}" ] && folds="0 1 2 3 4"
# shellcheck disable=SC2086
tumorlens crossval "$manifest" --out "$out/cv" --weights "$weights" --preset plain --folds $folds

# A few more epochs at the full size, on the same fold: this is the model that ships.
if [ ! -f "$out/refined/metrics.json" ]; then
    resume=""
    [ -f "$out/refined/config.json" ] && resume="--resume"
    # shellcheck disable=SC2086
    tumorlens train "$manifest" --fold 0 --weights "$out/cv/fold0/bundle/weights.safetensors" --preset refine \
        --out "$out/refined" $resume
fi

tumorlens evaluate "$out/refined"
tumorlens export "$out/refined"
tumorlens predict "$data/dicom_brain" --model "$out/refined/bundle" --out "$out/predictions.csv" \
    --heatmaps "$out/heatmaps" --overwrite
