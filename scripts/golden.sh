#!/usr/bin/env bash
# Prints the SHA-256 of every file that this program writes, for comparing two builds on one machine.
#
#   scripts/golden.sh BINARY WORK_FOLDER >before.sha256
#   scripts/golden.sh OTHER_BINARY OTHER_FOLDER >after.sha256
#   diff before.sha256 after.sha256
#
# Needs the folder of test data ($WSI_NUCLEI_SHARED, or ../shared). run.json is left out because it holds times. The
# last bits of the networks depend on the CPU, so records of two machines may differ; those of one machine must not.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
binary=$(realpath "$1")
work=$2
shared=$(realpath "${WSI_NUCLEI_SHARED:-$here/../shared}")
demo=$shared/slides/CMU-1-Small-Region.svs
mkdir -p "$work"
cd "$work"

# Use relative paths only: paths are written into stores and JSON.
mkdir -p in/slides in/images in/old
cp -n "$demo" in/slides/
cp -n "$shared"/slides/synthetic_300x250_pyramid_deflate.tiff in/slides/
cp -n "$shared"/data/consep/Train/Images/train_{1,20}.png in/images/
cp -n "$(find "$shared"/data/nuinsseg/images -name '*.jpg' -o -name '*.jpeg' | sort | head -n 1)" in/images/
cp -n "$(find "$shared"/data/dsb2018_he/images -name '*.png' | sort | head -n 1)" in/images/
slide=in/slides/CMU-1-Small-Region.svs
cat >in/old/old.json <<'JSON'
{"mag": 40, "nuc": {
 "7": {"bbox": [[10, 20], [14, 26]], "centroid": [12, 22], "contour": [[10, 20], [10, 23], [15, 23], [15, 20]], "type_prob": 0.75, "type": 1},
 "2": {"bbox": [[0, 0], [1, 1]], "centroid": [40, 40], "contour": [[40, 40], [41, 41], [42, 42]], "type_prob": null, "type": null}}}
JSON

all=json,csv,parquet,geojson,geojson.gz,overlay,crops,report,ome-zarr
say() { echo "golden: $*" >&2; }
quiet() { "$binary" "$@" >/dev/null 2>>log.txt || { say "failed: $*"; tail -n 5 log.txt >&2; exit 1; }; }

say "run, default and analytic"
quiet run "$slide" -o run-default --format $all
quiet run in/slides -o run-analytic --model analytic --mpp 0.5 --format $all
quiet run "$slide" -o run-region --model analytic --level0-box 400,500,900,700 --units px --geojson-frame level0
say "two shards"
quiet run "$slide" -o run-shards --format $all --tile-size 1024 --shard 0/2
quiet run "$slide" -o run-shards --format $all --tile-size 1024 --shard 1/2
say "tile"
quiet tile in/images -o tile-default --mpp 0.25 --format $all --save-raw
quiet tile in/images -o tile-analytic --mpp 0.25 --model analytic
quiet tile in/images/train_1.png -o tile-reference --mpp 0.25 --postproc reference
say "postproc"
quiet postproc tile-default/train_1/raw.npy -o postproc --image in/images/train_1.png
quiet postproc tile-default/train_1/raw.npy -o postproc-reference --postproc reference --model default
say "hovernet"
quiet hovernet tile --input_dir in/images --output_dir hovernet-tile --draw_dot --save_qupath --save_raw_map
quiet hovernet wsi --input_dir in/slides --output_dir hovernet-wsi --save_thumb --save_mask --mpp 0.5
say "export, features, report, mask, slide"
quiet export run-default/CMU-1-Small-Region -o export-store --format json,csv,parquet,geojson,geojson.gz,overlay,report,ome-zarr
quiet export in/old/old.json hovernet-wsi/json/CMU-1-Small-Region.json -o export-json --format json,csv,parquet,geojson,geojson.gz
quiet features in/old/old.json hovernet-wsi/json/CMU-1-Small-Region.json -o features --tutorial
quiet report run-default -o report
quiet mask "$slide" -o mask.png
"$binary" slide info "$slide" --json >info.json

find . -type f ! -path './in/*' ! -name log.txt ! -name 'run*.json' | LC_ALL=C sort | xargs -d '\n' sha256sum
