#!/usr/bin/env python3
"""Copies the held-out images of a configuration, made worse in one way, with their labels, as `eval --data` reads them.

usage: worsen_images.py none|blur1|blur2|jpeg|dim|pale|dark|noise CONFIG DATA OUT
"""

import io
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

# Rows: optical densities of hematoxylin, eosin and DAB in R, G, B (Ruifrok and Johnston 2001).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
# The folders of images and of labels of each format.
FOLDERS = {"consep": ("Images", "Labels"), "labels": ("images", "labels"), "dots": ("images", "points")}


def stain(image, gains):
    """The image with its densities of hematoxylin, eosin and the rest multiplied by `gains`."""
    od = -np.log(np.maximum(np.asarray(image, float), 1) / 255)
    changed = od @ np.linalg.inv(STAINS) @ np.diag(gains) @ STAINS
    return Image.fromarray(np.clip(np.exp(-changed) * 255, 0, 255).astype(np.uint8))


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def noisy(image, sigma):
    values = np.asarray(image, float) + np.random.default_rng(1).normal(0, sigma, np.asarray(image).shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


# What is done to an image of `mpp` µm per pixel.
CHANGES = {
    "none": lambda image, mpp: image,
    "blur1": lambda image, mpp: image.filter(ImageFilter.GaussianBlur(0.5 / mpp)),
    "blur2": lambda image, mpp: image.filter(ImageFilter.GaussianBlur(1.0 / mpp)),
    "jpeg": lambda image, mpp: jpeg(image, 20),
    "dim": lambda image, mpp: image.point(lambda v: v * 0.6),
    "pale": lambda image, mpp: stain(image, (0.5, 0.5, 1)),
    "dark": lambda image, mpp: stain(image, (1.6, 1.6, 1)),
    "noise": lambda image, mpp: noisy(image, 15),
}


def main():
    change, config, data, out = sys.argv[1], *map(Path, sys.argv[2:5])
    for data_set in tomllib.loads(config.read_text())["data"]:
        images, labels = FOLDERS[data_set["format"]]
        source, target = data / data_set["folder"], out / data_set["folder"]
        for folder in (images, labels):
            (target / folder).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / images).iterdir()):
            if not path.name.startswith(tuple(data_set["hold_out"])):
                continue
            worse = CHANGES[change](Image.open(path).convert("RGB"), data_set["mpp"])
            worse.save(target / images / f"{path.stem}.png")
            for label in (source / labels).glob(f"{path.stem}.*"):
                shutil.copy(label, target / labels / label.name)


main()
