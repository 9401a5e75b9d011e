#!/usr/bin/env bash
# Shows what more data would bring: runs the same short training on a quarter, a half and all of the training images,
# and scores each on the same held-out images. Takes an hour on two cores.
# usage: learning_curve.sh BINARY DATA OUT [STEPS]
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1 data=$2 out=$3 steps=${4:-1500}
encoder=$(scripts/fetch_encoder.sh)
bf16=()
if grep -qw avx512_bf16 /proc/cpuinfo 2>/dev/null; then bf16=(--bf16); fi

mkdir -p "$out"
for part in 0.25 0.5 1; do
    "$binary" train --config config/train-default.toml --data "$data" --encoder "$encoder" --data-part "$part" \
        -o "$out/$part" --steps "$steps" --validate-every $((steps / 3)) --threads "$(nproc)" "${bf16[@]}"
    "$binary" eval --model "$out/$part" --data "$data" -o "$out/$part/eval" >"$out/$part/scores.txt"
done
for part in 0.25 0.5 1; do
    echo "learning-curve: $part of the images, $steps steps"
    cat "$out/$part/scores.txt"
    grep -h val_pq "$out/$part/train.jsonl"
done
