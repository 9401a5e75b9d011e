"""Runs the Python blocks of docs/analysis.md, one after the other, on the results of a slide, and checks what they make.

usage: analysis.py OUT/<stem>    `make outputs` calls it.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

folder = Path(sys.argv[1]).resolve()
page = (Path(__file__).parents[2] / "docs/analysis.md").read_text()
blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
assert len(blocks) == 6, len(blocks)
os.chdir(tempfile.mkdtemp())
names = {}
for number, block in enumerate(blocks, 1):
    code = block.replace('"out/slide"', repr(str(folder)))
    exec(compile(code, f"docs/analysis.md, block {number}", "exec"), names)

nuclei, outlines, adata = names["nuclei"], names["outlines"], names["adata"]
assert len(nuclei) == len(outlines) == adata.n_obs > 100
assert Path("areas.pdf").stat().st_size > 1000
# The polygons follow the pixels of the mask: their area is that of the table.
ratio = names["area_um2"].to_numpy() / nuclei["area_um2"].to_numpy()
assert abs(ratio - 1).max() < 0.01, abs(ratio - 1).max()
assert abs(names["per_mm2"].sum() / names["summary"]["nuclei"]["density_per_mm2_tissue"] - 1) < 0.05
assert outlines.crs is None and names["zscore"].shape[0] == nuclei["type_name"].nunique()
assert len(names["sdata"].shapes["nuclei"]) == len(nuclei)
print("analysis: every block of docs/analysis.md runs and agrees with the tables")
