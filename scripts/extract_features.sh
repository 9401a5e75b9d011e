#!/usr/bin/env bash
# Finds the nuclei of a folder of images and writes one table of their features.
#
#   scripts/extract_features.sh IMAGES OUT [MPP] [flags of `wsi-nuclei tile`…]
#
# IMAGES  folder of PNG, JPEG or TIFF
# OUT     OUT/<stem>/ gets each image's files; OUT/features.csv all nuclei, with an `image` column first
# MPP     µm per pixel of the images (0.25)
#
# The binary is $WSI_NUCLEI, else the one that `make build` made, else the one on the PATH.
set -euo pipefail

die() { echo "extract_features: error: $1" >&2; exit 2; }

[ $# -ge 2 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
images=$1 out=$2
shift 2
mpp=0.25
case "${1:-}" in "" | -*) ;; *) mpp=$1; shift ;; esac
[ -d "$images" ] || die "$images: no such folder of images"

root=$(cd "$(dirname "$0")/.." && pwd)
built=${CARGO_TARGET_DIR:-$root/target}/release/wsi-nuclei
if [ -n "${WSI_NUCLEI:-}" ]; then
    binary=$WSI_NUCLEI
elif [ -x "$built" ]; then
    binary=$built
else
    binary=$(command -v wsi-nuclei) || die "no wsi-nuclei: run 'make build', or set WSI_NUCLEI"
fi

# Exit code 1 means that some images failed: make the table of the others, and return the code.
code=0
"$binary" tile "$images" -o "$out" --mpp "$mpp" "$@" || code=$?
[ "$code" -le 1 ] || exit "$code"

table=$out/features.csv
header=
for csv in "$out"/*/nuclei.csv; do
    [ -e "$csv" ] || die "$out holds no nuclei.csv: leave csv among the --format"
    stem=$(basename "$(dirname "$csv")")
    first=$(head -n 1 "$csv")
    if [ -z "$header" ]; then
        header=$first
        printf 'image,%s\n' "$header" >"$table.partial"
    elif [ "$first" != "$header" ]; then
        rm -f "$table.partial"
        die "$csv has other columns than the images before: it is of another run; use an empty OUT"
    fi
    STEM=${stem//\"/\"\"} awk 'NR > 1 { print "\"" ENVIRON["STEM"] "\"," $0 }' "$csv" >>"$table.partial"
done
mv "$table.partial" "$table"
echo "extract_features: $(($(wc -l <"$table") - 1)) nuclei in $table"
exit "$code"
