#!/usr/bin/env python3
"""Turns the state dict of a hovernet-wide trained in PyTorch into weights/wide/model.safetensors.

usage: wide_weights.py STATE.pt... OUT.safetensors [TEMPERATURE]     (needs PyTorch and safetensors)

Several files are one state dict in parts; where two hold a tensor, the later one counts. Batch norms are folded into the
convolutions before them, tensors get the names of src/model/wide.rs, and are stored as f16. TEMPERATURE
divides the logits of the types.
"""
import sys

import torch
from safetensors.torch import save_file

EPS = 1e-3
BLOCKS = [1, 3, 3, 4, 4, 5]
LEVELS = {16: 1, 8: 2, 4: 2, 2: 2, 1: 1}


def layers():
    """Our name, the convolution's name in PyTorch, the batch norm's (None: the convolution has a bias)."""
    pair = lambda ours, theirs: (ours, theirs + ".0", theirs + ".1")
    yield pair("encoder.stem", "stem")
    for i in range(sum(BLOCKS)):
        if i > 0:
            yield pair(f"encoder.blocks.{i}.expand", f"blocks.{i}.e")
        yield pair(f"encoder.blocks.{i}.depthwise", f"blocks.{i}.d")
        yield pair(f"encoder.blocks.{i}.project", f"blocks.{i}.p")
    yield pair("decoder.lateral32", "l32")
    above = 16
    for stride, blocks in LEVELS.items():
        if stride < 16:
            yield pair(f"decoder.down{above}", f"t{stride}")
            above = stride
        yield pair(f"decoder.lateral{stride}", f"l{stride}")
        for i in range(blocks):
            block = f"d{stride}" if blocks == 1 else f"d{stride}.{i}"
            for part in "ab":
                yield pair(f"decoder.res{stride}.{i}.{part}", f"{block}.{part}")
    yield pair("decoder.pixels.a", "full.0")
    yield pair("decoder.pixels.b", "full.1")
    yield pair("types.lateral4", "y4")
    yield pair("types.down8", "y8")
    for i in range(2):
        for part in "ab":
            yield pair(f"types.res4.{i}.{part}", f"y.{i}.{part}")
    yield pair("decoder.conv1hv", "h1")
    for head in ("np", "hv", "tp"):
        yield f"head.{head}", head, None


def fold(state):
    """Weight and bias of every layer, batch norms folded, under our names."""
    folded = {}
    for ours, conv, norm in layers():
        weight = state[conv + ".weight"].double()
        if norm is None:
            bias = state[conv + ".bias"].double()
        else:
            gain, shift, mean, var = (state[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var"))
            scale = gain / (var + EPS).sqrt()
            weight, bias = weight * scale[:, None, None, None], shift - mean * scale
        folded[ours + ".weight"], folded[ours + ".bias"] = weight, bias
    return folded


if __name__ == "__main__":
    arguments = sys.argv[1:]
    temperature = float(arguments.pop()) if not arguments[-1].endswith(".safetensors") else 1.0
    *paths, out = arguments
    state = {}
    for path in paths:
        state.update(torch.load(path, map_location="cpu", weights_only=True))
    folded = fold(state)
    for part in ("weight", "bias"):
        folded[f"head.tp.{part}"] /= temperature
    save_file({name: t.half().contiguous() for name, t in folded.items()}, out)
    print(f"{out}: {len(folded)} tensors, {sum(t.numel() for t in folded.values())} values")
