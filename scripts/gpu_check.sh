#!/usr/bin/env bash
# Measures the program on a GPU within 150 s and prints one Markdown table for docs/performance.md. Needs no network:
# the binary with its libraries (make install), python3 (standard library), nvidia-smi, and two slides.
# usage: gpu_check.sh BINARY DEMO BIG OUT [DEVICE]
#   DEMO    slides/CMU-1-Small-Region.svs
#   BIG     a pyramid at 0.25 um/px, made beforehand and elsewhere:
#           WSI_NUCLEI_BENCH_SLIDE=big.tiff WSI_NUCLEI_BENCH_PX=16384 cargo bench --bench pipeline
#   OUT     a folder for results; what is in it is replaced
#   DEVICE  cuda (default), cuda:0,1, …; cpu tries the script itself
# With WSI_NUCLEI_GPU_CHECK_LABELS=FOLDER (labelled images at 0.25 um/px) training is measured too.
set -uo pipefail
[ $# -ge 4 ] || { sed -n '2,11s/^# //p' "$0" >&2; exit 2; }
binary=$1 demo=$2 big=$3 out=$4 device=${5:-cuda}
limit_s=${WSI_NUCLEI_GPU_CHECK_S:-150}
for file in "$binary" "$demo" "$big"; do
    [ -f "$file" ] || { echo "gpu_check: error: no $file" >&2; exit 2; }
done
rm -rf "$out" && mkdir -p "$out"
begun=$SECONDS
left() { echo $((limit_s - (SECONDS - begun) - 2)); }
row() { echo "| $1 | $2 |"; }

# measure NAME SLIDE FLAG…: runs into OUT/NAME and prints its row; says so where no time is left.
measure() {
    local name=$1 slide=$2 at_most status
    shift 2
    at_most=$(left)
    if [ "$at_most" -lt 5 ]; then
        row "$name" "not run: no time left of $limit_s s"
        return 1
    fi
    if [ -n "$(command -v nvidia-smi)" ]; then
        nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits --loop-ms=200 \
            >"$out/$name.util" 2>/dev/null &
        local watch=$!
    fi
    timeout "$at_most" "$binary" run "$slide" -o "$out/$name" --quiet --format csv,parquet "$@" >"$out/$name.log" 2>&1
    status=$?
    [ -z "${watch:-}" ] || { kill "$watch"; wait "$watch"; } 2>/dev/null
    if [ "$status" -ne 0 ]; then
        row "$name" "ended with $status: $(tail -1 "$out/$name.log" | cut -c1-160)"
        return 1
    fi
    row "$name" "$(python3 - "$out/$name" "$out/$name.util" <<'PY'
import glob, json, os, sys
folder, util = sys.argv[1:]
run = json.load(open(glob.glob(folder + "/*/run.json")[0]))
mm2 = json.load(open(glob.glob(folder + "/*/summary.json")[0]))["area_mm2"]["done"]
stages = {s["name"]: s for s in run["stages"]}
whole = lambda s: (s["busy_s"] + s["waiting_for_input_s"] + s["waiting_for_output_s"]) / s["workers"]
tiles = whole(stages["commit"])
parts = [f"{n} {s['workers']}: {s['busy_s']:.2f} s busy, {s['cpu_s']:.2f} s CPU" for n, s in stages.items()]
text = [f"{run['engine']['device']}, {run['engine']['precision']}: {run['seconds']:.2f} s, {run['seconds'] / mm2:.3f} s per mm²",
        f"tiles {tiles:.2f} s = {tiles / mm2:.3f} s per mm² of {mm2:.2f}", f"{run['nuclei']} nuclei"]
if os.path.exists(util):
    used = [[float(v) for v in line.split(",")] for line in open(util) if line.count(",") == 1 and "N/A" not in line]
    if used:
        text.append(f"GPU {sum(u for u, _ in used) / len(used):.0f} % busy on average, {max(u for u, _ in used):.0f} % at most, "
                    f"{max(m for _, m in used):.0f} MiB")
print("; ".join(text + parts))
PY
)"
}

# same NAME OTHER: nuclei of one run that the other has too: within 0.5 um, area within 2 %.
same() {
    ls "$out/$1"/*/nuclei.csv "$out/$2"/*/nuclei.csv >/dev/null 2>&1 || return
    row "$1 against $2" "$(python3 - "$out/$1" "$out/$2" <<'PY'
import csv, glob, math, sys
from collections import defaultdict
def read(folder):
    rows = csv.DictReader(open(glob.glob(folder + "/*/nuclei.csv")[0]))
    return [(float(r["x_um"]), float(r["y_um"]), r.get("type"), float(r["area_um2"])) for r in rows]
a, b = map(read, sys.argv[1:])
near = defaultdict(list)
for p in b: near[int(p[0] // 5), int(p[1] // 5)].append(p)
place = kind = 0
for p in a:
    others = [q for i in (-1, 0, 1) for k in (-1, 0, 1) for q in near[int(p[0] // 5) + i, int(p[1] // 5) + k]]
    q = min(others, key=lambda q: math.dist(p[:2], q[:2]), default=None)
    if q and math.dist(p[:2], q[:2]) < .5 and abs(p[3] - q[3]) < .02 * q[3]:
        place += 1; kind += p[2] == q[2]
print(f"{len(a)} and {len(b)} nuclei: {place} with the same place and area, {kind} of them with the same type")
PY
)"
}

# learn MODEL BATCH: crops a second in steps 41 to 60 of a training from MODEL in bf16.
learn() {
    local at_most
    at_most=$(left)
    [ "$at_most" -ge 20 ] || { row "train $1" "not run: no time left of $limit_s s"; return 1; }
    timeout "$at_most" "$binary" train --data "$WSI_NUCLEI_GPU_CHECK_LABELS" --mpp 0.25 --from "$1" -o "$out/train-$1" \
        --batch "$2" --steps 60 --validate-every 0 --bf16 --device "$device" >"$out/train-$1.log" 2>&1 ||
        { row "train $1" "ended: $(tail -1 "$out/train-$1.log" | cut -c1-160)"; return 1; }
    row "train $1, batches of $2 crops of 256 px, bf16" "$(python3 - "$out/train-$1/train.jsonl" "$2" <<'PY'
import json, sys
seconds = [json.loads(line)["seconds_a_step"] for line in open(sys.argv[1]) if "seconds_a_step" in line][-1]
print(f"{int(sys.argv[2]) / seconds:.0f} crops a second, {seconds * 1000:.0f} ms a step")
PY
)"
}

echo "gpu_check: $(date -u +%F), $("$binary" --version | head -1), $(nproc) cores$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | sed 's/^/, /' | tr '\n' ' ')"
echo
echo "| check | result |"
echo "| --- | --- |"
measure demo "$demo" --device "$device"
measure demo-again "$demo" --device "$device"
if ls "$out"/demo/*/nuclei.csv "$out"/demo-again/*/nuclei.csv >/dev/null 2>&1; then
    cmp -s "$out"/demo/*/nuclei.csv "$out"/demo-again/*/nuclei.csv && verdict="equal bytes" || verdict="NOT equal"
    row "demo twice" "nuclei.csv: $verdict"
fi
measure demo-cpu "$demo" --device cpu
same demo demo-cpu
# The card and the pages of the slide are warm from here on.
measure big "$big" --device "$device" --mask none
for precision in f16 bf16 f32 tf32; do
    measure "big-$precision" "$big" --device "$device" --mask none --precision "$precision"
    same "big-$precision" big
done
for batch in 4 64; do
    measure "big-batch-$batch" "$big" --device "$device" --mask none --batch-size "$batch"
done
# What the processor can feed, without a network: the rest of the pipeline against a device that is never the limit.
measure big-fed "$big" --model analytic:fine,100000Mpx/s --mask none
if [ -n "${WSI_NUCLEI_GPU_CHECK_LABELS:-}" ]; then
    learn default 64
    learn wide 64
fi
echo
echo "gpu_check: $((SECONDS - begun)) s"
