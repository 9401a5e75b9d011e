#!/usr/bin/env bash
# Trains the default model from an ImageNet encoder: six rounds, means of the last four, scores. Takes ten hours on two
# cores.
# usage: train_default.sh BINARY DATA OUT      (make train-default gives them)
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1 data=$2 out=$3
bf16=()
if grep -qw avx512_bf16 /proc/cpuinfo 2>/dev/null; then bf16=(--bf16); fi

say() { echo "train-default: $*"; }
[ -d "$data" ] || {
    echo "train-default: error: no $data" >&2
    echo "train-default: cure: DATA=FOLDER with the data sets that config/train-default.toml names" >&2
    exit 1
}

encoder=$(scripts/fetch_encoder.sh)

train() { "$binary" train --data "$data" --checkpoint-every 200 --validate-every 1000 --threads "$(nproc)" "${bf16[@]}" "$@"; }

# The shipped weights were trained in six rounds in bf16. The first three were planned longer (7,000, 6,000 and 4,200
# steps) and stopped early, the second after its learning rate had begun to fall. So this script repeats them except for
# some learning rates and the order of sums on other cores. The constants of config/train-default.toml are kept: those
# fitted on the third round cost CoNSeP 0.005 of PQ.
say "5600 steps into $out/first (stop it at any time: the same command goes on)"
mkdir -p "$out"
train --config config/train-default.toml --encoder "$encoder" -o "$out/first" --steps 5600
say "5200 steps from there into $out/second, with more of CoNSeP"
sed -e 's/^share = 0.50/share = 0.55/; s/^share = 0.25/share = 0.20/; s/^share = 0.12/share = 0.11/; s/^share = 0.13/share = 0.14/' \
    config/train-default.toml >"$out/second.toml"
train --config "$out/second.toml" --from "$out/first" -o "$out/second" --lr 1.2e-3 --seed 4 --steps 5200
say "3600 steps from there into $out/third, by Muon and with less augmentation"
sed -e 's/^weight_decay/optimizer = "muon"\nresampled = 0.4\ncoloured = 0.5\nweight_decay/' "$out/second.toml" >"$out/third.toml"
train --config "$out/third.toml" --from "$out/second" -o "$out/third" --lr 1e-3 --seed 21 --steps 3600
say "which nuclei to keep, and temperature"
"$binary" model tune "$out/third" --data "$data" --keep-constants
say "4500 steps from there into $out/fourth"
train --config "$out/third.toml" --from "$out/third" -o "$out/fourth" --lr 8e-4 --seed 31 --steps 4500
"$binary" model tune "$out/fourth" --data "$data" --keep-constants
say "4400 steps from there into $out/fifth"
train --config "$out/third.toml" --from "$out/fourth" -o "$out/fifth" --lr 7e-4 --seed 41 --steps 4400
"$binary" model tune "$out/fifth" --data "$data" --keep-constants
say "the mean of the last three, 1 : 3 : 4, into $out/mean"
"$binary" model average "$out/third" "$out/fourth" --share 0.75 -o "$out/both"
"$binary" model average "$out/both" "$out/fifth" --share 0.5 -o "$out/mean"
"$binary" model tune "$out/mean" --data "$data" --keep-constants
say "4800 steps from there into $out/sixth, with its own average as a teacher"
sed -e 's/^seed = /taught = 0.5\nseed = /' "$out/third.toml" >"$out/sixth.toml"
train --config "$out/sixth.toml" --from "$out/mean" -o "$out/sixth" --lr 7e-4 --seed 61 --steps 4800
"$binary" model tune "$out/sixth" --data "$data" --keep-constants
say "the mean of both, 1 : 1, into $out"
"$binary" model average "$out/mean" "$out/sixth" --share 0.5 -o "$out"
"$binary" model tune "$out" --data "$data" --keep-constants
"$binary" eval --model "$out" --data "$data" --record -o "$out/eval"
say "done: $out is a model folder; copy model.toml and model.safetensors to weights/default to embed it"
