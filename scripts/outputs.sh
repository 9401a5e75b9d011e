#!/usr/bin/env bash
# Runs a slide and opens the files with pyarrow, pandas and DuckDB. `make outputs` gives the arguments.
# usage: outputs.sh BINARY SLIDE OUT
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1 slide=$2 out=$3
python=.deps/outputs/bin/python

if [ ! -e .deps/outputs.done ]; then
    echo "outputs: making .deps/outputs: pyarrow, pandas, DuckDB"
    rm -rf .deps/outputs
    python3 -m venv .deps/outputs
    $python -m pip --disable-pip-version-check install --quiet pyarrow pandas duckdb
    $python -m pip --disable-pip-version-check install --quiet anndata squidpy geopandas spatialdata
    touch .deps/outputs.done
fi
"$binary" run "$slide" -o "$out" --model analytic --quiet --format json,csv,parquet,geojson,geojson.gz
$python tests/outputs/read.py "$out/$(basename "${slide%.*}")"
$python tests/outputs/analysis.py "$out/$(basename "${slide%.*}")"
