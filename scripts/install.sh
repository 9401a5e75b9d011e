#!/usr/bin/env bash
# install.sh BINARY PREFIX: copies the binary into PREFIX/bin, the libraries that it needs into PREFIX/lib, where its
# rpath finds them, and the models that are not embedded into PREFIX/share/wsi-nuclei/weights, where it looks. The
# installed program needs neither .deps/ nor an environment variable. CUDA's libraries are not copied.
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
for spec in weights/*/model.toml; do
    name=$(basename "$(dirname "$spec")")
    [ "$name" = default ] && continue
    install -D -m 644 -t "$prefix/share/wsi-nuclei/weights/$name" "weights/$name/"*
    echo "install: $prefix/share/wsi-nuclei/weights/$name"
done
install -m 755 "$binary" "$prefix/bin/wsi-nuclei"
echo "install: $prefix/bin/wsi-nuclei"
