#!/usr/bin/env bash
# Label pyramids of a small run, read back by the Python packages zarr and ome-zarr.
#   tests/outputs/labels.sh BINARY WORK
set -euo pipefail
binary=$1 work=$2
here=$(cd "$(dirname "$0")" && pwd)
slide=${WSI_NUCLEI_SHARED:-$here/../../../shared}/slides/CMU-1-Small-Region.svs
test -f "$slide" || slide=$here/../../slides/CMU-1-Small-Region.svs
mkdir -p "$work"
test -x "$work/python/bin/python" || python3 -m venv "$work/python"
"$work/python/bin/python" -m pip --quiet --disable-pip-version-check install "zarr>=3" "ome-zarr>=0.11" ome-zarr-models numpy
"$binary" run "$slide" -o "$work" --model analytic --format csv,ome-zarr --quiet
"$work/python/bin/python" "$here/check_labels.py" "$work/CMU-1-Small-Region"
