#!/usr/bin/env bash
# Compares this program with hover_net and scikit-image and writes the table of docs/accuracy.md. `make parity` gives
# the arguments.
# usage: parity.sh BINARY DATA OUT
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1 data=$2 out=$3
python=.deps/parity/bin/python

say() { echo "parity: $*"; }
[ -d "$data/consep" ] || {
    echo "parity: error: no $data/consep" >&2
    echo "parity: cure: DATA=FOLDER with consep, dsb2018_he and nuinsseg (docs/data.md)" >&2
    exit 1
}

if [ ! -e .deps/parity.done ]; then
    say "making .deps/parity: hover-net 0.0.10, torch, scikit-image, OpenCV (5 GB of disk)"
    rm -rf .deps/parity
    python3 -m venv .deps/parity
    $python -m pip --disable-pip-version-check install --quiet torch==2.11.0 numpy scipy scikit-image==0.26.0 opencv-python-headless \
        safetensors pillow
    $python -m pip --disable-pip-version-check install --quiet --no-deps hover-net==0.0.10
    touch .deps/parity.done
fi

say "predictions of the default model"
mkdir -p "$out"
"$binary" tile "$data"/consep/Train/Images "$data"/dsb2018_he/images -o "$out/predicted" --mpp 0.25 --save-raw --quiet
say "cases by the oracles"
$python tests/parity/network.py "$out/network" "$data"/consep/Train/Images/train_{1,12}.png
$python tests/parity/maps.py "$out/maps" "$data" "$out/predicted"
$python tests/parity/features.py "$out/features" "$data"
$python tests/parity/metrics.py "$out/metrics" "$data" "$out/predicted"
say "comparing"
WSI_NUCLEI_PARITY=$(realpath "$out") cargo test --release --locked --test parity -- --ignored --nocapture --test-threads=1 | tee "$out/log"
$python tests/parity/torchscript.py "$binary" "$out/torchscript" "$data/consep/Train/Images/train_12.png" | tee -a "$out/log"
$python tests/parity/rules.py "$binary" "$out/rules" "$data" "$out/predicted" | tee -a "$out/log"

# Replace the table between the two marks in docs/accuracy.md.
awk -v rows="$out/log" '
    /^<!-- parity -->/ { print; print "| what | cases | agreement | largest difference |"; print "| --- | --- | --- | --- |"
        while ((getline line < rows) > 0) { sub(/^test [a-z_]+ \.\.\. /, "", line); if (line ~ /^\|/) print line }
        inside = 1 }
    /^<!-- end -->/ { inside = 0 }
    !inside && !/^<!-- parity -->/ { print }
' docs/accuracy.md >"$out/accuracy.md"
cp "$out/accuracy.md" docs/accuracy.md
say "the table is in docs/accuracy.md"
