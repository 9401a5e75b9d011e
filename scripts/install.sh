#!/usr/bin/env bash
# install.sh BINARY PREFIX: copies the binary into PREFIX/bin and the libraries that it needs into PREFIX/lib, where its
# rpath finds them. The installed program needs neither .deps/ nor an environment variable. CUDA's libraries are not
# copied.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1 prefix=$2
die() {
    echo "install: error: $1" >&2
    echo "install: cure: $2" >&2
    exit 1
}
mkdir -p "$prefix/bin" "$prefix/lib" 2>/dev/null && [ -w "$prefix/bin" ] && [ -w "$prefix/lib" ] ||
    die "cannot write into $prefix" "give another folder: make install PREFIX=…"
ldd "$binary" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | while read -r library; do
    # The system's own libraries stay where they are.
    case $library in /lib/* | /lib64/* | /usr/lib/*) continue ;; esac
    echo "install: $prefix/lib/${library##*/}"
    install -m 644 "$library" "$prefix/lib/"
done
install -m 755 "$binary" "$prefix/bin/wsi-nuclei"
echo "install: $prefix/bin/wsi-nuclei"
