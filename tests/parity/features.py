#!/usr/bin/env python3
"""Every labelled nucleus of CoNSeP and NuInsSeg, and awkward shapes, with scikit-image's region properties.

usage: features.py OUT DATA

Writes OUT/masks.npy (u8, masks one after another, a byte a pixel), OUT/boxes.npy (i64 [N, 3]: offset, height, width),
OUT/expected.npy (f64 [N, 15]) and OUT/names.txt (the 15 names of `properties` of tests/fixtures/make_regionprops.py).
"""

import importlib.util
import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from skimage.measure import regionprops

spec = importlib.util.spec_from_file_location("regionprops", Path(__file__).parent.parent / "fixtures/make_regionprops.py")
shapes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shapes)

NAMES = [
    ("area", "area"), ("bbox_area", "area_bbox"), ("convex_area", "area_convex"), ("eccentricity", "eccentricity"),
    ("equivalent_diameter", "equivalent_diameter_area"), ("euler_number", "euler_number"), ("extent", "extent"),
    ("filled_area", "area_filled"), ("inertia_eigval_x", None), ("inertia_eigval_y", None),
    ("major_axis_length", "axis_major_length"), ("minor_axis_length", "axis_minor_length"),
    ("orientation", "orientation"), ("perimeter", "perimeter"), ("solidity", "solidity"),
]  # fmt: skip


def expected(mask):
    (p,) = regionprops(mask.astype(np.uint8))
    eigenvalues = iter(p.inertia_tensor_eigvals)
    return [float(next(eigenvalues) if theirs is None else getattr(p, theirs)) for _, theirs in NAMES]


def main():
    out, data = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    masks = [mask for _, mask in shapes.awkward()] + [mask for _, mask in shapes.nuclei(data)]
    with Pool() as pool:
        values = pool.map(expected, masks, chunksize=200)
    sizes = [m.size for m in masks]
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    np.save(out / "masks.npy", np.concatenate([m.ravel() for m in masks]).astype(np.uint8))
    np.save(out / "boxes.npy", np.array([[o, *m.shape] for o, m in zip(offsets, masks)], np.int64))
    np.save(out / "expected.npy", np.array(values))
    (out / "names.txt").write_text("\n".join(ours for ours, _ in NAMES) + "\n")
    print(f"{len(masks)} masks")


if __name__ == "__main__":
    main()
