#!/usr/bin/env python3
"""HoVer-Net by the oracle: random weights, batch norms calibrated on real patches, last layers scaled so that nothing
saturates.

usage: network.py OUT IMAGE…          four full networks: OUT/NAME.tar (torch.save) and OUT/NAME.{rgb,np,hv,tp}.npy
       network.py --thin PATCH.png    tests/fixtures/hovernet_thin.safetensors: two networks of an eighth of the channels,
                                      weights by `hashed` (tests/fixtures/hovernet_thin.md)
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import oracle

SIDES = {"fast": 256, "original": 270}
FULL = {"fast_types": ("fast", 6), "fast": ("fast", None), "original_types": ("original", 5), "original": ("original", None)}
THIN = 8


def patches(paths, side, count):
    """u8 [count, 3, side, side] from the middle and the corners of images."""
    found = []
    for path in paths:
        image = np.asarray(Image.open(path).convert("RGB"))
        h, w = image.shape[:2]
        for y, x in ((0, 0), (h - side, w - side), ((h - side) // 2, (w - side) // 2)):
            found.append(image[y : y + side, x : x + side].transpose(2, 0, 1))
    return torch.from_numpy(np.stack(found[:count]))


def calibrate(net, rgb):
    """Batch norms take the statistics of `rgb`."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    net.train()
    with torch.no_grad():
        net(rgb.float())
    net.eval()


def unsaturate(net, rgb):
    """Scales the last layers: np's two logits differ by 1.5 ± on average 0, h and v by 0.5, types by 2."""
    with torch.no_grad():
        raw = net(rgb.float())
        for branch, spread in (("np", 1.0), ("hv", 0.5), ("tp", 2.0)):
            if branch not in raw:
                continue
            conv, y = net.decoder[branch][-1].conv, raw[branch]
            gain = spread / y.std(dim=(0, 2, 3)).clamp_min(1e-6)
            conv.weight *= gain.view(-1, 1, 1, 1)
            conv.bias -= y.mean(dim=(0, 2, 3))
            conv.bias *= gain
        p = torch.softmax(net(rgb.float())["np"], 1)[:, 1]
        share = ((p > 0.05) & (p < 0.95)).float().mean().item()
        assert share >= 0.2, f"np is saturated: {share}"
        return share


def full(out, images):
    for name, (mode, types) in FULL.items():
        torch.manual_seed(len(name))
        net = oracle.network().HoVerNet(nr_types=types, mode=mode)
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.uniform_(-0.3, 0.3)
        rgb = patches(images, SIDES[mode], 3)
        calibrate(net, rgb)
        share = unsaturate(net, rgb)
        torch.save({"desc": net.state_dict()}, out / f"{name}.tar")
        np.save(out / f"{name}.rgb.npy", rgb.numpy())
        with torch.no_grad():
            for branch, y in net(rgb.float()).items():
                np.save(out / f"{name}.{branch}.npy", y.numpy().copy())
        print(f"{name}: np is between 0.05 and 0.95 on {share:.0%} of the pixels")


def hashed(name, shape):
    """Values in -0.5..0.5 that any language can make: murmur3's finalizer of FNV-1a of the name plus the index."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x01000193) & 0xFFFFFFFF
    x = np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(seed)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    return ((x >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)).reshape(shape)


def thin_classes():
    """The oracle's modules with an eighth of the channels; 3 (RGB) and the outputs of the heads stay."""
    from torch import nn

    def thin(channels):
        return channels if channels < 16 else channels // THIN

    class Conv(nn.Conv2d):
        def __init__(self, i, o, *args, **kw):
            super().__init__(thin(i), thin(o), *args, **kw)

    class Norm(nn.BatchNorm2d):
        def __init__(self, c, *args, **kw):
            super().__init__(thin(c), *args, **kw)

    return Conv, Norm


def thin(patch):
    from safetensors.numpy import save_file

    desc, parts = oracle.network(), oracle.network_parts()
    conv, norm = thin_classes()
    plain = torch.nn.Conv2d, torch.nn.BatchNorm2d
    tensors = {}
    for mode, types in (("fast", 5), ("original", None)):
        torch.nn.Conv2d, torch.nn.BatchNorm2d = conv, norm
        net = desc.HoVerNet(nr_types=types, mode=mode)
        torch.nn.Conv2d, torch.nn.BatchNorm2d = plain
        state = net.state_dict()
        for name, t in state.items():
            if name.endswith(("running_mean", "running_var", "num_batches_tracked")) or "unpool_mat" in name:
                continue
            values = hashed(name, tuple(t.shape))
            if t.ndim == 4:
                values = values * np.float32((12.0 / np.prod(t.shape[1:])) ** 0.5)
            elif name.endswith("weight"):
                values = values + np.float32(1.0)
            state[name] = torch.from_numpy(values)
        net.load_state_dict(state)
        rgb = patches([patch], SIDES[mode], 1)
        calibrate(net, rgb)
        unsaturate(net, rgb)
        for name, t in net.state_dict().items():
            if name.endswith(("running_mean", "running_var")) or ".u0.conv." in name:
                tensors[f"{mode}/{name}"] = t.numpy().copy()
        with torch.no_grad():
            for branch, y in net(rgb.float()).items():
                tensors[f"{mode}/{branch}"] = y[0, :, ::4, ::4].numpy().copy()
    out = Path(__file__).parent.parent / "fixtures/hovernet_thin.safetensors"
    save_file(tensors, out)
    print(out, out.stat().st_size)


if sys.argv[1] == "--thin":
    thin(Path(sys.argv[2]))
else:
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    full(target, [Path(p) for p in sys.argv[2:]])
