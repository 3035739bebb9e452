#!/usr/bin/env bash
# From labelled folders to a trained, measured, exported model and its answers: how the reference model was made.
#
#   bash docs/reproduce.sh DATA WEIGHTS OUT               fold 0: about 45 minutes on two CPU cores with bfloat16
#   FOLDS="0 1 2 3 4" bash docs/reproduce.sh DATA WEIGHTS OUT   the whole cross-validation, three and a half hours
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

# shellcheck disable=SC2086
tumorlens crossval "$manifest" --out "$out/cv" --weights "$weights" --preset best --folds ${FOLDS:-0}
for fold in ${FOLDS:-0}; do tumorlens region "$out/cv/fold$fold"; done  # about eight minutes each
tumorlens evaluate "$out/cv"
# Pictures that are no brain MRI, in a folder for each kind, teach the model to refuse them.
if [ -d "${OTHERS:-}" ]; then tumorlens refusal "$out/cv/fold0" --others "$OTHERS"; fi
# The 8-bit graph, last: every export drops it.
for fold in ${FOLDS:-0}; do tumorlens quantise "$out/cv/fold$fold" "$manifest" --fold "$fold"; done
tumorlens predict "$data/dicom_brain" --model "$out/cv/fold0/bundle" --out "$out/predictions.csv" \
    --heatmaps "$out/heatmaps" --overwrite
