#!/usr/bin/env bash
# The page of `view` in Chromium: tests/outputs/view.mjs says what is checked. Needs node, npm and a Chromium.
#   tests/outputs/view.sh BINARY SLIDE WORK
set -euo pipefail
binary=$1 slide=$2 work=$3
here=$(cd "$(dirname "$0")" && pwd)
. "$here/browser.sh"

"$binary" run "$slide" -o "$work" --model analytic --format csv --quiet
folder=$work/$(basename "${slide%.*}")
"$binary" view "$folder" --slide "$slide" --no-browser >"$work/view.log" &
server=$!
trap 'kill "$server"' EXIT
for _ in $(seq 100); do
    url=$(grep -o 'http://[^ ]*' "$work/view.log" || true)
    if [ -n "$url" ]; then break; fi
    sleep 0.1
done
node "$here/view.mjs" "$url" "$folder/nuclei.csv" "$work/view"
