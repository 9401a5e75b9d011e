#!/usr/bin/env bash
# Makes what a release consists of, in dist/: the wheel, the source, what is inside (SBOM, licences), SHA-256 sums.
# usage: release.sh BINARY      (`make release` gives it)
#
# The version is Cargo.toml's. A release is made of a commit: with changes that are not committed nothing is made.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

die() {
    echo "release: error: $1" >&2
    echo "release: cure: $2" >&2
    exit 1
}
need() { command -v "$1" >/dev/null || die "$1 is missing" "cargo install --locked $1${2:+ $2}"; }

need cargo-about "--features cli"
need cargo-cyclonedx
[ -z "$(git status --porcelain)" ] || die "some changes are not committed" "git commit, or git stash"
grep -q "^## \[$version\]" CHANGELOG.md || [ "${WSI_NUCLEI_UNRELEASED:-0}" = 1 ] ||
    die "CHANGELOG.md has no section [$version]" "write it, or WSI_NUCLEI_UNRELEASED=1 for a trial"
"$binary" --version | grep -qF "wsi-nuclei $version" || die "$binary is not version $version" "make build"

rm -rf dist
mkdir -p dist target
cargo about generate --locked --offline --config packaging/about.toml packaging/licences.hbs --output-file target/licences.txt
cp target/licences.txt "dist/wsi-nuclei-$version.licences.txt"
cargo cyclonedx --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu --override-filename "wsi-nuclei-$version.cdx"
mv "wsi-nuclei-$version.cdx.json" dist/
scripts/wheel.sh "$binary"
git archive --format tar.gz --prefix "wsi-nuclei-$version/" --output "dist/wsi-nuclei-$version.tar.gz" HEAD
(cd dist && sha256sum -- * >SHA256SUMS)
ls -l dist
