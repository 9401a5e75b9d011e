#!/usr/bin/env python3
"""A module traced by PyTorch through the whole pipeline (`tile --save-raw`) against PyTorch's own output.

usage: torchscript.py BINARY OUT IMAGE     prints a row of the table; a difference above 1e-4 is an error
"""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

TOML = """name = "traced"
architecture = "torchscript"
mpp = 0.25
patch_in_px = 320
patch_out_px = 256
weights = "model.pt"
sha256 = "%s"
licence = "none"
[[types]]
name = "background"
color = [0, 0, 0]
[[types]]
name = "tumour"
color = [213, 94, 0]
[[types]]
name = "other"
color = [0, 114, 178]
"""


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(16, 6, 3, padding=1))

    def forward(self, x):
        y = self.body(x / 255) * 4
        return y[:, :1], y[:, 1:3], y[:, 3:]


def main():
    binary, out, picture = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    folder = out / "traced"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(5)
    net = Net().eval()
    torch.jit.trace(net, torch.zeros(1, 3, 320, 320)).save(str(folder / "model.pt"))
    (folder / "model.toml").write_text(TOML % hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest())
    subprocess.run([binary, "model", "verify", folder], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        [binary, "tile", picture, "-o", out / "result", "--mpp", "0.25", "--model", folder, "--save-raw", "--quiet"], check=True
    )
    raw = np.load(out / "result" / picture.stem / "raw.npy")
    rgb = torch.from_numpy(np.asarray(Image.open(picture).convert("RGB")).transpose(2, 0, 1).copy())[None].float()
    with torch.no_grad():
        np_map, hv, tp = net(rgb)
    theirs = torch.cat([torch.softmax(tp, 1), torch.sigmoid(np_map), hv], 1)[0].permute(1, 2, 0).numpy()
    # The rim is reflected here and zero-padded there.
    inside = (slice(8, -8), slice(8, -8))
    worst = np.abs(raw[inside] - theirs[inside]).max()
    assert raw.shape == theirs.shape and worst < 1e-4, (raw.shape, theirs.shape, worst)
    print(f"| TorchScript module traced by PyTorch, through `tile` | {raw.shape[1]} x {raw.shape[0]} px, {raw.shape[2]} maps | all within 1e-4 | {worst:.0e} |")


main()
