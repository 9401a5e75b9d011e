"""Slides for scripts/cluster_test.sh: pyramidal TIFFs with few different tiles, by the standard library alone.

Call: python3 scripts/cluster_slides.py FOLDER COUNT SIDE_PX
Writes FOLDER/p0.tif to p<COUNT-1>.tif: RGB, 256 px tiles, deflate, levels 1 and 4, 0.5 µm/px, dark discs on pink.
"""

import random
import struct
import sys
import zlib
from pathlib import Path

TILE = 256


def tile(seed):
    rng = random.Random(seed)
    rows = [bytearray(bytes((230, 180, 210)) * TILE) for _ in range(TILE)]
    for _ in range(rng.randint(20, 40)):
        x, y, r = rng.randint(8, TILE - 9), rng.randint(8, TILE - 9), rng.randint(5, 8)
        for dy in range(-r, r + 1):
            half = int((r * r - dy * dy) ** 0.5)
            rows[y + dy][3 * (x - half):3 * (x + half + 1)] = bytes((80, 50, 130)) * (2 * half + 1)
    return zlib.compress(b"".join(rows), 6)


def write(path, side, seed):
    rng = random.Random(seed)
    out = bytearray(b"II\x2a\x00\x00\x00\x00\x00")
    blobs = []
    for kind in range(6):
        data = tile(1000 * seed + kind)
        blobs.append((len(out), len(data)))
        out += data + b"\0" * (len(data) % 2)
    link = 4
    for scale in (1, 4):
        size = -(-side // scale)
        across = -(-size // TILE)
        places = [rng.choice(blobs) for _ in range(across * across)]
        lists = {}
        for tag, values in ((324, [p for p, _ in places]), (325, [n for _, n in places])):
            lists[tag] = (len(out), len(values), values[0])
            out += struct.pack(f"<{len(values)}I", *values)
        bits = len(out)
        out += struct.pack("<3H", 8, 8, 8) + b"\0\0"
        ratio = len(out)
        out += struct.pack("<2I", round(1e4 / 0.5 / scale * 100), 100)
        entries = [(254, 4, 1, int(scale > 1)), (256, 4, 1, size), (257, 4, 1, size), (258, 3, 3, bits),
                   (259, 3, 1, 8), (262, 3, 1, 2), (277, 3, 1, 3), (282, 5, 1, ratio), (283, 5, 1, ratio),
                   (284, 3, 1, 1), (296, 3, 1, 3), (322, 4, 1, TILE), (323, 4, 1, TILE)]
        for tag, (place, count, first) in lists.items():
            entries.append((tag, 4, count, place if count > 1 else first))
        struct.pack_into("<I", out, link, len(out))
        out += struct.pack("<H", len(entries))
        for entry in entries:
            out += struct.pack("<HHII", *entry)
        link = len(out)
        out += b"\0\0\0\0"
    path.write_bytes(out)


def main():
    folder, count, side = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for seed in range(count):
        # Different sizes, so that the order by cost means something.
        write(folder / f"p{seed}.tif", side + 128 * seed, seed)


main()
