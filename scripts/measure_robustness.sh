#!/usr/bin/env bash
# Measures how scores fall when images get worse: blurs, dims, compresses or pales the held-out images and scores them
# again.
# usage: measure_robustness.sh BINARY DATA OUT     (needs python3 with numpy and pillow; `make parity`'s has both)
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1 data=$2 out=$3
python=${PYTHON:-.deps/parity/bin/python}

for change in ${CHANGES:-none blur1 blur2 jpeg dim pale dark noise}; do
    $python scripts/worsen_images.py "$change" config/train-default.toml "$data" "$out/$change"
    "$binary" eval --model "${MODEL:-default}" --data "$out/$change" --json >"$out/$change.json"
done
$python - "$out" <<'PY'
import json
import sys
from pathlib import Path

WANTED = [("consep", "pq"), ("nuinsseg", "pq"), ("dsb2018", "pq"), ("brca_m2c", "f1d")]
print("| change | " + " | ".join(f"{name} {score}" for name, score in WANTED) + " |")
print("| --- " * (len(WANTED) + 1) + "|")
for path in sorted(Path(sys.argv[1]).glob("*.json")):
    sets = json.loads(path.read_text())
    values = [sets[name]["scores"][score]["value"] for name, score in WANTED]
    print(f"| {path.stem} | " + " | ".join(f"{v:.2f}" for v in values) + " |")
PY
