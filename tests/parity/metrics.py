#!/usr/bin/env python3
"""Real predictions against their truth, scored by hover-net 0.0.10's own code.

usage: metrics.py OUT DATA PREDICTED     PREDICTED: what `tile` wrote for CoNSeP's and DSB 2018's images

Writes OUT/NAME.truth.npy and OUT/NAME.pred.npy (u32 [H, W], ids without gaps) and OUT/expected.json. Pairs where one side
is empty are left out: the reference divides by zero there.
"""

import json
import sys
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np
import scipy.io

import oracle

stats = oracle.metrics()
# CoNSeP's ids in the order of the default model's types.
CONSEP_TYPES = np.array([0, 4, 2, 1, 3])


def centres(ids):
    n = ids.max()
    flat = ids.ravel()
    y, x = np.indices(ids.shape)
    area = np.bincount(flat, minlength=n + 1)[1:]
    return np.stack([np.bincount(flat, w.ravel(), minlength=n + 1)[1:] / area for w in (x, y)], 1)


def f1(truth, pred, truth_types, pred_types):
    """F1d and F1 a type from the reference's pairing, put together as its paper does."""
    pairs, lost, false = stats.pair_coordinates(centres(truth), centres(pred), 12)
    f1d = 2 * len(pairs) / (2 * len(pairs) + len(lost) + len(false))
    t, p = truth_types[pairs[:, 0]], pred_types[pairs[:, 1]]
    by_type = {}
    for k in np.unique(truth_types):
        tp = ((t == k) & (p == k)).sum()
        wrong = ((t != k) & (p == k)).sum() + ((t == k) & (p != k)).sum()
        unpaired = (pred_types[false] == k).sum() + (truth_types[lost] == k).sum()
        by_type[str(k)] = float(2 * tp / (2 * tp + 2 * wrong + unpaired))
    return f1d, by_type


def truths(data):
    """(name, instances, type of each id from 1)."""
    for path in sorted((data / "consep/Train/Labels").glob("*.mat")):
        mat = scipy.io.loadmat(path)
        ids = mat["inst_map"].astype(np.int64)
        present = np.unique(ids)[1:]
        yield path.stem, ids, CONSEP_TYPES[mat["inst_type"].ravel().astype(int)[present - 1]]
    for path in sorted((data / "dsb2018_he/labels").glob("*.png")):
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.int64)
        yield path.stem, ids, np.ones(len(np.unique(ids)) - 1, int)


def score(job):
    name, truth, truth_types, folder, out = job
    truth = stats.remap_label(truth)
    pred = cv2.imread(str(folder / "labels.png"), cv2.IMREAD_UNCHANGED).astype(np.int32)
    nuclei = json.loads((folder / "nuclei.json").read_text())["nuc"]
    kept = np.unique(pred)[1:]
    if len(kept) == 0 or truth.max() == 0:
        return None
    pred_types = np.array([nuclei[str(i)]["type"] for i in kept])
    if not name.startswith("train_"):
        pred_types[:] = 1
    pred = stats.remap_label(pred)
    np.save(out / f"{name}.truth.npy", truth.astype(np.uint32))
    np.save(out / f"{name}.pred.npy", pred.astype(np.uint32))
    dq, sq, pq = stats.get_fast_pq(truth, pred)[0]
    f1d, by_type = f1(truth, pred, truth_types, pred_types)
    return {
        "name": name, "truth_types": truth_types.tolist(), "pred_types": pred_types.tolist(),
        "scores": {
            "DICE": stats.get_dice_1(truth, pred), "AJI": stats.get_fast_aji(truth.copy(), pred.copy()),
            "AJI+": stats.get_fast_aji_plus(truth.copy(), pred.copy()), "DQ": dq, "SQ": sq, "PQ": pq, "F1d": f1d,
        },
        "f1": by_type,
    }  # fmt: skip


def main():
    out, data, predicted = map(Path, sys.argv[1:4])
    out.mkdir(parents=True, exist_ok=True)
    jobs = [(n, ids, types, predicted / n, out) for n, ids, types in truths(data) if (predicted / n / "labels.png").exists()]
    with Pool() as pool:
        cases = [case for case in pool.imap(score, jobs) if case]
    (out / "expected.json").write_text(json.dumps(cases))
    print(f"{len(cases)} pairs")


if __name__ == "__main__":
    main()
