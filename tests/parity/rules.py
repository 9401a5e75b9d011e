#!/usr/bin/env python3
"""What fixed scales change against hover_net's scales of each map: the same predictions through both rules of `postproc`.

usage: rules.py BINARY OUT DATA PREDICTED     PREDICTED: what `tile --save-raw` wrote for CoNSeP's and DSB 2018's images

Stability: a third of the map is cut off; of the nuclei at least 64 px from the cut, how many are no longer the same
pixels? Quality: PQ on the images held out from the default model's training. Prints rows of the table.
"""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import scipy.io

import oracle

HELD_OUT = ("train_10.", "train_17.", "train_22.", "0", "1")
FAR_PX = 64
stats = oracle.metrics()


def instances(binary, raw, rule, out):
    """The label map that `postproc --postproc RULE` gives for a map."""
    path = out / f"{rule}.npy"
    np.save(path, raw)
    subprocess.run(
        [binary, "postproc", path, "-o", out, "--mpp", "0.25", "--model", "default", "--postproc", rule],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return cv2.imread(str(out / rule / "labels.png"), cv2.IMREAD_UNCHANGED).astype(np.int32)


def changed(whole, part):
    """(nuclei of `whole` far from the cut, how many of them `part` does not have pixel for pixel)."""
    width = part.shape[1]
    near = set(np.unique(whole[:, width - FAR_PX :]))
    far = [i for i in np.unique(whole[:, : width - FAR_PX]) if i > 0 and i not in near]
    lost = 0
    for i in far:
        mask = whole[:, :width] == i
        found = part[mask]
        lost += found[0] == 0 or (found != found[0]).any() or (part == found[0]).sum() != mask.sum()
    return len(far), lost


def truth_of(data, name):
    mat = data / f"consep/Train/Labels/{name}.mat"
    if mat.exists():
        return scipy.io.loadmat(mat)["inst_map"].astype(np.int32)
    return cv2.imread(str(data / f"dsb2018_he/labels/{name}.png"), cv2.IMREAD_UNCHANGED).astype(np.int32)


def main():
    binary, out, data, predicted = sys.argv[1], *map(Path, sys.argv[2:5])
    out.mkdir(parents=True, exist_ok=True)
    pq = {"default": [], "reference": []}
    sums = {"default": [0, 0], "reference": [0, 0]}
    maps = sorted(predicted.glob("*/raw.npy"))
    for path in maps:
        raw, name = np.load(path), path.parent.name
        for rule in pq:
            whole = instances(binary, raw, rule, out)
            part = instances(binary, np.ascontiguousarray(raw[:, : raw.shape[1] * 2 // 3]), rule, out)
            sums[rule] = [a + b for a, b in zip(sums[rule], changed(whole, part))]
            if f"{name}.".startswith(HELD_OUT):
                pair = stats.remap_label(truth_of(data, name)), stats.remap_label(whole)
                pq[rule].append(stats.get_fast_pq(*pair)[0][2] if pair[1].max() else 0.0)
    for rule, (far, lost) in sums.items():
        print(
            f"| `--postproc {rule}`: a third of the map cut off | {len(maps)} maps, {far} nuclei far from the cut "
            f"| {lost} changed ({100 * lost / far:.2f} %) | PQ of {len(pq[rule])} held-out images {np.mean(pq[rule]):.3f} |"
        )


main()
