#!/usr/bin/env bash
# From labelled folders to a trained, measured, exported model and its answers: how the reference model was made.
#
#   bash docs/reproduce.sh DATA WEIGHTS OUT        about half an hour on two CPU cores
#   ALL_FOLDS=1 bash docs/reproduce.sh DATA WEIGHTS OUT   the other four folds too, some two hours
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

tumorlens evaluate "$out/cv/fold0"
tumorlens export "$out/cv/fold0"
tumorlens predict "$data/dicom_brain" --model "$out/cv/fold0/bundle" --out "$out/predictions.csv" \
    --heatmaps "$out/heatmaps" --overwrite
