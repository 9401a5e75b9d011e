#!/usr/bin/env bash
# How scores fall when pictures get worse: held-out images blurred, dimmed, compressed, paled, and scored again.
# usage: measure_robustness.sh BINARY DATA OUT     (needs python3 with numpy and pillow; `make parity`'s has both)
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1 data=$2 out=$3
python=${PYTHON:-.deps/parity/bin/python}

for change in none blur1 blur2 jpeg dim pale dark noise; do
    $python scripts/worsen_images.py "$change" config/train-default.toml "$data" "$out/$change"
    "$binary" eval --model default --data "$out/$change" --json >"$out/$change.json"
done
$python - "$out" <<'PY'
import json, sys
from pathlib import Path
rows = {}
for path in sorted(Path(sys.argv[1]).glob("*.json")):
    rows[path.stem] = json.loads(path.read_text())
print(json.dumps({k: list(v) for k, v in rows.items()}, indent=1)[:2000])
PY
