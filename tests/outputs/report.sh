#!/usr/bin/env bash
# report.html and the page over several slides in Chromium: tests/outputs/report.mjs says what is checked. Needs node,
# npm and a Chromium.
#   tests/outputs/report.sh BINARY SLIDE WORK
set -euo pipefail
binary=$1 slide=$(realpath "$2") work=$3/report
here=$(cd "$(dirname "$0")" && pwd)
. "$here/browser.sh"

rm -rf "$work"
mkdir -p "$work"
"$binary" run "$slide" -o "$work" --model analytic --quiet

# Five fields of one slide stand for five slides.
echo path,id,roi >"$work/cohort.csv"
for i in 0 1 2 3 4; do
    x=$((300 * i)) right=$((300 * i + 400 + 150 * i))
    cat >"$work/field$i.geojson" <<JSON
{"type": "Polygon", "coordinates": [[[$x, 200], [$right, 200], [$right, 1400], [$x, 1400], [$x, 200]]]}
JSON
    echo "$slide,field$i,field$i.geojson" >>"$work/cohort.csv"
done
"$binary" run --manifest "$work/cohort.csv" -o "$work/cohort" --model analytic --quiet
"$binary" report "$work/cohort"
node "$here/report.mjs" "$work/$(basename "${slide%.*}")/report.html" "$work/cohort/index.html" "$work/looks"
