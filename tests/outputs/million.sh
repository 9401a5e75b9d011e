#!/usr/bin/env bash
# `view` over a million synthetic nuclei, timed: until the address is there, then in Chromium (million.mjs). FOLDER is what
#   WSI_NUCLEI_MILLION=FOLDER cargo test --release --lib a_million_nuclei_are_looked_at -- --ignored --nocapture
# left there.
#   tests/outputs/million.sh BINARY FOLDER WORK
set -euo pipefail
binary=$1 folder=$2 work=$3
here=$(cd "$(dirname "$0")" && pwd)
. "$here/browser.sh"

begun=$(date +%s%N)
"$binary" view "$folder" --no-browser >"$work/million.log" &
server=$!
trap 'kill "$server"' EXIT
url=
for _ in $(seq 6000); do
    url=$(grep -o 'http://[^ ]*' "$work/million.log" || true)
    if [ -n "$url" ]; then break; fi
    sleep 0.02
done
echo "view: address after $((($(date +%s%N) - begun) / 1000000)) ms, $(awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$server/status") MiB at the peak"
node "$here/million.mjs" "$url" "$work/million"
