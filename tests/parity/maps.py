#!/usr/bin/env python3
"""Prediction maps of 80 to 2048 px and what hover-net 0.0.10's own `process` makes of them.

usage: maps.py OUT DATA [RAW]     DATA: consep/, dsb2018_he/; RAW: folder of raw.npy that `tile --save-raw` wrote

Writes OUT/NAME.npy, float32 [5, H, W]: np, h, v, instances by the oracle, instances by the same rules with holes of
markers filled blob by blob (tests/fixtures/make_postproc.py). Label-derived maps are targets, blurred, with noise.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np

import oracle

spec = importlib.util.spec_from_file_location("rules", Path(__file__).parent.parent / "fixtures/make_postproc.py")
rules = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rules)
process = oracle.process()


def crowd(side, rng):
    """A crowd of overlapping ellipses, later ones on top."""
    ids = np.zeros((side, side), np.int64)
    y, x = np.mgrid[:side, :side]
    for i in range(int(side * side * rng.uniform(0.002, 0.006))):
        cy, cx = rng.uniform(0, side, 2)
        a, b = rng.uniform(4, 12, 2)
        turn = rng.uniform(0, np.pi)
        y0, y1, x0, x1 = (int(np.clip(v, 0, side)) for v in (cy - 13, cy + 13, cx - 13, cx + 13))
        dy, dx = y[y0:y1, x0:x1] - cy, x[y0:y1, x0:x1] - cx
        u, w = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        ids[y0:y1, x0:x1][(u / a) ** 2 + (w / b) ** 2 <= 1] = i + 1
    return rules.by_first_pixel(ids)


def label_maps(data, rng):
    """(name, instances) of 80 to 2048 px: whole images, crops of odd sizes, a mosaic, synthetic crowds."""
    whole = list(rules.labels(data))
    yield from whole
    for number in range(90):
        name, instances = whole[rng.integers(len(whole))]
        h, w = (int(rng.integers(80, n + 1)) for n in instances.shape)
        y, x = (int(rng.integers(0, n - m + 1)) for n, m in zip(instances.shape, (h, w)))
        yield f"crop{number}_{name}", rules.by_first_pixel(instances[y : y + h, x : x + w])
    parts = [instances for name, instances in whole if name.startswith("consep")][:9]
    rows = [np.hstack([p + 10_000 * (3 * r + c) * (p > 0) for c, p in enumerate(parts[3 * r : 3 * r + 3])]) for r in range(3)]
    yield "mosaic", rules.by_first_pixel(np.vstack(rows)[:2048, :2048])
    for number, side in enumerate((80, 97, 128, 164, 200, 256, 333, 512, 700, 1024)):
        yield f"crowd{number}", crowd(side, rng)


def write(out, name, planes):
    np_map, h, v = planes
    theirs = process(np.stack(planes, -1))[0]
    fair = rules.reference(np_map, h, v)
    both = [rules.by_first_pixel(a.astype(np.int64)) for a in (theirs, fair)]
    np.save(out / f"{name}.npy", np.stack([*planes, *both]).astype(np.float32))


def main():
    out, data = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    count = 0
    for name, instances in label_maps(data, rng):
        write(out, name, rules.predictions(instances, rng))
        count += 1
    for path in sorted(Path(sys.argv[3]).rglob("raw.npy")) if len(sys.argv) > 3 else []:
        raw = np.load(path).astype(np.float32)
        write(out, f"predicted_{path.parent.name}", [np.ascontiguousarray(raw[..., c]) for c in (-3, -2, -1)])
        count += 1
    print(f"{count} maps")


main()
