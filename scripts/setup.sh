#!/usr/bin/env bash
# Brings what the build needs into .deps/ (ignored by git): libtorch 2.11.0, OpenSlide 4, libclang (for bindgen).
# Idempotent; says what it does; each failure names its cure. An existing LIBTORCH is respected.
set -euo pipefail
cd "$(dirname "$0")/.."
deps=$PWD/.deps
site=$deps/python

say() { echo "setup: $*"; }
die() { echo "setup: error: $1" >&2; echo "setup: cure: $2" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi
}

# need COMMAND PACKAGE: have the command, or install Debian's package that brings it.
need() {
    command -v "$1" >/dev/null && return
    say "$1 is missing: installing Debian package(s) $2"
    command -v apt-get >/dev/null || die "$1 is missing and this is not Debian" "install $2 with your system's package manager, then repeat"
    # shellcheck disable=SC2086
    { as_root apt-get update -qq && as_root apt-get install -y -qq --no-install-recommends $2 >/dev/null; } ||
        die "could not install $2 (no root, or no network)" "as root: apt-get install $2"
    command -v "$1" >/dev/null || die "$1 is still missing" "as root: apt-get install $2"
}

# fetch FOLDER REQUIREMENT…: wheels from PyPI into FOLDER, whatever Python this machine has.
fetch() {
    local into=$1; shift
    say "fetching $* from PyPI"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --upgrade \
        --python-version 3.11 --implementation cp --target "$into" "$@" 2> >(grep -v 'Running pip as' >&2) ||
        die "pip could not fetch $*" "check the network and pip's index (pip config list), then repeat"
}

need g++ build-essential
need pkg-config pkg-config
need python3 python3
python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
command -v cargo >/dev/null || die "cargo is missing" "install Rust 1.91 or newer from https://rustup.rs, then repeat"

if [ -n "${LIBTORCH:-}" ]; then
    [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] || die "LIBTORCH=$LIBTORCH holds no lib/libtorch_cpu.so" "point LIBTORCH at a libtorch 2.11.0, or unset it"
    say "using libtorch of LIBTORCH=$LIBTORCH"
    libtorch=$LIBTORCH
else
    libtorch=$site/torch
    if [ ! -e "$deps/torch-2.11.0.done" ]; then
        fetch "$site" torch==2.11.0 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*'
        touch "$deps/torch-2.11.0.done"
    fi
fi

if [ ! -e "$deps/openslide-4.done" ]; then
    fetch "$site" openslide-bin==4.0.0.14
    mkdir -p "$deps/openslide/lib/pkgconfig" "$deps/openslide/include"
    cp "$site/openslide_bin/libopenslide.so.1" "$deps/openslide/lib/"
    ln -sf libopenslide.so.1 "$deps/openslide/lib/libopenslide.so"
    cat >"$deps/openslide/lib/pkgconfig/openslide.pc" <<PC
prefix=$deps/openslide
Name: openslide
Description: OpenSlide from the PyPI package openslide-bin
Version: 4.0.0
Libs: -L$deps/openslide/lib -lopenslide
Cflags: -I$deps/openslide/include
PC
    touch "$deps/openslide-4.done"
fi
cp -u config/openslide/openslide.h "$deps/openslide/include/"

if [ ! -e "$deps/libclang-18.done" ]; then
    fetch "$site" libclang==18.1.1
    touch "$deps/libclang-18.done"
fi

# What the build reads. `make` includes it; a shell can: . .deps/env
cat >"$deps/env.new" <<ENV
export LIBTORCH=$libtorch
export LIBTORCH_CXX11_ABI=1
export PKG_CONFIG_PATH=$deps/openslide/lib/pkgconfig
export WSI_NUCLEI_OPENSLIDE_LIB=$deps/openslide/lib
export LIBCLANG_PATH=$site/clang/native
ENV
cmp -s "$deps/env.new" "$deps/env" || cp "$deps/env.new" "$deps/env"
rm -f "$deps/env.new"
