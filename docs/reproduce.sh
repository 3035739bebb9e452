#!/usr/bin/env bash
# From labelled folders to a trained, measured, exported model and its answers: the recipe of the reference model. What differed for
# the one that ships is in docs/decisions.md, the data in docs/training.md.
#
#   bash docs/reproduce.sh DATA WEIGHTS OUT               fold 0 (53 minutes on two cores with bfloat16) and a last model
#   FOLDS="0 1 2 3 4" bash docs/reproduce.sh DATA WEIGHTS OUT   the whole cross-validation, four and a half hours
#
# DATA holds figshare/, tcga_lgg/, brisc_no_tumor/, kaggle/, not_brain_mri/ and dicom_brain/; WEIGHTS is a ResNet-50 in safetensors
# (torchvision's key names), or `hub` to download one. A stopped run continues with the same call.
set -euo pipefail
data=$1 weights=$2 out=$3
manifest=$out/manifest.csv

case ${FOLDS:-0} in
    0 | "0 "*) ;;
    *) echo "FOLDS=$FOLDS: begin with 0, by whose validation side the last model is validated" >&2; exit 1 ;;
esac

if [ ! -f "${manifest%.csv}.split.json" ]; then  # what a split leaves beside its manifest
    tumorlens data index "$data/figshare" "$data/tcga_lgg" "no_tumor=$data/brisc_no_tumor" \
        "$data/kaggle/Training/notumor" "$data/kaggle/Testing/notumor" --out "$manifest" --overwrite
    # Without patient ids near copies stay together; more than two of a kind teach nothing.
    tumorlens data split "$manifest" --folds 5 --group-by-similarity --keep-similar 2
fi

# shellcheck disable=SC2086
tumorlens crossval "$manifest" --out "$out/cv" --weights "$weights" --preset best --folds ${FOLDS:-0}

# The last model goes on from the first fold's, with every patient but that fold's validation side: nobody is left to test
# it on, so what is known of it are the folds' figures.
resume=()
if [ -f "$out/final/config.json" ]; then resume=(--resume); fi
tumorlens train "$manifest" ${resume[@]+"${resume[@]}"} --out "$out/final" --weights "$out/cv/fold0" --fold all --preset further
# Pictures that are no brain MRI teach it to refuse them; they come with free packages (needs apt-get and pip).
python "$(dirname "$0")/../tools/collect_others.py" "$out/collected" --x-rays "$data/not_brain_mri"
tumorlens refusal "$out/final" --others "$out/collected/others" --brains "$out/collected/brains"
# Two folds or more say how much too bold a temperature from validation patients is.
case ${FOLDS:-0} in *" "*) tumorlens calibrate "$out/cv" --bundle "$out/final/bundle" ;; esac
tumorlens quantise "$out/final" "$manifest" --fold all  # last: every export drops the 8-bit graph
tumorlens predict "$data/dicom_brain" --model "$out/final/bundle" --out "$out/predictions.csv" \
    --heatmaps "$out/heatmaps" --overwrite
