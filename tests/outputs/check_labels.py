#!/usr/bin/env python3
"""Reads a run's labels.ome.zarr with the packages zarr and ome-zarr and compares it with the other files.

    python3 check_labels.py OUT/<stem>

Needs zarr>=3, ome-zarr>=0.11, ome-zarr-models, numpy. Every nucleus of nuclei.csv must have its area and its type in the label pyramids.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import zarr
from ome_zarr_models.v05.image_label import ImageLabel
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

folder = Path(sys.argv[1])
path = folder / "labels.ome.zarr"
rows = list(csv.DictReader((folder / "nuclei.csv").open()))
root = zarr.open_group(path, mode="r")
assert root.attrs["ome"]["version"] == "0.5" and root.attrs["ome"]["labels"] == ["nuclei", "types"]

ids, types = root["nuclei/0"][:], root["types/0"][:]
scales = root["nuclei"].attrs["ome"]["multiscales"][0]["datasets"]
mpp = scales[0]["coordinateTransformations"][0]["scale"]
area = np.bincount(ids.ravel(), minlength=len(rows) + 1) * mpp[0] * mpp[1]
assert len(area) == len(rows) + 1, "an id beyond the table"
for row in rows:
    found, expected = area[int(row["id"])], float(row["area_um2"])
    assert abs(found - expected) <= 1e-4 * expected, (row["id"], found, expected)
kind_of = np.array([0] + [int(row["type"] or 1) for row in rows])
assert np.array_equal(kind_of[ids], types), "types and nuclei disagree"

for level, dataset in enumerate(scales[1:], 1):
    step, half = 2**level, 2**level // 2
    coarse = root["nuclei"][dataset["path"]][:]
    expected = ids[half::step, half::step][: coarse.shape[0], : coarse.shape[1]]
    assert np.array_equal(coarse, expected), f"level {level}"
    assert dataset["coordinateTransformations"][1]["translation"] == [mpp[0] * half, mpp[1] * half]

summary = json.loads((folder / "summary.json").read_text())
label = root["types"].attrs["ome"]["image-label"]
for name, kind in summary["types"].items():
    value = {"label-value": kind["id"], "rgba": [*kind["color"], 255]}
    assert kind["id"] == 0 or value in label["colors"], name

for name in ("nuclei", "types"):
    ImageLabel.from_zarr(root[name])

nodes = list(Reader(parse_url(path / "types"))())
assert nodes and nodes[0].data[0].shape == ids.shape
assert np.array_equal(np.asarray(nodes[0].data[0]), types)
print(f"{path}: {len(rows)} nuclei, {len(scales)} levels, read by zarr {zarr.__version__}, ome-zarr and ome-zarr-models")
