#!/usr/bin/env bash
# Fetches what the build needs into .deps/ (ignored by git): libtorch 2.11.0, OpenSlide 4, libclang (for bindgen).
# Can be run again at any time; each failure names its cure. An existing LIBTORCH is respected.
# WSI_NUCLEI_CUDA=1 also fetches CUDA's libraries (2.5 GB), 0 never does; the default is 1 where an NVIDIA driver runs.
set -euo pipefail
cd "$(dirname "$0")/.."
deps=$PWD/.deps
site=$deps/python

torch=2.11.0
# What torch 2.11.0 requires on Linux; a CPU needs only cpu_wheels.
cpu_wheels=("torch==$torch" 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*')
cuda_wheels=(nvidia-cudnn-cu13==9.19.0.56 nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9 nvidia-nvshmem-cu13==3.4.5
    'cuda-toolkit[cublas,cufft,cufile,curand,cusolver,cusparse,nvjitlink,nvrtc]==13.0.2')

say() { echo "setup: $*"; }
die() {
    echo "setup: error: $1" >&2
    echo "setup: cure: $2" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi
}

# need COMMAND PACKAGE: installs the Debian PACKAGE if COMMAND is missing.
need() {
    command -v "$1" >/dev/null && return
    command -v apt-get >/dev/null ||
        die "$1 is missing and this is not Debian" "install what Debian calls $2 with your package manager, then repeat"
    say "$1 is missing: installing the Debian package $2"
    { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null; } ||
        die "could not install $2 (no root, or no network)" "as root: apt-get update && apt-get install $2"
    command -v "$1" >/dev/null || die "$1 is still missing" "as root: apt-get install $2"
}

# done_with NAME FILE: whether NAME was fetched completely before and FILE is still there.
done_with() { [ -e "$deps/$1.done" ] && [ -e "$2" ]; }

# fetch NAME GB PIP-OPTION… REQUIREMENT…: unpacks wheels from PyPI into $site. They are unpacked, not installed, so that
# neither the version nor the settings of this machine's Python matter. What an interrupted call left is done again.
fetch() {
    local name=$1 gb=$2 stage=$deps/stage
    shift 2
    python3 -m pip --version >/dev/null 2>&1 || need pip3 python3-pip
    python3 -m pip --version >/dev/null 2>&1 ||
        die "python3 has no pip" "as root: apt-get install python3-pip (or set LIBTORCH to a libtorch $torch)"
    [ "$(df -Pk "$deps" | awk 'NR == 2 { print int($4 / 1048576) }')" -ge "$gb" ] ||
        die "fetching $name needs $gb GB of disk, $deps has less" "free some, or clone to a larger disk"
    say "fetching $name from PyPI (up to $gb GB of disk)"
    rm -rf "$deps/$name.done" "$stage"
    mkdir -p "$stage/unpacked"
    python3 -m pip --disable-pip-version-check download --quiet --only-binary=:all: \
        --python-version 3.11 --implementation cp --dest "$stage" "$@" ||
        die "pip could not fetch $name" "check the network and pip's index (pip config list); libtorch needs glibc 2.28 or newer on x86-64 or arm64"
    local wheel
    for wheel in "$stage"/*.whl; do
        python3 -m zipfile -e "$wheel" "$stage/unpacked" || die "$wheel cannot be unpacked" "check the disk's free space, then repeat"
        rm "$wheel"
    done
    mkdir -p "$site"
    # Wheels share folders (nvidia/), and some keep their files in NAME.data/platlib: merge them, replacing files.
    local root
    for root in "$stage"/unpacked/*.data/{platlib,purelib} "$stage/unpacked"; do
        [ -d "$root" ] || continue
        cp -rlf "$root/." "$site/" || die "cannot write into $site" "check its owner and free space"
    done
    rm -rf "$stage"
    touch "$deps/$name.done"
}

# put FILE: writes standard input to FILE, unless FILE has that content already (cargo rebuilds on new dates).
put() {
    cat >"$1.new"
    if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

mkdir -p "$deps" 2>/dev/null && [ -w "$deps" ] ||
    die "cannot write into $deps" "clone to a folder that you own, or: chown -R $(id -un) '$PWD'"
# Two calls at the same time would fetch into the same folder.
if command -v flock >/dev/null; then
    exec 9>"$deps/lock"
    flock 9
fi

need g++ build-essential
need pkg-config pkg-config
need python3 python3
command -v cargo >/dev/null || die "cargo is missing" "install Rust 1.91 or newer from https://rustup.rs, open a new shell, then repeat"

if [ -n "${LIBTORCH:-}" ] && [ "$LIBTORCH" != "$site/torch" ]; then
    [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] ||
        die "LIBTORCH=$LIBTORCH holds no lib/libtorch_cpu.so" "point LIBTORCH at a libtorch $torch, or unset it"
    found=$(cat "$LIBTORCH/build-version" 2>/dev/null || sed -n "s/^__version__ = '\(.*\)'/\1/p" "$LIBTORCH/version.py" 2>/dev/null || true)
    [ -z "$found" ] || [ "${found%%+*}" = "$torch" ] ||
        die "LIBTORCH=$LIBTORCH is version $found" "point LIBTORCH at a libtorch $torch, or unset it"
    say "using libtorch of LIBTORCH=$LIBTORCH"
    libtorch=$LIBTORCH
else
    libtorch=$site/torch
    done_with "torch-$torch" "$libtorch/lib/libtorch_cpu.so" || fetch "torch-$torch" 3 --no-deps "${cpu_wheels[@]}"
    cuda=${WSI_NUCLEI_CUDA:-$([ -e /proc/driver/nvidia/version ] && echo 1 || echo 0)}
    if [ "$cuda" = 1 ] && ! done_with cuda-13.0 "$site/nvidia/cudnn/lib"; then
        fetch cuda-13.0 6 "${cuda_wheels[@]}"
    fi
fi

done_with openslide-4 "$site/openslide_bin/libopenslide.so.1" || fetch openslide-4 1 --no-deps openslide-bin==4.0.0.14
mkdir -p "$deps/openslide/lib/pkgconfig" "$deps/openslide/include"
put "$deps/openslide/lib/libopenslide.so.1" <"$site/openslide_bin/libopenslide.so.1"
ln -sfn libopenslide.so.1 "$deps/openslide/lib/libopenslide.so"
put "$deps/openslide/include/openslide.h" <config/openslide/openslide.h
put "$deps/openslide/lib/pkgconfig/openslide.pc" <<PC
Name: openslide
Description: OpenSlide from the PyPI package openslide-bin
Version: 4.0.0
Libs: -L${deps// /\\ }/openslide/lib -lopenslide
Cflags: -I${deps// /\\ }/openslide/include
PC

done_with libclang-18 "$site/clang/native" || fetch libclang-18 1 --no-deps libclang==18.1.1

# The environment of the build. `make` reads it; in a shell: . .deps/env
put "$deps/env" <<ENV
export LIBTORCH=$(printf %q "$libtorch")
export LIBTORCH_CXX11_ABI=1
export PKG_CONFIG_PATH=$(printf %q "$deps/openslide/lib/pkgconfig")
export WSI_NUCLEI_OPENSLIDE_LIB=$(printf %q "$deps/openslide/lib")
export LIBCLANG_PATH=$(printf %q "$site/clang/native")
ENV
say "ready: libtorch at $libtorch"
