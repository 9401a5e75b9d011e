#!/usr/bin/env bash
# Builds the release binary in a Debian 11, whose glibc (2.31) is older than that of most clusters: for `make portable-wheel`.
# Prints the binary's path as its last line.
#
# As root: debootstrap makes the Debian in target/older-glibc, and the checkout, cargo and rustup are mounted into it at
# their own paths, so that .deps/ and the crates already fetched are used. Nothing outside target/ is changed.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD/target/older-glibc
target=$PWD/target/older-glibc-build

die() {
    echo "older-glibc: error: $1" >&2
    echo "older-glibc: cure: $2" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || die "a chroot needs root" "sudo make portable-wheel"
command -v debootstrap >/dev/null || die "debootstrap is missing" "apt-get install debootstrap"
if [ -z "${IN_OWN_MOUNTS:-}" ]; then
    # Mounts of our own: they go when this process ends, however it ends.
    IN_OWN_MOUNTS=1 exec unshare --mount --propagation private "$0" "$@"
fi
if [ ! -e "$root/ready" ]; then
    rm -rf --one-file-system "$root"
    mkdir -p "$root"
    debootstrap --variant=minbase --include=g++,make,pkg-config,ca-certificates bullseye "$root" >&2
    touch "$root/ready"
fi
cargo_home=${CARGO_HOME:-$HOME/.cargo} rustup_home=${RUSTUP_HOME:-$HOME/.rustup}
mount -t proc proc "$root/proc"
for folder in "$PWD" "$(realpath .deps)" "$cargo_home" "$rustup_home"; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
done
cp /etc/resolv.conf /etc/hosts "$root/etc/"
chroot "$root" env -i HOME="$HOME" PATH="$cargo_home/bin:/usr/bin:/bin" CARGO_HOME="$cargo_home" \
    RUSTUP_HOME="$rustup_home" CARGO_TARGET_DIR="$target" \
    bash -c "cd '$PWD' && . .deps/env && cargo build --release --locked" >&2
echo "$target/release/wsi-nuclei"
